"""The weighted parameter distance of IADD, MTT and DDPP, and the step on its weights.

    L = sum_p m_p w_p^2 (s_p - t_p)^2 / sum_p m_p (o_p - t_p)^2

s: the student's end point, o: the teacher's start, t: the teacher's target, w: importance weights,
m: mask. With w = 1 it is MTT's loss (Cazenavette et al., CVPR 2022, arXiv 2203.11932);
with weights IADD's (Li et al., Neural Networks 172, 2024, arXiv 2401.15863, reconstructed); with a
mask DDPP's (Li et al., IEICE E107-A(6), 2024, arXiv 2209.14609, reconstructed).

Each function has a fused kernel (csrc/weighted_distance*: one pass over memory) and beside
it a `_reference` in plain PyTorch (`iadd.ops.reference`), which is the specification and what runs
where the kernel is not built. IADD_KERNELS=reference asks for that.

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
from typing import Unpack

import torch
from torch import Tensor

from iadd.ops.reference import (
    Adjoint,
    Distance,
    Options,
    WeightsRule,
    adjoint_reference,
    distance_reference,
    weighted_distance_reference,
    weights_step_reference,
)

__all__ = [
    "Adjoint",
    "Distance",
    "Options",
    "WeightsRule",
    "distance",
    "distance_reference",
    "kernel_name",
    "status",
    "weighted_distance",
    "weighted_distance_adjoint",
    "weighted_distance_reference",
    "weights_step",
    "weights_step_reference",
]

# --------------------------------------------------------------------------------- The extension


@cache
def _extension() -> dict[str, str]:
    """Load iadd/_C*.so and register its fakes: what it is, or under `reason` why it is not used."""
    mode = os.environ.get("IADD_KERNELS", "fused")
    if mode not in ("fused", "reference"):
        raise ValueError(f"IADD_KERNELS={mode}: allowed are fused, reference")
    if mode == "reference":
        return {"reason": "IADD_KERNELS=reference"}
    found = sorted(Path(__file__).parent.parent.glob("_C*.so"))
    if not found:
        return _without("it is not built (python setup.py build_ext --inplace)")
    try:
        torch.ops.load_library(found[0])
        info = dict(word.split("=") for word in torch.ops.iadd.kernel_info().split())
    except (OSError, AttributeError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        return _without(f"{found[0].name} does not load: {reason}")
    if info["torch"] != torch.__version__.partition("+")[0]:
        return _without(
            f"{found[0].name} was built for torch {info['torch']}, this is {torch.__version__}"
        )
    torch.library.register_fake("iadd::distance_pass")(_fake_pass)
    torch.library.register_fake("iadd::weights_step")(_fake_step)
    return info | {"file": found[0].name}


def _without(reason: str) -> dict[str, str]:
    logging.getLogger("iadd").warning("plain PyTorch instead of the fused kernels: %s", reason)
    return {"reason": reason}


@cache
def _without_cuda() -> None:
    _without("the extension was built without CUDA")


def _fake_pass(student: Tensor, *others: object, **more: object) -> tuple[Tensor, Tensor, Tensor]:
    _fake_step(student, *others, *more.values())
    return student.new_empty(()), student.new_empty(()), student.new_empty(())


def _fake_step(first: Tensor, *others: object) -> None:
    for x in others:
        if isinstance(x, Tensor) and x.device != first.device:
            raise ValueError(f"device: {x.device} beside {first.device}, allowed the same")


def _fused(tensor: Tensor) -> bool:
    """Whether a kernel for the tensor's device is there; the first time it is not, says why."""
    info = _extension()
    if "reason" in info:
        return False
    if tensor.is_cuda and info["cuda"] == "0":
        _without_cuda()
        return False
    return tensor.is_cpu or tensor.is_cuda


def has_cpu_kernels(tensor: Tensor) -> bool:
    """Whether the extension is there for a tensor of float32 or float64 on the CPU."""
    return tensor.is_cpu and tensor.dtype in (torch.float32, torch.float64) and _fused(tensor)


def kernel_name(tensor: Tensor) -> str:
    """Which implementation runs for tensors on its device: cpu-fused, cuda-fused or reference."""
    return f"{tensor.device.type}-fused" if _fused(tensor) else "reference"


def status() -> dict[str, str]:
    """What `iadd doctor` shows: file, torch, devices and instruction set, or why there are none."""
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
        return adjoint_reference(student, start, target, weights, options, by_student, by_weights)
    loss, unweighted, scale = torch.ops.iadd.distance_pass.default(
        student,
        start,
        target,
        weights,
        student_gradient=by_student,
        weights_gradient=by_weights,
        **options,
    )
    return Adjoint(loss, unweighted, scale, by_student, by_weights)


def _buffer(given: Tensor | bool, like: Tensor) -> Tensor | None:
    if given is True:
        return torch.empty_like(like, memory_format=torch.contiguous_format)
    return None if given is False else given


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
