"""The plot beside a paper's table: its methods down, accuracy across, a panel a column."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iadd.leaderboard.paper import Grid, name_of

INK, MUTED, LINE, BEST = "#1c2128", "#66707c", "#d9dde2", "#0b5fa5"
ACROSS = 4
"""Panels side by side."""


def draw(grid: Grid) -> Figure:
    """Filled: the best, and what is not told apart from it; hollow diamonds: published."""
    count, lines = len(grid.columns), len(grid.lines)
    across, down = min(ACROSS, count), -(-count // ACROSS)
    size = (1.6 + 2.0 * across, down * (0.9 + 0.2 * lines))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True).flat
    for place, one in enumerate(axes):
        if place < count:
            _draw_panel(one, grid, place)
        else:
            one.set_axis_off()
    words = "test accuracy, %; filled: the best, and what is not told apart from it"
    figure.supxlabel(words, fontsize=8, color=MUTED)
    first = figure.axes[0]
    first.set_yticks(range(lines), [name_of(line) for line in grid.lines])
    first.set_ylim(lines - 0.5, -0.5)
    return figure


def _draw_panel(axes: Axes, grid: Grid, place: int) -> None:
    dataset, ipc = grid.columns[place]
    for height, line in enumerate(grid.lines):
        number = line.numbers[place]
        if number is None:
            continue
        colour = BEST if number.bold else MUTED
        published = line.first.source == "published"
        style: dict[str, Any] = {"marker": "d" if published else "o", "ms": 4.5, "color": colour}
        if published or not number.bold:
            style["mfc"] = "white"
        if number.spread is not None:
            ends = [number.mean - number.spread, number.mean + number.spread]
            axes.plot(ends, [height] * 2, color=colour, lw=1.3, ls=":" if published else "-")
        axes.plot(number.mean, height, **style)
    axes.set_title(f"{dataset}, {ipc} a class", loc="left", fontsize=8.5, color=INK)
    axes.grid(axis="x", color=LINE, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=7.5, labelcolor=INK)
    axes.spines[:].set_visible(False)
