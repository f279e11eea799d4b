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
    kept: Tensor | None = None
    """The mask of the last loss, (P,)."""

    @abstractmethod
    def left_out(self, residual: Tensor, count: int) -> Tensor:
        """Indices of the `count` parameters to leave out, by their (student - target)^2 (P,)."""

    def loss(
        self, student: Tensor, start: Tensor, target: Tensor, own: Mapping[str, Tensor]
    ) -> Distance:
        self.kept = self.mask(student.detach(), target)
        weights = self.kept.to(student)
        return distance(student, start, target, weights, weighted_denominator=True)

    def mask(self, student: Tensor, target: Tensor) -> Tensor:
        """True (P,) for the parameters that stay: all but the whole part of q P."""
        residual = (student - target).square()
        mask = torch.ones(len(residual), dtype=torch.bool, device=residual.device)
        mask[self.left_out(residual, int(self.params.pruned * len(residual)))] = False
        return mask

    def importance(self, variables: Mapping[str, Tensor]) -> Tensor | None:
        return self.kept

    def columns(self, variables: Mapping[str, Tensor]) -> dict[str, float]:
        return {} if self.kept is None else {"kept": float(self.kept.double().mean())}
