"""Pictures of matrices, as PNG: accuracy by method and network, and what classes are taken for."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.site.plot import COLOURS, STYLE
from iadd.leaderboard.text import MARK, REGIMES, per_class

Record = dict[str, Any]
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#a9cbea", "#0b5fa5", "#06325a"])
SPELT_OUT = 20
"""Classes up to which a confusion matrix has names and numbers."""
ACROSS = 3
"""Matrices side by side."""


def heat_map(methods: Sequence[str], networks: Sequence[str], values: np.ndarray) -> Record:
    """Accuracies (M, N), fractions or NaN, as shades and percent."""
    with matplotlib.rc_context(STYLE):
        size = 2.2 + 0.85 * len(networks), 1.0 + 0.34 * len(methods)
        figure = Figure(figsize=size, layout="constrained")
        known = values[np.isfinite(values)]
        ends = (known.min(), known.max()) if known.size else (0.0, 1.0)
        _matrix(figure.add_subplot(), values, methods, networks, ends, aspect="auto")
        return _png(figure)


def describe_confusions(
    networks: pd.DataFrame, place: tuple[str, str], names: Sequence[str]
) -> list[Record]:
    """A picture for each ipc, label regime, and tuned or default, with a matrix a method.

    Args:
        networks: one data set's rows of the table of evaluations.
        place: the evaluation network and the protocol that are shown.
        names: of the classes.

    A matrix is the mean over networks of the share of each class's images; a network that diverged
    has none.
    """
    network, protocol = place
    here = networks[(networks["network_eval"] == network) & (networks["protocol"] == protocol)]
    here = here[here["confusion"].notna()]
    found = []
    keys: Any
    for keys, rows in here[here["method"] != WHOLE].groupby(["label_regime", "tuned", "ipc"]):
        regime, tuned, ipc = keys
        groups = [*rows.groupby("method"), *here[here["method"] == WHOLE].groupby("method")]
        matrices = {
            f"{method}{MARK * bool(group['reconstruction'].any())}": _shares(group["confusion"])
            for method, group in groups
        }
        title = f"{per_class(int(ipc))}, {REGIMES[regime]}{', tuned' * bool(tuned)}"
        found.append({"title": title, **_confusions(matrices, names)})
    return found


def _shares(matrices: pd.Series[Any]) -> np.ndarray:
    """Mean of confusion matrices (K, K) whose rows sum to one."""
    counts = np.stack([np.asarray(cells, dtype=np.float64) for cells in matrices])
    classes = math.isqrt(counts.shape[1])
    counts = counts.reshape(-1, classes, classes)
    shares: np.ndarray = (counts / np.maximum(counts.sum(2, keepdims=True), 1)).mean(0)
    return shares


def _confusions(matrices: Mapping[str, np.ndarray], names: Sequence[str]) -> Record:
    spelt = len(names) <= SPELT_OUT
    across, down = min(ACROSS, len(matrices)), -(-len(matrices) // ACROSS)
    side = max(2.0, 0.3 * len(names)) if spelt else 3.0
    labels = list(names) if spelt else []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.3 + across * side, down * (side + 0.9)), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).flat
        for one in axes[len(matrices) :]:
            one.set_axis_off()
        for one, (method, shares) in zip(axes, matrices.items(), strict=False):
            one.set_title(method, loc="left", color=COLOURS["ink"])
            _matrix(one, shares, labels, labels, (0.0, 1.0), aspect="equal")
            first = one.get_subplotspec().colspan.start == 0
            one.set_ylabel("true class" if first else "", color=COLOURS["muted"])
            one.set_xlabel("taken for", color=COLOURS["muted"])
        return _png(figure)


def _matrix(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    ends: tuple[float, float],
    aspect: Any,
) -> None:
    """Shades from the lower to the upper end; with names also numbers, in percent."""
    low, high = ends[0], max(ends[1], ends[0] + 1e-9)
    axes.imshow(values, cmap=SHADES, vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns, rotation=90 if len(columns) > 5 else 0)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelcolor=COLOURS["ink"], labelsize=8)
    axes.spines[:].set_visible(False)
    if not rows:
        return
    digits = 0 if len(columns) > 5 else 1
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = (value - low) / (high - low) > 0.55
            colour = "#ffffff" if dark else COLOURS["ink"]
            text = f"{100 * value:.{digits}f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7.5)


def _png(figure: Figure) -> Record:
    """A figure as a data URI, 120 dots an inch, on white."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120, metadata={"Software": None})
    width, height = (round(120 * inches) for inches in figure.get_size_inches())
    uri = f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"
    return {"uri": uri, "width": width, "height": height}
