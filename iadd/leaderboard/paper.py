"""The leaderboard as tables of a paper, in LaTeX or Markdown, and the papers of its methods.

Methods are rows, data sets and ipc columns. What may not be compared is never in one table:
networks that judge, protocols, label regimes, default and tuned settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.text import network_words, place_words, protocol_words

BIBLIOGRAPHY = Path(__file__).with_name("papers.bib")
KEY = "dd:"  # before a method's name, its paper's key


class Number(NamedTuple):
    """A cell of a table, in percent; bold: the best, or not told apart from it."""

    mean: float
    spread: float | None
    bold: bool


@dataclass(frozen=True)
class Line:
    """A row of a table: a method as it was measured, submitted or published."""

    first: LeaderboardRow
    numbers: tuple[Number | None, ...]

    @property
    def block(self) -> int:
        """Lines are set apart: measured, published, the ceiling."""
        if self.first.source == "published":
            return 1
        return 2 if self.first.method == WHOLE else 0


@dataclass(frozen=True)
class Grid:
    """One table: lines and their columns (data set, ipc)."""

    first: LeaderboardRow
    columns: tuple[tuple[str, int], ...]
    lines: tuple[Line, ...]

    @property
    def caption(self) -> str:
        """What the numbers are, in plain text."""
        row = self.first
        rows = [line.first for line in self.lines]
        own = [r for r in rows if r.source == "measured" and r.method != WHOLE]
        seeds = sorted({r.n_seeds or 0 for r in own})
        over = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1]))) if seeds else "0"
        words = [
            f"Test accuracy (%) of {network_words(row.network_eval)} under protocol "
            f"{protocol_words(row.protocol)}, {place_words(row)}, by data set and images a class.",
            f"+- is half a 95 % interval over {over} distillation seeds.",
            "Bold: the best, and what is not told apart from it "
            "(paired tests over seeds, all pairs of a column corrected by Holm's method).",
        ]
        if any(r.reconstruction for r in rows):
            words.append("*: a reconstruction from the paper, not the authors' program.")
        sources = sorted({r.citation for r in rows if r.source == "published" and r.citation})
        if sources:
            said = "; ".join(sources)
            words.append(f"Published values are not ranked; their +- is as in {said}.")
        return " ".join(words)

    @property
    def blocks(self) -> list[list[Line]]:
        """The lines, measured ones first, then published ones, then the ceiling."""
        return [list(lines) for _, lines in groupby(self.lines, key=lambda line: line.block)]


def grids(leaderboard: Iterable[LeaderboardRow]) -> list[Grid]:
    """The tables of a leaderboard, in its order; lines are sorted by mean accuracy, best first."""

    def place(row: LeaderboardRow) -> tuple[str, str, str, bool]:
        return row.protocol, row.network_eval, row.label_regime, row.tuned

    found: dict[tuple[str, str, str, bool], list[LeaderboardRow]] = {}
    for row in leaderboard:
        if row.ipc and row.accuracy_mean is not None:  # 0: the ceiling of a data set alone
            found.setdefault(place(row), []).append(row)
    return [_grid(rows) for rows in found.values()]


def _grid(rows: Sequence[LeaderboardRow]) -> Grid:
    columns = tuple(sorted({(row.dataset, row.ipc) for row in rows}))
    by_method: dict[tuple[str, str], dict[tuple[str, int], LeaderboardRow]] = {}
    for row in rows:
        by_method.setdefault((row.method, row.source), {})[row.dataset, row.ipc] = row
    lines = []
    for cells in by_method.values():
        numbers = tuple(_number(cells[c]) if c in cells else None for c in columns)
        lines.append(Line(next(iter(cells.values())), numbers))

    def order(line: Line) -> tuple[int, int, float, str]:
        known = [number.mean for number in line.numbers if number]
        return line.block, -len(known), -sum(known) / len(known), line.first.method

    return Grid(rows[0], columns, tuple(sorted(lines, key=order)))


def _number(row: LeaderboardRow) -> Number:
    mean = 100 * (row.accuracy_mean or 0.0)
    if row.source == "published":
        return Number(mean, None if row.accuracy_std is None else 100 * row.accuracy_std, False)
    spread = None
    if row.accuracy_low is not None and row.accuracy_high is not None:  # cut to [0, 1]
        spread = max(mean - 100 * row.accuracy_low, 100 * row.accuracy_high - mean)
    return Number(mean, spread, row.rank_low == 1)


def markdown(tables: Sequence[Grid]) -> str:
    """The tables in Markdown, each with its caption."""
    return "\n".join(_markdown(grid) for grid in tables)


def _markdown(grid: Grid) -> str:
    def cell(number: Number | None) -> str:
        if number is None:
            return "–"
        bold = "**" if number.bold else ""
        spread = "" if number.spread is None else f" ± {number.spread:.1f}"
        return f"{bold}{number.mean:.1f}{bold}{spread}"

    heads = ["method", *(f"{dataset}, {ipc}" for dataset, ipc in grid.columns)]
    lines = [heads, ["---", *["---:"] * len(grid.columns)]]
    for line in grid.lines:
        name = _escaped(name_of(line), _MARKDOWN)
        lines.append([name, *map(cell, line.numbers)])
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    caption = _escaped(grid.caption.replace("+-", "±"), _MARKDOWN)
    return f"{caption}\n\n{body}\n"


def latex(tables: Sequence[Grid], methods: Mapping[str, str] | None = None) -> str:
    """The tables in LaTeX, for the package booktabs.

    methods: entry of the benchmark -> its method, whose paper is cited; default: as it is called.
    """
    known = set(papers())

    def cite(line: Line) -> str:
        method = (methods or {}).get(line.first.method, line.first.method)
        named = method in known and line.first.source != "submitted"
        return rf"~\cite{{{KEY}{method}}}" if named else ""

    head = "% \\usepackage{booktabs} is needed; \\cite takes the entries of references.bib.\n"
    return head + "\n".join(_latex(grid, cite) for grid in tables)


def _latex(grid: Grid, cite: Callable[[Line], str]) -> str:
    def cell(number: Number | None) -> str:
        if number is None:
            return "--"
        mean = rf"\textbf{{{number.mean:.1f}}}" if number.bold else f"{number.mean:.1f}"
        return mean + (
            "" if number.spread is None else rf"{{\scriptsize~$\pm$~{number.spread:.1f}}}"
        )

    tops, rules, at = [], [], 2
    for dataset, columns in groupby(grid.columns, key=lambda column: column[0]):
        count = len(list(columns))
        tops.append(rf"\multicolumn{{{count}}}{{c}}{{{_escaped(dataset, _LATEX)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + count - 1}}}")
        at += count
    blocks = [
        [
            " & ".join([_escaped(name_of(line), _LATEX) + cite(line), *map(cell, line.numbers)])
            for line in lines
        ]
        for lines in grid.blocks
    ]
    body = "\n    \\midrule\n".join(
        "\n".join(rf"    {line} \\" for line in lines) for lines in blocks
    )
    row = grid.first
    names = (row.protocol, row.network_eval, row.label_regime, *["tuned"] * row.tuned)
    label = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(names))
    caption = _escaped(grid.caption, _LATEX).replace("+-", r"$\pm$")
    ipcs = " & ".join(["Images a class", *(str(ipc) for _, ipc in grid.columns)])
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \label{{tab:{label}}}",
            r"  \medskip",
            rf"  \begin{{tabular}}{{l{'r' * len(grid.columns)}}}",
            r"    \toprule",
            rf"    & {' & '.join(tops)} \\",
            f"    {' '.join(rules)}",
            rf"    {ipcs} \\",
            r"    \midrule",
            body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def name_of(line: Line) -> str:
    """A method's name in a table, with what a reader must know of it."""
    row = line.first
    return row.method + "*" * row.reconstruction + f" ({row.source})" * (row.source != "measured")


_MARKDOWN = {character: f"\\{character}" for character in "\\*_`[]<>|#"}
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "*": r"$^{*}$"},
}


def _escaped(text: str, characters: Mapping[str, str]) -> str:
    return "".join(characters.get(character, character) for character in text)


def papers() -> dict[str, str]:
    """Method -> the BibTeX entry of its paper."""
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    entry = rf"^@\w+{{{KEY}([^,]+),\n.*?^}}$"
    found = re.finditer(entry, text, flags=re.MULTILINE | re.DOTALL)
    return {match.group(1): match.group() for match in found}


def references(methods: Iterable[str]) -> str:
    """A BibTeX file of the papers of these methods; those without one are left out."""
    known = papers()
    return "\n\n".join(known[name] for name in sorted(set(methods)) if name in known) + "\n"
