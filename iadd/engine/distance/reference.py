"""The weighted parameter distance in plain PyTorch: the specification of the fused kernels.

What each function does on odd input is in the package; the checks here raise where csrc/ does.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

_EXPERT_DTYPES = {
    torch.float32: (torch.float32, torch.bfloat16, torch.float16),
    torch.float64: (torch.float64,),
}


class Distance(NamedTuple):
    """The distance and, from the same pass, the one with every weight 1 (what MTT would log)."""

    weighted: Tensor
    unweighted: Tensor


class Adjoint(NamedTuple):
    """The distance and its unscaled gradients: d L / d student is `scale * student`, and so on.

    The factor 2 / denominator is known only once everything was read. It is a scalar: fold it into
    what follows (an adjoint recursion is linear) and no second pass over memory is needed.
    """

    weighted: Tensor
    unweighted: Tensor
    scale: Tensor
    student: Tensor | None
    weights: Tensor | None


class Options(TypedDict, total=False):
    """Keywords of every form of the distance."""

    offsets: Tensor | None  # (S + 1,) int64: weight g is that of elements offsets[g]:offsets[g + 1]
    mask: Tensor | None  # (P,) bool: True takes part
    squared: bool  # w^2, the default: the weights multiply parameters; False: w
    weighted_denominator: bool  # the weights enter the denominator too; default False


class WeightsRule(NamedTuple):
    """How the weights w = clamp(v / mean(v), low, high) move: Adam (arXiv 1412.6980) on v."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    low: float = 0.0
    high: float = 10.0
    normalise: bool = True  # False: w = clamp(v, low, high)
    maximise: bool = False  # ascent


def distance_reference(
    student: Tensor,
    start: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    *,
    offsets: Tensor | None = None,
    mask: Tensor | None = None,
    squared: bool = True,
    weighted_denominator: bool = False,
) -> Distance:
    """`distance` in plain PyTorch: the specification."""
    _check(student, start, target, weights, offsets, mask)

    def kept(x: Tensor) -> Tensor:
        return x if mask is None else torch.where(mask, x, 0.0)

    target = target.to(student.dtype)
    residual = kept(student - target).square()  # (P,)
    movement = kept(start.to(student.dtype) - target).square()  # (P,)
    unweighted = residual.sum() / movement.sum()
    if weights is None:
        return Distance(unweighted, unweighted.detach())
    if offsets is not None:
        weights = weights.repeat_interleave(offsets.diff(), output_size=len(student))  # (P,)
    power = kept(weights).square() if squared else kept(weights)
    denominator = (power * movement if weighted_denominator else movement).sum()
    return Distance((power * residual).sum() / denominator, unweighted.detach())


def weighted_distance_reference(
    student: Tensor,
    start: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """`weighted_distance` in plain PyTorch: the specification."""
    return distance_reference(student, start, target, weights, **options).weighted


def adjoint_reference(
    student: Tensor,
    start: Tensor,
    target: Tensor,
    weights: Tensor | None,
    options: Options,
    by_student: Tensor | None,
    by_weights: Tensor | None,
) -> Adjoint:
    student, start, target = student.detach(), start.detach(), target.detach()
    weights = None if weights is None else weights.detach()
    pairs = [(x, b) for x, b in ((student, by_student), (weights, by_weights)) if b is not None]
    leaves = [x.requires_grad_() for x, _ in pairs if x is not None]
    with torch.enable_grad():
        result = distance_reference(student, start, target, weights, **options)
    gradients = torch.autograd.grad(result.weighted, leaves) if leaves else ()
    for (_, buffer), gradient in zip(pairs, gradients, strict=True):
        _check_like("gradient buffer", buffer, gradient, written=True)
        buffer.copy_(gradient)
    loss = result.weighted.detach()
    return Adjoint(loss, result.unweighted, torch.ones_like(loss), by_student, by_weights)


@torch.no_grad()
def weights_step_reference(
    v: Tensor,
    weights: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: int,
    rule: WeightsRule = WeightsRule(),  # noqa: B008
    scale: Tensor | None = None,
) -> None:
    """`weights_step` in plain PyTorch: the specification."""
    _check_flat("v", v)
    _check_like("gradient", gradient, v)
    written = {"v": v, "weights": weights, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    for name, x in written.items():
        _check_like(name, x, v, written=True)
    if step < 1:
        raise ValueError(f"step: {step}, allowed 1 or more")
    if not rule.low < rule.high:
        raise ValueError(f"low: {rule.low}, allowed below high, {rule.high}")
    inside = (weights > rule.low) & (weights < rule.high)
    h = torch.where(inside, gradient if scale is None else gradient * scale, 0.0)
    if rule.normalise:
        h = (h - _mean(h * weights)) / _mean(v)
    exp_avg.mul_(rule.beta1).add_(h, alpha=1 - rule.beta1)
    exp_avg_sq.mul_(rule.beta2).addcmul_(h, h, value=1 - rule.beta2)
    size = rule.lr / (1 - rule.beta1**step) * (-1 if rule.maximise else 1)
    v -= size * exp_avg / (exp_avg_sq.sqrt() / (1 - rule.beta2**step) ** 0.5 + rule.eps)
    weights.copy_((v / _mean(v) if rule.normalise else v).clamp(rule.low, rule.high))


def _mean(x: Tensor) -> Tensor:
    return x.mean(dtype=torch.float64).to(x.dtype)


def _check_flat(name: str, x: Tensor) -> None:
    if x.dim() != 1 or x.numel() == 0:
        raise ValueError(f"{name}: shape {list(x.shape)}, allowed a flat (P,) with P >= 1")
    if x.dtype not in _EXPERT_DTYPES:
        raise ValueError(f"{name}: dtype {x.dtype}, allowed float32 or float64")


def _check_like(
    name: str,
    x: Tensor,
    like: Tensor,
    size: int | None = None,
    dtype: torch.dtype | None = None,
    written: bool = False,
) -> None:
    for key, value, allowed in (
        ("shape", list(x.shape), list(like.shape) if size is None else [size]),
        ("dtype", x.dtype, dtype or like.dtype),
        ("device", x.device, like.device),
    ):
        if value != allowed:
            raise ValueError(f"{name}: {key} {value}, allowed {allowed}")
    if written and not x.is_contiguous():
        raise ValueError(f"{name}: strides {x.stride()}, allowed contiguous: it is written")


def _check(
    student: Tensor,
    start: Tensor,
    target: Tensor,
    weights: Tensor | None,
    offsets: Tensor | None,
    mask: Tensor | None,
) -> None:
    _check_flat("student", student)
    if start.dtype not in _EXPERT_DTYPES[student.dtype]:
        allowed = ", ".join(map(str, _EXPERT_DTYPES[student.dtype]))
        raise ValueError(f"start: dtype {start.dtype}, allowed {allowed}")
    for name, x in (("start", start), ("target", target)):
        _check_like(name, x, student, dtype=start.dtype)
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name}: requires a gradient, allowed a constant only: detach it")
    if offsets is not None:
        if weights is None:
            raise ValueError("offsets: given without weights, allowed with them only")
        if offsets.dim() != 1 or len(offsets) < 2:
            raise ValueError(f"offsets: shape {list(offsets.shape)}, allowed (S + 1,) with S >= 1")
        _check_like("offsets", offsets, student, len(offsets), torch.int64)
        falls = bool((offsets.diff() < 0).any())
        if falls or int(offsets[0]) != 0 or int(offsets[-1]) != len(student):
            raise ValueError(f"offsets: allowed from 0 to {len(student)}, never falling")
    if weights is not None:
        _check_like("weights", weights, student, None if offsets is None else len(offsets) - 1)
    if mask is not None:
        _check_like("mask", mask, student, dtype=torch.bool)
