"""What a method found important, layer by layer and over time: summaries of the table of weights.

A summary is of one method with one setting on one data set at one ipc, its numbers means over
seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from iadd.leaderboard.results import batches
from iadd.leaderboard.weights import COLLAPSED_EFFECTIVE, COLLAPSED_LOW, WEIGHTS, WHOLE_NETWORK
from iadd.methods._importance import EDGES, TOLD

INK, MUTED, LINE, FIRST, SECOND = "#1c2128", "#66707c", "#d9dde2", "#0b5fa5", "#c4570a"
AROUND_ONE = LinearSegmentedColormap.from_list("around one", ["#8a3d05", "#f6f4ef", "#06325a"])
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#a9cbea", "#0b5fa5", "#06325a"])
SETTING = ["dataset", "ipc", "method", "tuned"]
ROWS = 50_000
"""Rows that are looked at together."""
NARROW = 0.02
"""Mean weights are told apart by colour from this relative difference on."""


@dataclass(frozen=True)
class Importance:
    """Weights of one method, data set and ipc: frames with a row an iteration, means over seeds."""

    dataset: str
    ipc: int
    method: str
    tuned: bool
    mask: bool
    seeds: int
    collapsed: int
    """Seeds whose weights were collapsed at the last look,"""
    ever: int
    """and at any."""
    tensors: pd.DataFrame
    """Indexed by (tensor, iteration): name, parameters and the statistics `TOLD`."""
    histogram: pd.DataFrame
    """Of the whole network: iterations by bins, shares."""

    @property
    def last(self) -> pd.DataFrame:
        """What holds at the last look, a row a tensor; the whole network first."""
        found: pd.DataFrame = self.tensors.groupby(level="tensor").last()
        return found

    @property
    def warning(self) -> str:
        """A sentence about collapses; empty where there is none."""
        if not self.ever:
            return ""
        rule = (
            f"an effective share below {COLLAPSED_EFFECTIVE:g}, or more than "
            f"{100 * COLLAPSED_LOW:.0f} % of the weights below 0.1"
        )
        return (
            f"Collapse: the weights of {self.collapsed} of {self.seeds} runs had collapsed at the "
            f"end, of {self.ever} at some time ({rule})."
        )


def summaries(weights: Path) -> Iterator[Importance]:
    """One for each data set, ipc, method and setting of `weights.parquet`, in its order.

    The table is read a part at a time.
    """
    for rows in _settings(weights):
        dataset, ipc, method, tuned = rows[SETTING].iloc[0]
        whole = rows[rows["tensor"] == WHOLE_NETWORK]
        runs = whole.groupby("seed")["collapsed"]
        grouped = rows.groupby(["tensor", "iteration"])
        names = grouped[["name", "parameters"]].first()
        shares = {
            iteration: np.mean([np.array(h) / max(1, sum(h)) for h in part["histogram"]], axis=0)
            for iteration, part in whole.groupby("iteration")
        }
        yield Importance(
            dataset=dataset,
            ipc=int(ipc),
            method=method,
            tuned=bool(tuned),
            mask=bool(rows["mask"].iloc[0]),
            seeds=len(runs),
            collapsed=int(runs.last().sum()),
            ever=int(runs.any().sum()),
            tensors=names.join(grouped[list(TOLD)].mean()),
            histogram=pd.DataFrame.from_dict(shares, orient="index"),
        )


def _settings(weights: Path) -> Iterator[pd.DataFrame]:
    """The rows of each setting, which stand together."""
    held: list[pd.DataFrame] = []
    current: Any = None
    for batch in batches(weights, WEIGHTS, WEIGHTS.names, ROWS):
        for setting, rows in batch.to_pandas().groupby(SETTING, sort=False):
            if held and setting != current:
                yield pd.concat(held)
                held = []
            current = setting
            held.append(rows)
    if held:
        yield pd.concat(held)


def draw(found: Importance) -> Figure:
    """Mean weight a tensor, the histogram of all weights, and how many count, over iterations."""
    layers = found.last.drop(WHOLE_NETWORK)
    figure = Figure(figsize=(10.5, 1.5 + max(2.2, 0.2 * len(layers))), layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    _draw_layers(figure, first, found)
    _draw_histogram(second, found)
    _draw_shares(third, found)
    for axes in (first, second, third):
        axes.set_xlabel("iteration", color=MUTED)
        axes.tick_params(length=0, labelcolor=INK, labelsize=7.5)
        axes.spines[:].set_visible(False)
    return figure


def _draw_layers(figure: Figure, axes: Axes, found: Importance) -> None:
    means = found.tensors["mean"].unstack("iteration").drop(WHOLE_NETWORK)
    values = means.to_numpy(dtype=float)
    known = values[np.isfinite(values) & (values > 0)]
    reach = max(1 + NARROW, *known, *(1 / known)) if known.size else 1 + NARROW
    image = axes.imshow(
        np.maximum(values, 1 / reach),
        cmap=AROUND_ONE,
        norm=LogNorm(1 / reach, reach),
        aspect="auto",
        interpolation="nearest",
    )
    names = found.last["name"].drop(WHOLE_NETWORK)
    labels = [f"{tensor} {name}" for tensor, name in names.items()]
    axes.set_yticks(range(len(labels)), labels)
    _iterations(axes, means.columns)
    axes.set_title("mean weight of each tensor", loc="left", fontsize=9, color=INK)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=25)
    bar.ax.minorticks_off()
    bar.set_ticks([1 / reach, 1, reach], labels=[f"{x:.3g}" for x in (1 / reach, 1, reach)])
    bar.ax.tick_params(length=0, labelsize=7)
    bar.outline.set_visible(False)


def _draw_histogram(axes: Axes, found: Importance) -> None:
    shares = found.histogram.to_numpy(dtype=float).T  # bins by iterations
    axes.imshow(np.sqrt(shares), cmap=SHADES, vmin=0, vmax=1, aspect="auto", origin="lower")
    shown = [EDGES.index(edge) for edge in (0, 0.1, 0.5, 0.9, 1.1, 2.0, 10.0)]
    axes.set_yticks([place - 0.5 for place in shown], [f"{EDGES[place]:g}" for place in shown])
    _iterations(axes, found.histogram.index)
    axes.set_title("share of weights by size", loc="left", fontsize=9, color=INK)


def _draw_shares(axes: Axes, found: Importance) -> None:
    whole = found.tensors.loc[WHOLE_NETWORK]
    axes.plot(whole["effective_share"], color=FIRST, lw=1.8, label="effective share")
    axes.plot(whole["low_share"], color=SECOND, lw=1.8, label="share below 0.1")
    if not found.mask:
        for limit, colour in ((COLLAPSED_EFFECTIVE, FIRST), (COLLAPSED_LOW, SECOND)):
            axes.axhline(limit, color=colour, lw=0.8, ls=":")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(axis="y", color=LINE, lw=0.7)
    title = "how many count" + " (dotted: collapse)" * (not found.mask)
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.legend(facecolor="white", edgecolor="none", framealpha=1, fontsize=7.5, labelcolor=INK)


def _iterations(axes: Axes, iterations: pd.Index[Any]) -> None:
    """Name the first, the middle and the last of the looks, which lie side by side."""
    shown = sorted({0, len(iterations) // 2, len(iterations) - 1})
    axes.set_xticks(shown, [str(iterations[place]) for place in shown])
