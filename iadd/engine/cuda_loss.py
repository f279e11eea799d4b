"""The softmax cross-entropy of a batch: loss and gradient by logits, and both in dual numbers.

On CUDA one kernel (csrc/cuda_loss.cu) for what would be a dozen small ones; the plain reference
runs anywhere and is the specification. Logits come as sums that are yet to be added up, (S, B, K),
and their bias (K,), as the head's product leaves them (`cuda_products.long_products`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iadd.engine import cuda_block


class Dual(NamedTuple):
    """What a direction of the logits changes, each a batch's mean over `count` images."""

    slopes: Tensor  # (B,): the loss, along the direction
    by_logits: Tensor  # (2, B, K): the gradient's tangent, and the gradient
    by_targets: Tensor  # (B, K): the tangent of the gradient by the targets


def cross_entropy(sums: Tensor, bias: Tensor, targets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Each image's loss (B,) and gradient by its logits (B, K), of a mean over `count` images."""
    if cuda_block.fused(sums.device):
        losses, by_logits = torch.ops.iadd.cross_entropy(sums, bias, targets, 1 / count)
        return losses, by_logits
    return cross_entropy_reference(sums, bias, targets, count)


def cross_entropy_dual(
    sums: Tensor, moving: Tensor, bias: Tensor, bias_dot: Tensor, targets: Tensor, count: int
) -> Dual:
    """The same along a direction: `sums` (S, 2, B, K) of values and tangents, `moving` (S, B, K).

    `moving` are sums that belong to the tangents too, as does `bias_dot` (K,).
    """
    if cuda_block.fused(sums.device):
        given = (sums, moving, bias, bias_dot, targets)
        return Dual(*torch.ops.iadd.cross_entropy_dual(*given, 1 / count))
    return cross_entropy_dual_reference(sums, moving, bias, bias_dot, targets, count)


def cross_entropy_reference(
    sums: Tensor, bias: Tensor, targets: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """`cross_entropy` in plain operators, for any dtype and device."""
    log_p, mass = (sums.sum(0) + bias).log_softmax(1), targets.sum(1, keepdim=True)
    return -(targets * log_p).sum(1) / count, (log_p.exp() * mass - targets) / count


def cross_entropy_dual_reference(
    sums: Tensor, moving: Tensor, bias: Tensor, bias_dot: Tensor, targets: Tensor, count: int
) -> Dual:
    """`cross_entropy_dual` in plain operators."""
    logits, along = sums.sum(0)
    along = along + moving.sum(0) + bias_dot
    p, mass = (logits + bias).softmax(1), targets.sum(1, keepdim=True)
    centred = along - (p * along).sum(1, keepdim=True)
    by_logits, by_logits_dot = (p * mass - targets) / count, p * centred * mass / count
    slopes = (by_logits * along).sum(1)
    return Dual(slopes, torch.stack((by_logits_dot, by_logits)), centred / -count)
