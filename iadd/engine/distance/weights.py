"""How IADD's importance weights move."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam."""


class WeightsRule(NamedTuple):
    """How the weights w = clamp(v / mean(v), 0, high) move: Adam (arXiv 1412.6980) on v."""

    lr: float = 1e-3
    high: float = 10.0
    maximise: bool = False
    """Whether the loss is ascended."""


@torch.no_grad()
def weights_step(
    v: Tensor,
    weights: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: int,
    rule: WeightsRule = WeightsRule(),  # noqa: B008 (immutable)
) -> None:
    """One step of Adam on v, in place, and w anew from it.

    Args:
        v, weights, exp_avg, exp_avg_sq: (P,), all written; weights as the last step left them
            (v = weights = 1 and averages 0 before the first).
        gradient: (P,), that of the loss by the weights. It goes back through the clamp (none from a
            weight at 0 or at `rule.high`) and the mean: dL/dv = (h - mean(h w)) / mean(v), h that
            of the weights inside.
        step: 1 at first.
        rule: how the weights move.
    """
    inside = (weights > 0) & (weights < rule.high)
    h = torch.where(inside, gradient, 0.0)
    h.sub_(torch.dot(h, weights) / len(h)).div_(v.mean())
    exp_avg.mul_(BETA1).add_(h, alpha=1 - BETA1)
    exp_avg_sq.mul_(BETA2).addcmul_(h, h, value=1 - BETA2)
    size = (-rule.lr if rule.maximise else rule.lr) / (1 - BETA1**step)
    deviation = exp_avg_sq.sqrt().div_((1 - BETA2**step) ** 0.5).add_(EPSILON)
    v.addcdiv_(exp_avg, deviation, value=-size)
    torch.div(v, v.mean(), out=weights).clamp_(0.0, rule.high)
