"""The weighted parameter distance in plain PyTorch: the specification of the fused kernels.

What each function does on odd input is in the package; the checks here raise where csrc/ does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Distance(NamedTuple):
    """The distance () and the one with every weight 1 (), which is MTT's loss."""

    weighted: Tensor
    unweighted: Tensor


def distance_reference(
    student: Tensor,
    start: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    *,
    weighted_denominator: bool = False,
) -> Distance:
    """`distance` in plain PyTorch: the specification."""
    _check_flat("student", student)
    for name, x in (("start", start), ("target", target)):
        _check_like(name, x, student)
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name}: requires a gradient, allowed a constant only: detach it")
    if weights is not None:
        _check_like("weights", weights, student)
    residual = (student - target).square()  # (P,)
    movement = (start - target).square()  # (P,)
    unweighted = residual.sum() / movement.sum()
    if weights is None:
        return Distance(unweighted, unweighted.detach())
    power = weights.square()
    denominator = (power * movement if weighted_denominator else movement).sum()
    return Distance((power * residual).sum() / denominator, unweighted.detach())


def _check_flat(name: str, x: Tensor) -> None:
    if x.dim() != 1 or x.numel() == 0:
        raise ValueError(f"{name}: shape {list(x.shape)}, allowed a flat (P,) with P >= 1")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name}: dtype {x.dtype}, allowed float32 or float64")


def _check_like(name: str, x: Tensor, like: Tensor) -> None:
    for key, value, allowed in (
        ("shape", list(x.shape), list(like.shape)),
        ("dtype", x.dtype, like.dtype),
        ("device", x.device, like.device),
    ):
        if value != allowed:
            raise ValueError(f"{name}: {key} {value}, allowed {allowed}")
