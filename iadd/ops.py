"""The weighted parameter distance of IADD, MTT and DDPP, and the step on its weights.

    L = sum_p m_p w_p^2 (s_p - t_p)^2 / sum_p m_p (o_p - t_p)^2

s: the student's end point, o: the teacher's start, t: the teacher's target, w: importance weights,
m: mask. With w = 1 it is MTT's loss (Cazenavette et al., CVPR 2022, arXiv 2203.11932, equation 2);
with weights IADD's (Li et al., Neural Networks 172, 2024, arXiv 2401.15863, reconstructed); with a
mask DDPP's (Li et al., IEICE E107-A(6), 2024, arXiv 2209.14609, reconstructed).

Each function here has a fused kernel (csrc/weighted_distance.cpp, .cu: one pass over memory) and,
beside it, a `_reference` in plain PyTorch, which is the specification and the fallback.
IADD_KERNELS=reference forces the references.

Outcomes. A wrong shape, dtype or device, a start or target that requires a gradient, an empty
vector: ValueError. Not contiguous: copied first. An empty segment: its weight gets gradient 0. A
masked-out position: takes no part, even if it is not a number; its gradients are 0. Zero
denominator (start equals target): division as IEEE 754 has it, so the loss is inf, or nan if the
student is there too. Not a number anywhere else: the loss is nan. Nothing waits for a GPU.
Results have the same bits for any number of threads and, in float32, with weights of 1 and without.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
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


# --------------------------------------------------------------------------------- The extension


@cache
def _extension() -> dict[str, str]:
    """Load iadd/_C*.so and register its fakes: what it is, or under `reason` why it is not used."""
    mode = os.environ.get("IADD_KERNELS", "fused")
    if mode not in ("fused", "reference"):
        raise ValueError(f"IADD_KERNELS={mode}: allowed are fused, reference")
    if mode == "reference":
        return {"reason": "IADD_KERNELS=reference"}
    found = sorted(Path(__file__).parent.glob("_C*.so"))
    if not found:
        return _without("it is not built (python setup.py build_ext --inplace)")
    try:
        torch.ops.load_library(found[0])
        info = dict(word.split("=") for word in torch.ops.iadd.kernel_info().split())
    except (OSError, AttributeError) as error:
        return _without(f"{found[0].name} does not load: {str(error).splitlines()[0]}")
    if info["torch"] != torch.__version__.partition("+")[0]:
        return _without(
            f"{found[0].name} was built for torch {info['torch']}, this is {torch.__version__}"
        )
    torch.library.register_fake("iadd::distance_pass")(_fake_pass)
    torch.library.register_fake("iadd::weights_step")(lambda *args: None)
    return info | {"file": found[0].name}


def _without(reason: str) -> dict[str, str]:
    logging.getLogger("iadd").warning("plain PyTorch instead of the fused kernels: %s", reason)
    return {"reason": reason}


@cache
def _without_cuda() -> None:
    _without("the extension was built without CUDA")


def _fake_pass(student: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return student.new_empty(()), student.new_empty(()), student.new_empty(())


def _fused(tensor: Tensor) -> bool:
    """Whether a kernel for the tensor's device is there; the first time it is not, says why."""
    info = _extension()
    if "reason" in info:
        return False
    if tensor.is_cuda and info["cuda"] == "0":
        _without_cuda()
        return False
    return tensor.is_cpu or tensor.is_cuda


def kernel_name(tensor: Tensor) -> str:
    """Which implementation runs for tensors on its device: cpu-fused, cuda-fused or reference."""
    return f"{tensor.device.type}-fused" if _fused(tensor) else "reference"


def status() -> dict[str, str]:
    """What `iadd doctor` shows: the extension's file, torch, devices, instruction set, or why not."""
    info = _extension()
    if "reason" in info:
        return {"kernels": f"reference: {info['reason']}"}
    devices = "cpu and cuda" if info["cuda"] == "1" else "cpu, built without cuda"
    return {
        "kernels": f"fused for {devices}",
        "extension": f"{info['file']}, torch {info['torch']}",
        "cpu kernels": info["cpu"],
    }


# ---------------------------------------------------------------------------------- The distance


class Options(TypedDict, total=False):
    """Keywords of every form of the distance."""

    offsets: Tensor | None  # (S + 1,) int64: weight g is that of elements offsets[g]:offsets[g + 1]
    mask: Tensor | None  # (P,) bool: True takes part
    squared: bool  # w^2, the default: the weights multiply parameters; False: w
    weighted_denominator: bool  # the weights enter the denominator too; default False


def weighted_distance(
    student: Tensor,
    start: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """The weighted parameter distance, a scalar with gradients to student and weights.

    student: (P,) float32 or float64; start, target: (P,) of the same dtype, or both bfloat16 or
    both float16 beside float32; weights: (P,) like student, or (S,) with offsets; see `Options`.
    Gradients of gradients are supported, to any order, by plain operators. ValueErrors, zero
    denominators and the like: see the module. Values of offsets are checked on the CPU only.
    """
    return distance(student, start, target, weights, **options).weighted


def distance(
    student: Tensor,
    start: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    **options: Unpack[Options],
) -> Distance:
    """`weighted_distance` and, from the same pass, the unweighted one, which has no gradient."""
    if not _fused(student):
        return distance_reference(student, start, target, weights, **options)
    return Distance(*torch.ops.iadd.distance.default(student, start, target, weights, **options))


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


def weighted_distance_adjoint(
    student: Tensor,
    start: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    *,
    student_gradient: Tensor | bool = True,
    weights_gradient: Tensor | bool = False,
    **options: Unpack[Options],
) -> Adjoint:
    """The distance and its unscaled gradients in one pass, without autograd: for the engine.

    Arguments as in `weighted_distance`. student_gradient, weights_gradient: whether to compute
    them, or a contiguous buffer like student or weights to write them into: then nothing of size P
    is allocated. Without the kernels they come scaled, with a scale of 1.
    """
    if weights is None and weights_gradient is not False:
        raise ValueError("weights_gradient: asked for without weights, allowed with them only")
    by_student = _buffer(student_gradient, student)
    by_weights = None if weights is None else _buffer(weights_gradient, weights)
    if not _fused(student):
        return _adjoint_reference(student, start, target, weights, options, by_student, by_weights)
    sums = torch.ops.iadd.distance_pass.default(
        student,
        start,
        target,
        weights,
        student_gradient=by_student,
        weights_gradient=by_weights,
        **options,
    )
    return Adjoint(*sums, by_student, by_weights)


def _buffer(given: Tensor | bool, like: Tensor) -> Tensor | None:
    if given is True:
        return torch.empty_like(like, memory_format=torch.contiguous_format)
    return None if given is False else given


def _adjoint_reference(
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
        _check_like("gradient buffer", buffer, gradient)
        buffer.copy_(gradient)
    loss = result.weighted.detach()
    return Adjoint(loss, result.unweighted, torch.ones_like(loss), by_student, by_weights)


# ------------------------------------------------------------------------- The step on the weights


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


def weights_step(
    v: Tensor,
    weights: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: int,
    rule: WeightsRule = WeightsRule(),  # noqa: B008 (immutable)
    scale: Tensor | None = None,
) -> None:
    """One step on v, in place, and w anew from it; nothing of it is recorded by autograd.

    v, weights, exp_avg, exp_avg_sq: (N,) float32 or float64, contiguous, all written; weights as
    the last step left them (v = weights = 1 and averages 0 before the first). gradient: (N,), that
    of the loss by w, times scale () if given, as `weighted_distance_adjoint` has them. step: 1 at
    first. The gradient goes back through clamp (none from a weight at low or high) and mean:
    d L / d v = (h - mean(h w)) / mean(v), h that of the weights inside. Three sweeps, one for each
    mean that the next cannot do without; one where nothing is normalised.
    """
    if _fused(v):
        torch.ops.iadd.weights_step.default(
            v, weights, gradient, exp_avg, exp_avg_sq, scale, step, *rule
        )
    else:
        weights_step_reference(v, weights, gradient, exp_avg, exp_avg_sq, step, rule, scale)


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
    others = {"weights": weights, "gradient": gradient}
    others |= {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    for name, x in others.items():
        _check_like(name, x, v)
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


# ----------------------------------------------------------------- Checks, for the references alone


def _check_flat(name: str, x: Tensor) -> None:
    if x.dim() != 1 or x.numel() == 0:
        raise ValueError(f"{name}: shape {list(x.shape)}, allowed a flat (P,) with P >= 1")
    if x.dtype not in _EXPERT_DTYPES:
        raise ValueError(f"{name}: dtype {x.dtype}, allowed float32 or float64")


def _check_like(
    name: str, x: Tensor, like: Tensor, size: int | None = None, dtype: torch.dtype | None = None
) -> None:
    for key, value, allowed in (
        ("shape", x.shape, like.shape if size is None else (size,)),
        ("dtype", x.dtype, dtype or like.dtype),
        ("device", x.device, like.device),
    ):
        if value != allowed:
            raise ValueError(f"{name}: {key} {value}, allowed {allowed}")


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
