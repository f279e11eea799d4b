"""A forest plot: each entry of a benchmark held against its control, with paired intervals.

Which pairs are compared stands in the benchmark's configuration (`controls`), so it was settled
before anything was measured, and only these comparisons are corrected for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iadd.leaderboard.cells import Cell, cell_of
from iadd.leaderboard.rows import ComparisonRow
from iadd.leaderboard.statistics import LEVEL, holm
from iadd.leaderboard.text import cell_words

INK, MUTED, LINE, BETTER, WORSE = "#1c2128", "#66707c", "#d9dde2", "#1b7f5c", "#a33a3b"
SIDE, LINE_HEIGHT, FRAME = 7.2, 0.27, 1.1  # inches
OUTLYING = 4.0
"""Intervals are cut at so many times the median reach."""


@dataclass(frozen=True)
class Pair:
    """One entry against its control in one cell; p is corrected for the cell's declared pairs."""

    found: ComparisonRow
    p: float

    @property
    def verdict(self) -> str:
        """better, worse, or not told apart (at 5 %), and whether that is the correction's doing."""
        if self.p >= LEVEL:
            return "not told apart" if self.found.p >= LEVEL else "only before correction"
        return "better" if self.found.difference > 0 else "worse"

    @property
    def words(self) -> str:
        """Difference and interval in points, and the verdict."""
        row = self.found
        difference = round(100 * row.difference, 2) + 0.0  # no minus before zero
        between = f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"
        return f"{difference:+.2f} ({between}), {self.verdict}"


@dataclass(frozen=True)
class Panel:
    """What is known of the declared pairs in one cell, by control."""

    cell: Cell
    pairs: tuple[Pair, ...]

    @property
    def title(self) -> str:
        return cell_words(self.cell)

    @property
    def groups(self) -> dict[str, list[Pair]]:
        """Control -> its pairs, in the declared order."""
        found: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            found.setdefault(pair.found.other, []).append(pair)
        return found

    @property
    def verdict(self) -> str:
        """What comes out, in a sentence."""
        by_verdict: dict[str, list[str]] = {}
        for pair in self.pairs:
            named = f"{pair.found.method} against {pair.found.other}"
            by_verdict.setdefault(pair.verdict, []).append(named)
        order = ("better", "worse", "only before correction", "not told apart")
        parts = [f"{v}: {', '.join(by_verdict[v])}" for v in order if v in by_verdict]
        words = "; ".join(parts)
        return f"{words[0].upper()}{words[1:]}."

    @property
    def note(self) -> str:
        """How to read it, in a sentence or two."""
        seeds = sorted({pair.found.n_seeds for pair in self.pairs})
        over = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
        return (
            f"Difference of test accuracy to the control, in points, over {over} paired seeds, "
            f"with 95 % intervals. Verdicts at 5 %, corrected by Holm's method for the "
            f"{len(self.pairs)} comparisons that the configuration declares."
        )


def panels(comparisons: Iterable[ComparisonRow], declared: Iterable[Sequence[str]]) -> list[Panel]:
    """A panel for each cell in which a declared pair was compared.

    declared: entries and their controls, in the order of the plot.
    """
    order = [(entry, control) for entry, control in declared]
    cells: dict[Cell, dict[tuple[str, str], ComparisonRow]] = {}
    for row in comparisons:
        if row.score == "accuracy" and (row.method, row.other) in order:
            cells.setdefault(cell_of(row), {})[row.method, row.other] = row
    found = []
    for cell, rows in cells.items():
        ordered = [rows[pair] for pair in order if pair in rows]
        corrected = holm([row.p for row in ordered])
        pairs = (Pair(row, p) for row, p in zip(ordered, corrected, strict=True))
        found.append(Panel(cell, tuple(pairs)))
    return found


def draw(panel: Panel) -> Figure:
    """A panel as a figure: entries down, differences across, words at the right."""
    lines = len(panel.pairs) + len(panel.groups)
    size = (SIDE, FRAME + LINE_HEIGHT * lines)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    names: list[tuple[str, bool]] = []
    edge = reach(panel.pairs)
    for control, pairs in panel.groups.items():
        names.append((f"against {control}", True))
        for pair in pairs:
            _draw_pair(axes, pair, len(names), edge)
            names.append((pair.found.method, False))
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlim(-edge, edge)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [name for name, _ in names])
    for label, (_, heading) in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(MUTED if heading else INK)
    axis = "points of test accuracy, entry minus control"
    axes.set_xlabel(axis, color=MUTED, fontsize=9)
    axes.grid(axis="x", color=LINE, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines[:].set_visible(False)
    return figure


def reach(pairs: Sequence[Pair]) -> float:
    """How far the axis goes, in points: one failed entry shall not flatten all others."""
    ends = sorted(100 * max(-pair.found.low, pair.found.high) for pair in pairs)
    return 1.1 * min(ends[-1], OUTLYING * ends[len(ends) // 2])


def _draw_pair(axes: Axes, pair: Pair, height: int, edge: float) -> None:
    row = pair.found
    colour = {"better": BETTER, "worse": WORSE}.get(pair.verdict, MUTED)
    filled: dict[str, Any] = {"mfc": colour if pair.p < LEVEL else "white", "mec": colour}
    axes.plot([100 * row.low, 100 * row.high], [height] * 2, color=colour, lw=1.6)
    if abs(100 * row.difference) > edge:  # where it went
        side, mark = (-edge, "<") if row.difference < 0 else (edge, ">")
        axes.plot(0.97 * side, height, mark, color=colour, ms=7)
    axes.plot(100 * row.difference, height, "s", ms=5.5, **filled)
    axes.annotate(
        pair.words,
        (1.01, height),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8,
        color=INK,
        annotation_clip=False,
    )
