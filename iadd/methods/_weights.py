"""Importance weights: the distance with a weight a segment, and what the trace tells of them."""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHT_COLUMNS = {
    "weight_mean": "Mean of the importance weights.",
    "weight_std": "Their standard deviation.",
    "weight_min": "The smallest.",
    "weight_max": "The largest.",
    "weight_effective": "Effective share of weights, (sum w)^2 / sum w^2 / n.",
}


def weight_columns(weights: Tensor) -> dict[str, float]:
    """Values of `WEIGHT_COLUMNS` for weights (n,)."""
    w = weights.double()
    return {
        "weight_mean": float(w.mean()),
        "weight_std": float(w.std(correction=0)),
        "weight_min": float(w.min()),
        "weight_max": float(w.max()),
        "weight_effective": float(w.sum() ** 2 / w.square().sum() / len(w)),
    }


def relative_distance(
    student: Tensor, start: Tensor, target: Tensor, weights: Tensor, offsets: Tensor, weighted: bool
) -> Tensor:
    """`sum_g w_g^2 r_g / G` (or `/ sum_g w_g^2`), r_g the segment's mismatch over its movement."""
    lengths = offsets.diff()
    segment = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    zeros = student.new_zeros(len(lengths))
    mismatch = zeros.index_add(0, segment, (student - target).square())
    movement = zeros.index_add(0, segment, (start - target).square())
    squares = weights.square()
    total = squares.sum() if weighted else float(len(lengths))
    return (squares * mismatch / (movement + 1e-12)).sum() / total
