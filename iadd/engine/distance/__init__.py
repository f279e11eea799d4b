"""The weighted parameter distance of IADD, MTT and DDPP, and the step on its weights.

    L = sum_p w_p^2 (s_p - t_p)^2 / sum_p (o_p - t_p)^2

s: the student's end point, o: the expert's start, t: the expert's target, w: importance weights.
With w = 1 it is MTT's loss (Cazenavette et al., CVPR 2022, arXiv 2203.11932); with weights IADD's
(Li et al., Neural Networks 172, 2024, arXiv 2401.15863, reconstructed); with weights of 0 and 1 in
the denominator too, DDPP's (Li et al., IEICE E107-A(6), 2024, arXiv 2209.14609, reconstructed).

The distance has a fused kernel (csrc/distance*: one pass over memory) and beside it a `_reference`
in plain PyTorch (`distance.reference`), which is the specification and what runs where the kernel
is not built. IADD_KERNELS=reference asks for that.

Outcomes. A wrong shape, dtype or device, a start or target that requires a gradient, an empty
vector: ValueError. Not contiguous: copied first. Zero denominator (start equals target): division
as IEEE 754 has it, so the loss is inf, or nan if the student is there too. Not a number anywhere:
the loss is nan. Nothing waits for a GPU. Results have the same bits for any number of threads and,
in float32, with weights of 1 and without.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iadd import extension
from iadd.engine.distance.reference import Distance, distance_reference
from iadd.engine.distance.weights import WeightsRule, weights_step

__all__ = [
    "Distance",
    "WeightsRule",
    "distance",
    "distance_reference",
    "weights_step",
]


def distance(
    student: Tensor,
    start: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    *,
    weighted_denominator: bool = False,
) -> Distance:
    """The weighted distance () and, from the same pass, the unweighted one, without a gradient.

    Args:
        student: (P,) float32 or float64; differentiable once.
        start, target: (P,) of the same dtype, constants.
        weights: (P,) of the same dtype, differentiable once; none: all 1.
        weighted_denominator: whether the weights enter the denominator too.
    """
    if not extension.has_kernels(student.device):
        return distance_reference(
            student, start, target, weights, weighted_denominator=weighted_denominator
        )
    found = torch.ops.iadd.distance.default(student, start, target, weights, weighted_denominator)
    return Distance(*found)
