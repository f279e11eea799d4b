"""What a trajectory method found important: statistics of its weights, one row a parameter tensor.

Everything is computed in float64 by numpy, whose sums do not depend on the number of threads, so
that a run which was killed and resumed tells the same. All statistics are of |w|: the losses have
the weights' squares.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from iadd.networks import Network

LOOKS = 20
"""Weights are described at the first and the last look and about so many evenly spaced ones."""
LOW = 0.1
"""A parameter with a smaller weight hardly counts."""
EDGES = (
    *(0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    *(1.01, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0),
)
"""Lower ends of the histogram's bins; the last is open. Finest around 1, the start."""
TOLD = (
    *("mean", "std", "low_share", "effective_share"),
    *("residual_correlation", "movement_correlation"),
)
RANKED = 100_000
"""Parameters that a correlation rests on; of a larger tensor, evenly spaced ones."""


def is_due(iteration: int, updates: int) -> bool:
    """Whether the weights are described at this look of a run of so many updates."""
    return iteration % -(-updates // LOOKS) == 0 or iteration == updates


def describe(
    weights: Tensor, residual: Tensor, movement: Tensor, network: Network
) -> list[dict[str, Any]]:
    """A row for the whole network (tensor 0), then one for each parameter tensor (1, 2, ...).

    Args:
        weights: of each parameter, (P,); a mask if bool.
        residual: (student - target)^2, (P,).
        movement: how far the expert moved, |start - target|, (P,).

    Where a weight is not finite, all of `TOLD` is None; so is a correlation of a constant side.
    """
    w, r, m = (x.detach().double().cpu().numpy() for x in (weights, residual, movement))
    w = np.abs(w)
    ends = np.cumsum([0, *network.sizes])
    tensors = [("all", slice(0, int(ends[-1])))]
    for (name, _), low, high in zip(network.shapes, ends, ends[1:], strict=False):
        tensors.append((name, slice(int(low), int(high))))
    return [
        {
            "tensor": number,
            "name": name,
            "parameters": part.stop - part.start,
            "mask": not weights.is_floating_point(),
            **statistics(w[part], r[part], m[part]),
        }
        for number, (name, part) in enumerate(tensors)
    ]


def statistics(w: np.ndarray, residual: np.ndarray, movement: np.ndarray) -> dict[str, Any]:
    """What is told of the weights (n,) >= 0 of one tensor; all arrays are float64."""
    finite = np.isfinite(w)
    bins = np.searchsorted(EDGES, w[finite], side="right") - 1
    histogram = np.bincount(bins, minlength=len(EDGES)).tolist()
    found: dict[str, Any] = dict.fromkeys(TOLD)
    if finite.all():
        total, squares = float(w.sum()), float(np.square(w).sum())
        found = {
            "mean": float(w.mean()),
            "std": float(w.std()),
            "low_share": float((w < LOW).mean()),
            "effective_share": total**2 / squares / len(w) if squares else 0.0,
            "residual_correlation": rank_correlation(w, residual),
            "movement_correlation": rank_correlation(w, movement),
        }
    return found | {"histogram": histogram}


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's: Pearson's correlation of the ranks, equal values having their mean rank.

    Squared residuals are so unequal that a few of them would decide a correlation of the values.
    None where one side is constant or not finite.
    """
    step = -(-len(a) // RANKED)
    a, b = a[::step], b[::step]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(np.square(x).sum()) * float(np.square(y).sum()))
    return float((x * y).sum()) / size if size else None


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
