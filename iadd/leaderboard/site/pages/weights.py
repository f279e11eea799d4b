"""What methods found important: their weights layer by layer, over time, and how many count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from iadd.leaderboard.importance import EDGES, Importance, summaries
from iadd.leaderboard.site import html
from iadd.leaderboard.site.chart import Axis, Curve, curves
from iadd.leaderboard.site.content import Content
from iadd.leaderboard.site.html import Cell, Column, Line, Table, slug
from iadd.leaderboard.site.page import Page
from iadd.leaderboard.text import per_class
from iadd.leaderboard.weights import WHOLE_NETWORK

NAV = "Weights"
SHOWN = 9
"""Looks side by side in a table."""
BINS = (0.0, 0.1, 0.5, 0.9, 0.99, 1.01, 1.1, 2.0, 10.0)
"""Lower ends of the rows of the histogram, each one of `EDGES`."""
COLOURS = "the stronger the colour, the more weight"


def pages(content: Content) -> Iterator[Page]:
    """A page for each data set and ipc at which a method has weights or masks."""
    table = content.tables.get("weights")
    if table is None:
        return
    found = list(summaries(table))
    keys = list(dict.fromkeys((one.dataset, one.ipc) for one in found))
    paths = {key: f"weights/{slug(key[0])}/ipc{key[1]}.html" for key in keys}
    beside = [(f"{dataset}, {per_class(ipc)}", path) for (dataset, ipc), path in paths.items()]
    for key, path in paths.items():
        mine = [one for one in found if (one.dataset, one.ipc) == key]
        mine.sort(key=lambda one: one.mask)  # what was learned comes first
        context = {
            "overview": _overview(mine, path),
            "methods": [_shown(one) for one in mine],
            "collapses": [f"{_name(one)}: {one.warning}" for one in mine if one.warning],
        }
        title = f"What was important, {key[0]}, {per_class(key[1])}"
        yield Page(path, title, NAV, "weights.html", context, beside)


def _name(one: Importance) -> str:
    return one.method + ", tuned" * one.tuned


def _shown(one: Importance) -> dict[str, Any]:
    return {
        "name": _name(one),
        "slug": slug(_name(one)),
        "warning": one.warning,
        "layers": _layers(one),
        "histogram": _histogram(one),
        "last": _last(one),
        "plot": _plot(one),
    }


def _overview(found: Sequence[Importance], path: str) -> Table:
    """The whole network's numbers at the last look, a row a method, which leads to its part."""
    columns = (Column("Method", "head"), Column("Kind", "word"), Column("Seeds"), *_STATISTICS)
    lines = []
    for one in found:
        kind = "mask" if one.mask else "weights"
        kind += f", collapsed in {one.collapsed} of {one.seeds} runs" if one.collapsed else ""
        numbers = _numbers(one.last.loc[WHOLE_NETWORK])
        name = Cell(_name(one), f"{path}#{slug(_name(one))}")
        lines.append(Line([name, kind, str(one.seeds), *numbers]))
    return Table("At the last iteration, all parameters", columns, lines, "means over seeds")


_STATISTICS = (
    Column("Mean"),
    Column("Spread", hint="standard deviation"),
    Column("Below 0.1, %"),
    Column("Effective, %", hint="effective number (sum w)² / sum w², as a share"),
    Column("With residual", hint="rank correlation with (student - target)²"),
    Column("With movement", hint="rank correlation with how far the expert moved"),
)


def _numbers(row: Any) -> list[str]:
    return [
        html.number(row["mean"]),
        html.number(row["std"], ".2g"),
        html.percent(row["low_share"]),
        html.percent(row["effective_share"]),
        html.number(row["residual_correlation"], "+.2f"),
        html.number(row["movement_correlation"], "+.2f"),
    ]


def _some(looks: pd.Index[Any]) -> list[int]:
    """At most `SHOWN` evenly spaced looks, the first and the last among them."""
    places = np.linspace(0, len(looks) - 1, min(SHOWN, len(looks)))
    return [int(looks[round(place)]) for place in places]


def _layers(one: Importance) -> Table:
    """Mean weight of each tensor over iterations; the stronger the colour, the more weight."""
    means = one.tensors["mean"].unstack("iteration").drop(WHOLE_NETWORK)
    looks = _some(means.columns)
    values = means[looks].to_numpy(dtype=float)
    shades = _shades(values)
    names = one.last["name"]
    lines = [
        Line([f"{tensor} {names[tensor]}", *map(_shaded, values[k], shades[k])])
        for k, tensor in enumerate(means.index)
    ]
    columns = [Column("Tensor", "head"), *(Column(str(look)) for look in looks)]
    return Table(f"{_name(one)}: mean weight by iteration", columns, lines, COLOURS)


def _histogram(one: Importance) -> Table:
    """Share of all weights by size over iterations."""
    looks = _some(one.histogram.index)
    shares = one.histogram.loc[looks].to_numpy(dtype=float)
    starts = [EDGES.index(edge) for edge in BINS]
    summed = np.add.reduceat(shares, starts, axis=1).T  # bins by looks
    names = [f"{low:g} to {high:g}" for low, high in pairwise(BINS)]
    names.append(f"{BINS[-1]:g} and more")
    lines = [Line([name, *map(_share, row)]) for name, row in zip(names, summed, strict=True)][::-1]
    columns = [Column("Size of the weight", "head"), *(Column(str(look)) for look in looks)]
    return Table(f"{_name(one)}: share of the weights by size, %, by iteration", columns, lines)


def _share(value: float) -> Cell:
    """Nothing at all is told from what rounds to nothing."""
    return Cell(html.percent(value) if value else "0", order=value, shade=0.85 * value**0.5)


def _last(one: Importance) -> Table:
    columns = (Column("Tensor", "head"), Column("Parameters"), *_STATISTICS)
    lines = [
        Line([f"{tensor} {row['name']}", f"{row['parameters']:,}", *_numbers(row)])
        for tensor, row in one.last.drop(WHOLE_NETWORK).iterrows()
    ]
    return Table(f"{_name(one)}: at the last iteration", columns, lines)


def _shades(values: np.ndarray) -> np.ndarray:
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    shades: np.ndarray = 0.85 * (values - low) / max(high - low, 1e-9)
    return shades


def _shaded(value: float, shade: float) -> Cell:
    return Cell(html.number(value, ".3f"), order=value, shade=shade)


def _plot(one: Importance) -> Any:
    whole = one.tensors.loc[WHOLE_NETWORK]
    x = [float(k) for k in whole.index]
    found = [
        Curve("effective share", x, whole["effective_share"].tolist()),
        Curve("share below 0.1", x, whole["low_share"].tolist()),
    ]
    alt = f"How many of the weights of {_name(one)} count, over iterations"
    return curves(alt, Axis.over("iteration", x), Axis("share of the weights", 0.0, 1.0), found)
