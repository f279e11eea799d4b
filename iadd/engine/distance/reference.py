"""The weighted parameter distance in plain PyTorch: the specification of the fused kernels.

What each function does on odd input is in the package; the checks here raise where csrc/ does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam."""


class Distance(NamedTuple):
    """The distance () and the one with every weight 1 (), which is MTT's loss."""

    weighted: Tensor
    unweighted: Tensor


class Adjoint(NamedTuple):
    """The distance (), unweighted too, and the factor () that its gradient still lacks.

    That is 2 / denominator, known only once everything was read. An adjoint recursion is linear:
    fold it into what follows, and no second pass over memory is needed.
    """

    weighted: Tensor
    unweighted: Tensor
    scale: Tensor


class WeightsRule(NamedTuple):
    """How the weights w = clamp(v / mean(v), 0, high) move: Adam (arXiv 1412.6980) on v."""

    lr: float = 1e-3
    high: float = 10.0
    maximise: bool = False
    """Whether the loss is ascended."""


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


@torch.no_grad()
def distance_adjoint_reference(
    student: Tensor, start: Tensor, target: Tensor, weights: Tensor | None, gradient: Tensor
) -> Adjoint:
    """`distance_adjoint` in plain PyTorch: the specification."""
    found = distance_reference(student, start, target, weights)
    _check_written("gradient", gradient, student)
    gradient.copy_(student - target)
    if weights is not None:
        gradient.mul_(weights.square())
    return Adjoint(*found, 2 / (start - target).square().sum())


@torch.no_grad()
def weights_step_reference(
    v: Tensor,
    weights: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: int,
    lr: float,
    high: float,
    maximise: bool,
) -> None:
    """`weights_step` in plain PyTorch: the specification."""
    _check_flat("v", v)
    _check_like("gradient", gradient, v)
    written = {"v": v, "weights": weights, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    for name, x in written.items():
        _check_written(name, x, v)
    if step < 1:
        raise ValueError(f"step: {step}, allowed 1 or more")
    if high <= 0:
        raise ValueError(f"high: {high}, allowed above 0")
    h = torch.where((weights > 0) & (weights < high), gradient, 0.0)
    h = (h - _mean(h * weights)) / _mean(v)
    exp_avg.mul_(BETA1).add_(h, alpha=1 - BETA1)
    exp_avg_sq.mul_(BETA2).addcmul_(h, h, value=1 - BETA2)
    size = (-lr if maximise else lr) / (1 - BETA1**step)
    v -= size * exp_avg / (exp_avg_sq.sqrt() / (1 - BETA2**step) ** 0.5 + EPSILON)
    weights.copy_((v / _mean(v)).clamp(0.0, high))


def _mean(x: Tensor) -> Tensor:
    return x.mean(dtype=torch.float64).to(x.dtype)


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


def _check_written(name: str, x: Tensor, like: Tensor) -> None:
    _check_like(name, x, like)
    if not x.is_contiguous():
        raise ValueError(f"{name}: strides {x.stride()}, allowed contiguous")
