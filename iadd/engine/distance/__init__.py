"""The weighted parameter distance of IADD, MTT and DDPP, and the step on its weights.

    L = sum_p m_p w_p^2 (s_p - t_p)^2 / sum_p m_p (o_p - t_p)^2

s: the student's end point, o: the teacher's start, t: the teacher's target, w: importance weights,
m: mask. With w = 1 it is MTT's loss (Cazenavette et al., CVPR 2022, arXiv 2203.11932);
with weights IADD's (Li et al., Neural Networks 172, 2024, arXiv 2401.15863, reconstructed); with a
mask DDPP's (Li et al., IEICE E107-A(6), 2024, arXiv 2209.14609, reconstructed).

Each function has a fused kernel (csrc/weighted_distance*: one pass over memory) and beside
it a `_reference` in plain PyTorch (`distance.reference`), which is the specification and what runs
where the kernel is not built. IADD_KERNELS=reference asks for that.

Outcomes. A wrong shape, dtype or device, a start or target that requires a gradient, an empty
vector: ValueError. Not contiguous: copied first. An empty segment: its weight gets gradient 0. A
masked-out position: takes no part, even if it is not a number; its gradients are 0. Zero
denominator (start equals target): division as IEEE 754 has it, so the loss is inf, or nan if the
student is there too. Not a number anywhere else: the loss is nan. Nothing waits for a GPU.
Results have the same bits for any number of threads and, in float32, with weights of 1 and without.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from iadd import extension
from iadd.engine.distance.reference import (
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
    "weighted_distance",
    "weighted_distance_adjoint",
    "weighted_distance_reference",
    "weights_step",
    "weights_step_reference",
]

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
    if not extension.has_kernel(student):
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
    if not extension.has_kernel(student):
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
    if extension.has_kernel(v):
        torch.ops.iadd.weights_step.default(
            v, weights, gradient, exp_avg, exp_avg_sq, scale, step, *rule
        )
    else:
        weights_step_reference(v, weights, gradient, exp_avg, exp_avg_sq, step, rule, scale)
