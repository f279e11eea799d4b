"""The leaderboard as a paper's tables: methods down, data sets and ipc across.

What may not be compared is never in one table: networks that judge, protocols, label regimes,
default and tuned settings; nor are data sets whose methods are ranked by different measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from iadd.leaderboard import measures
from iadd.leaderboard.cells import WHOLE, Cell, cell_of
from iadd.leaderboard.measures import Measure, ranking_measure
from iadd.leaderboard.rows import ComparisonRow, LeaderboardRow
from iadd.leaderboard.text import network_words, place_words, protocol_words
from iadd.leaderboard.training import training_lines

Worse = Set[tuple[Cell, str, str]]
"""(cell, measure, method) of methods that another one is significantly better than."""


class Number(NamedTuple):
    """A cell of a table, in percent; bold: the best, or not told apart from it."""

    mean: float
    spread: float | None
    bold: bool


class Column(NamedTuple):
    """A column of a table: one measure at one number of images a class of a data set."""

    dataset: str
    ipc: int
    measure: Measure


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
    """One table: its measure, by which lines are sorted and bold, its lines and their columns."""

    first: LeaderboardRow
    measure: Measure
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    @property
    def several(self) -> bool:
        """Whether another measure stands beside the table's own."""
        return any(column.measure != self.measure for column in self.columns)

    @property
    def caption(self) -> str:
        """What the numbers are, in plain text."""
        row = self.first
        rows = [line.first for line in self.lines]
        own = [r for r in rows if r.source == "measured" and r.method != WHOLE]
        seeds = sorted({r.n_seeds or 0 for r in own})
        over = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1]))) if seeds else "0"
        numbers = [number for line in self.lines for number in line.numbers if number]
        words = [
            f"Test {measures.WORDS[self.measure]} (%) of {network_words(row.network_eval)} under "
            f"protocol {protocol_words(row.protocol)}, {place_words(row)}, by data set and images "
            "a class.",
            f"+- is half a 95 % interval over {over} distillation seeds"
            + ", or the longer side of one that ends at 0 or 100" * any(map(_is_cut, numbers))
            + ".",
            self._bold,
        ]
        if any(r.reconstruction for r in rows):
            words.append("*: a reconstruction from the paper, not the authors' program.")
        sources = sorted({r.citation for r in rows if r.source == "published" and r.citation})
        if sources:
            said = "; ".join(sources)
            words.append(f"Published values are not ranked; their +- is as in {said}.")
        return " ".join([*words, *training_lines(rows)])

    @property
    def _bold(self) -> str:
        """What is bold, and by which measure methods are ranked."""
        words = measures.WORDS[self.measure]
        if self.measure not in ("accuracy", "balanced_accuracy"):
            return f"Sorted by {words}, of which no paired tests are made: nothing is bold."
        said = (
            f"Bold: the best by {words}, and what is not told apart from it "
            "(paired tests over seeds, all pairs of a column corrected by Holm's method)."
        )
        rows = [line.first for line in self.lines]
        if ranking_measure(rows) != self.measure:
            by = measures.WORDS[ranking_measure(rows)]
            return f"{said} The suite itself ranks these methods by {by}."
        if self.measure == "balanced_accuracy":
            said += " It ranks the methods, because the tested classes are unequal."
        return said

    @property
    def blocks(self) -> list[list[Line]]:
        """The lines, measured ones first, then published ones, then the ceiling."""
        return [list(lines) for _, lines in groupby(self.lines, key=lambda line: line.block)]


def grids(
    leaderboard: Iterable[LeaderboardRow],
    comparisons: Iterable[ComparisonRow] = (),
    measure: Measure | None = None,
) -> list[Grid]:
    """The tables of a leaderboard, in its order; lines are sorted by their mean, best first.

    Args:
        comparisons: tell what is bold by a measure that does not rank the methods.
        measure: of all tables; default: what ranks the methods of each data set.

    Raises:
        ValueError: no row knows the measure.
    """
    rows = list(leaderboard)
    by_data = {
        name: ranking_measure(row for row in rows if row.dataset == name)
        for name in {row.dataset for row in rows}
    }
    found: dict[tuple[str, str, str, bool, Measure], list[LeaderboardRow]] = {}
    for row in rows:
        if row.ipc and row.accuracy_mean is not None:  # 0: the ceiling of a data set alone
            own = measure or by_data[row.dataset]
            place = row.protocol, row.network_eval, row.label_regime, row.tuned, own
            found.setdefault(place, []).append(row)
    if measure and not any(measures.value(r, measure).mean for rs in found.values() for r in rs):
        needs = "; a data set's `positive` names the class" * (measure == "sensitivity")
        raise ValueError(f"table: --metric {measure}: no row of this benchmark has one{needs}")
    worse = {
        (cell_of(row), row.score, row.method)
        for row in comparisons
        if row.significant and row.difference < 0
    }
    return [_grid(rows, place[-1], worse) for place, rows in found.items()]


def _grid(rows: Sequence[LeaderboardRow], measure: Measure, worse: Worse) -> Grid:
    columns = tuple(
        Column(dataset, ipc, shown)
        for dataset, ipc in sorted({(row.dataset, row.ipc) for row in rows})
        for shown in _shown([row for row in rows if row.dataset == dataset], measure)
    )
    by_method: dict[tuple[str, str], dict[tuple[str, int], LeaderboardRow]] = {}
    for row in rows:
        by_method.setdefault((row.method, row.source), {})[row.dataset, row.ipc] = row
    lines = []
    for cells in by_method.values():
        numbers = tuple(
            _number(cells[c[:2]], c.measure, c.measure == measure, worse)
            if c[:2] in cells
            else None
            for c in columns
        )
        lines.append(Line(next(iter(cells.values())), numbers))

    def order(line: Line) -> tuple[int, int, float, str]:
        pairs = zip(columns, line.numbers, strict=True)
        known = [n.mean for column, n in pairs if n and column.measure == measure]
        return line.block, -len(known), -sum(known) / max(1, len(known)), line.first.method

    return Grid(rows[0], measure, columns, tuple(sorted(lines, key=order)))


def _is_cut(number: Number) -> bool:
    """Whether the interval reaches the end of what is possible on one side."""
    spread = (number.spread or 0) - 1e-9
    return number.mean < spread or number.mean + spread > 100


def _shown(rows: Sequence[LeaderboardRow], measure: Measure) -> list[Measure]:
    """The measures that a data set's columns show, the table's own first."""
    beside: tuple[Measure, ...] = ("balanced_accuracy",) if measures.imbalanced(rows) else ()
    return list(dict.fromkeys((measure, *beside, "accuracy")))


def _number(row: LeaderboardRow, measure: Measure, own: bool, worse: Worse) -> Number | None:
    """A cell; `own`: it is of the table's measure, so it may be bold."""
    found = measures.value(row, measure)
    if found.mean is None:
        return None
    mean = 100 * found.mean
    if row.source == "published":
        return Number(mean, None if row.accuracy_std is None else 100 * row.accuracy_std, False)
    spread = None
    if found.low is not None and found.high is not None:  # cut to [0, 1]
        spread = max(mean - 100 * found.low, 100 * found.high - mean)
    best = False
    if measure == row.ranked_by:
        best = row.rank_low == 1
    elif measure == "accuracy":  # compared everywhere
        best = row.rank_low is not None and (cell_of(row), measure, row.method) not in worse
    return Number(mean, spread, own and best)


def name_of(line: Line) -> str:
    """A method's name in a table, with what a reader must know of it."""
    row = line.first
    return row.method + "*" * row.reconstruction + f" ({row.source})" * (row.source != "measured")
