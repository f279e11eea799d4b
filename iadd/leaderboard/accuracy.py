"""The plot beside a paper's table: its methods down, accuracy across, a panel a column."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iadd.leaderboard import measures
from iadd.leaderboard.grids import Grid, name_of

INK, MUTED, LINE, BEST = "#1c2128", "#66707c", "#d9dde2", "#0b5fa5"
ACROSS = 4
"""Panels side by side."""
LETTERS = 15
"""About the letters of the words below the panels in an inch."""


def draw(grid: Grid) -> Figure:
    """Filled: the best, and what is not told apart from it; hollow diamonds: published."""
    shown = [k for k, column in enumerate(grid.columns) if column.measure == grid.measure]
    count, lines = len(shown), len(grid.lines)
    across, down = min(ACROSS, count), -(-count // ACROSS)
    width = 1.6 + 2.0 * across
    words = [part for line in _words(grid) for part in wrap(line, int(LETTERS * width))]
    size = (width, down * (0.9 + 0.2 * lines) + 0.14 * len(words))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True).flat
    for place, one in enumerate(axes):
        if place < count:
            _draw_panel(one, grid, shown[place])
        else:
            one.set_axis_off()
    figure.supxlabel("\n".join(words), fontsize=8, color=MUTED)
    first = figure.axes[0]
    first.set_yticks(range(lines), [name_of(line) for line in grid.lines])
    first.set_ylim(lines - 0.5, -0.5)
    return figure


def _words(grid: Grid) -> Iterator[str]:
    """What is drawn, and what its marks say."""
    rows = [line.first for line in grid.lines]
    yield f"test {measures.WORDS[grid.measure]}, %, with 95 % intervals"
    if any(number.bold for line in grid.lines for number in line.numbers if number):
        yield "filled: the best, and what is not told apart from it; hollow: worse or not ranked"
    if any(row.source == "published" for row in rows):
        yield "hollow diamonds on dotted lines: published values, with the spread of their source"
    if any(row.reconstruction for row in rows):
        yield "*: a reconstruction from the paper, not the authors' program"


def _draw_panel(axes: Axes, grid: Grid, place: int) -> None:
    dataset, ipc, _ = grid.columns[place]
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
            ends = [max(number.mean - number.spread, 0), min(number.mean + number.spread, 100)]
            axes.plot(ends, [height] * 2, color=colour, lw=1.3, ls=":" if published else "-")
        axes.plot(number.mean, height, **style)
    axes.set_title(f"{dataset}, {ipc} a class", loc="left", fontsize=8.5, color=INK)
    axes.grid(axis="x", color=LINE, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=7.5, labelcolor=INK)
    axes.spines[:].set_visible(False)
