"""A paper's tables in LaTeX or Markdown, and the papers of its methods."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from iadd.leaderboard import measures
from iadd.leaderboard.grids import Grid, Line, Number, name_of

BIBLIOGRAPHY = Path(__file__).with_name("papers.bib")
SHORT = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "sensitivity": "sensitivity",
    "auroc": "AUROC",
}
KEY = "dd:"  # before a method's name, its paper's key


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

    heads = ["method"]
    for dataset, ipc, measure in grid.columns:
        said = f", {measures.WORDS[measure]}" * grid.several
        heads.append(_escaped(f"{dataset}, {ipc}{said}", _MARKDOWN))
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
    names = [row.protocol, row.network_eval, row.label_regime, *["tuned"] * row.tuned]
    names += [grid.measure] * (grid.measure != "accuracy")
    label = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(names))
    caption = _escaped(grid.caption, _LATEX).replace("+-", r"$\pm$")
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
            *_heads(grid),
            r"    \midrule",
            body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _heads(grid: Grid) -> list[str]:
    """The lines that say what each column is, below its data set."""
    lines = [["Images a class", *(str(column.ipc) for column in grid.columns)]]
    if grid.several:
        lines.append(["Measure", *(SHORT[column.measure] for column in grid.columns)])
    return [rf"    {' & '.join(line)} \\" for line in lines]


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
