"""The plot of accuracies with their intervals: as SVG that follows the page's theme, and as PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iadd.leaderboard.text import MARK

# The light theme. In the page's copy of a plot each colour becomes the page's variable of its name.
COLOURS = {
    "ink": "#1c2128",
    "muted": "#66707c",
    "line": "#d9dde2",
    "s0": "#0b5fa5",
    "s1": "#c4570a",
    "s2": "#1b7f5c",
    "s3": "#8a4fa8",
    "s4": "#a33a3b",
    "s5": "#4b6a78",
}
MARKERS = "os^Dvp"
ACROSS = 3
"""Entries in a line of a legend."""
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif"}

Panel = dict[str, Any]
"""title, main (a network), networks, rows: (method, its leaderboard row or None a network), and
published: the methods' published rows on the first network."""


def svg(panel: Panel) -> str:
    """One panel as an <svg> element: no fixed size, its text being text, its colours variables."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": panel["title"]}):
        figure = Figure(figsize=(4.6, _height(panel)), layout="constrained")
        _draw(figure.add_subplot(), panel)
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    whole = text.getvalue()
    head, rest = whole[whole.index("<svg") :].split(">", 1)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    rest = re.sub(r' id="[\w.]+_\d+"', "", rest)  # names of groups, the same in every plot
    image = re.sub(r' (width|height)="[^"]*"', "", head) + ">" + rest
    for name, colour in COLOURS.items():
        image = image.replace(colour, f"var(--{name})")
    return image


def png(panels: Sequence[Panel]) -> bytes:
    """All panels one below the other, 150 dots an inch, on white."""
    with matplotlib.rc_context(STYLE):
        heights = [_height(panel) for panel in panels]
        figure = Figure(figsize=(6.4, sum(heights)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for one, panel in zip(axes, panels, strict=True):
            pad = 8 + 16 * -(-_entries(panel) // ACROSS)  # points: the legend's lines lie between
            one.set_title(panel["title"], loc="left", pad=pad, color=COLOURS["ink"])
            _draw(one, panel)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150, metadata={"Software": None})
    return image.getvalue()


def _height(panel: Panel) -> float:
    return 1.0 + (0.15 + 0.1 * len(panel["networks"])) * len(panel["rows"])


def _entries(panel: Panel) -> int:
    """Of its legend."""
    return len(panel["networks"]) + bool(panel["published"])


def _draw(axes: Axes, panel: Panel) -> None:
    """Methods down, accuracy across; a mark and its interval for each evaluation network."""
    count = len(panel["networks"])
    for place, network in enumerate(panel["networks"]):
        colour, marker = COLOURS[f"s{place % 6}"], MARKERS[place % 6]
        offset = 0.7 * ((place + 0.5) / count - 0.5)
        width, size = (2.2, 6.5) if network == panel["main"] else (1.1, 4)
        for line, (_, cells) in enumerate(panel["rows"]):
            row, height = cells[place], line + offset
            if row is None or row.accuracy_mean is None:
                continue
            if row.accuracy_low is not None:
                ends = [100 * row.accuracy_low, 100 * row.accuracy_high]
                axes.plot(ends, [height] * 2, color=colour, lw=width)
            axes.plot(100 * row.accuracy_mean, height, marker, color=colour, ms=size, mew=0)
        axes.plot([], [], marker, color=colour, ms=size, mew=0, label=network)
    _draw_published(axes, panel)
    names = [next(row for row in cells if row) for _, cells in panel["rows"]]
    marks = [row.method + MARK * row.reconstruction for row in names]
    axes.set_yticks(range(len(marks)), marks)
    axes.set_ylim(len(marks) - 0.5, -0.5)
    marked = f" ({MARK} a reconstruction)" if any(row.reconstruction for row in names) else ""
    axes.set_xlabel(f"test accuracy, %{marked}", color=COLOURS["muted"])
    axes.grid(axis="x", color=COLOURS["line"], lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=COLOURS["ink"])
    axes.spines[:].set_visible(False)
    if _entries(panel) > 1:
        above: dict[str, Any] = {
            "loc": "lower center",
            "bbox_to_anchor": (0.42, 1.0),
            "ncols": min(_entries(panel), ACROSS),
        }
        axes.legend(**above, frameon=False, labelcolor=COLOURS["ink"], fontsize=9)


def _draw_published(axes: Axes, panel: Panel) -> None:
    """Published values of the panel's methods: hollow, never joined to measured ones."""
    style: dict[str, Any] = {"color": COLOURS["muted"], "mfc": "none", "ms": 8, "ls": "none"}
    for line, (method, _) in enumerate(panel["rows"]):
        if row := panel["published"].get(method):
            axes.plot(100 * row.accuracy_mean, line, "d", **style)
    if panel["published"]:
        axes.plot([], [], "d", label="published", **style)
