"""What ddpp and pad share: MTT's loss over some of the parameters, chosen by their residuals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from iadd.engine.distance import Distance, distance
from iadd.methods._trajectory import Trajectory


class Pruning(Trajectory):
    """Leaves a share of the parameters out of numerator and denominator, anew an iteration."""

    trace_columns: ClassVar = {"kept": "Share of the parameters that the loss compares."}
    kept = 1.0

    @abstractmethod
    def left_out(self, residual: Tensor, count: int) -> Tensor:
        """Indices of the `count` parameters to leave out, by their (student - target)^2 (P,)."""

    def loss(
        self, student: Tensor, start: Tensor, target: Tensor, own: Mapping[str, Tensor]
    ) -> Distance:
        mask = self.mask(student.detach(), target)
        self.kept = float(mask.double().mean())
        return distance(student, start, target, mask.to(student), weighted_denominator=True)

    def mask(self, student: Tensor, target: Tensor) -> Tensor:
        """True (P,) for the parameters that stay: all but the whole part of q P."""
        residual = (student - target).square()
        mask = torch.ones(len(residual), dtype=torch.bool, device=residual.device)
        mask[self.left_out(residual, int(self.params.pruned * len(residual)))] = False
        return mask

    def columns(self, variables: Mapping[str, Tensor]) -> dict[str, float]:
        return {"kept": self.kept}
