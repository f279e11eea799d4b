from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from iadd.methods._trajectory import Trajectory, TrajectoryParams


class ATTParams(TrajectoryParams):
    """MTT's settings, of which `unrolled_steps` is the largest number; averaged images."""

    ema: float | None = Field(
        0.9999, ge=0, lt=1, description="Decay of the images' moving average; none: no average."
    )


class ATT(Trajectory):
    """Dataset Distillation by Automatic Training Trajectories: MTT at the student's nearest step.

    Liu, Gu, Cao, Trinitis, Schulz; ECCV 2024; arXiv 2407.14245. The student takes N steps; the loss
    compares it as it was after j* = argmin_j ||theta_j - target||_1, j = 1..N, the later one of
    equals. The choice has no gradient. An exponential moving average of the images is validated.
    """

    Params = ATTParams
    space = Trajectory.space | {"unrolled_steps": ("int", 5, 80)}
    trace_columns: ClassVar = {"nearest_step": "The student's step j* that the loss compares."}
    step, least = 0, 0.0

    def compares(self, step: int, student: Tensor, target: Tensor) -> bool:
        apart = float((student - target).abs().sum())
        nearest = step == 1 or apart <= self.least
        if nearest:
            self.step, self.least = step, apart
        return nearest

    def columns(self, variables: Mapping[str, Tensor]) -> dict[str, float]:
        return {"nearest_step": self.step}
