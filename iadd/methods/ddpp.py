from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from iadd.engine.distance import Distance, distance
from iadd.methods._trajectory import Trajectory, TrajectoryParams


class DDPPParams(TrajectoryParams):
    """MTT's settings and the pruned share."""

    pruned: float = Field(
        0.1, ge=0, lt=1, description="Share q of parameters, the hardest to match, left out."
    )


class DDPP(Trajectory):
    """Dataset Distillation Using Parameter Pruning: MTT without the hard-to-match parameters.

    Li, Togo, Ogawa, Haseyama; IEICE Trans. Fundamentals E107-A(6), 2024; arXiv 2209.14609.
    A reconstruction: the paper prunes by a similarity threshold; here the share q with the largest
    residual (s - t)^2 leaves numerator and denominator, anew in every outer iteration.
    """

    Params = DDPPParams
    reconstruction = True
    space = Trajectory.space | {"pruned": ("uniform", 0.0, 0.5)}
    trace_columns: ClassVar = {"kept": "Share of the parameters that the loss compares."}
    kept = 1.0

    def loss(
        self, student: Tensor, start: Tensor, target: Tensor, own: Mapping[str, Tensor]
    ) -> Distance:
        mask = self.mask(student.detach(), target)
        self.kept = float(mask.double().mean())
        return distance(student, start, target, mask.to(student), weighted_denominator=True)

    def mask(self, student: Tensor, target: Tensor) -> Tensor:
        """True (P,) for the parameters that stay: the (1 - q) P with the smallest residual."""
        residual = (student - target).square()
        pruned = int(self.params.pruned * len(residual))
        mask = torch.ones(len(residual), dtype=torch.bool, device=residual.device)
        mask[residual.topk(pruned).indices] = False
        return mask

    def columns(self, variables: Mapping[str, Tensor]) -> dict[str, float]:
        return {"kept": self.kept}
