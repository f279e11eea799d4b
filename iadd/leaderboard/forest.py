"""A forest plot: each entry of a benchmark held against its control, with paired intervals."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iadd.leaderboard.controls import Pair, Panel, reach
from iadd.leaderboard.statistics import LEVEL

INK, MUTED, LINE, BETTER, WORSE = "#1c2128", "#66707c", "#d9dde2", "#1b7f5c", "#a33a3b"
SIDE, LINE_HEIGHT, FRAME = 7.2, 0.27, 1.1  # inches


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
    axes.set_xlabel(panel.axis, color=MUTED, fontsize=9)
    axes.grid(axis="x", color=LINE, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines[:].set_visible(False)
    return figure


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
