from __future__ import annotations

import math

import torch
from pydantic import Field

from iadd.methods._base import Rate
from iadd.methods._trajectory import Trajectory, TrajectoryParams


class MCTParams(TrajectoryParams):
    """MTT's settings; start epochs are real numbers."""

    lr_img: Rate = Field(1000.0, gt=0, description="Learning rate of the pixels (SGD).")
    unrolled_steps: int = Field(60, ge=1, description="J, student steps on the synthetic set.")
    expert_epochs: int = Field(6, ge=1, description="K, epochs from the start to the target.")
    max_start: int = Field(
        4, ge=1, description="Start epochs are drawn, as real numbers, from min_start to this."
    )

    @property
    def reach(self) -> int:
        return math.ceil(self.max_start + self.expert_epochs)


class MCT(Trajectory):
    """Matching convexified trajectories: MTT on experts that are straight lines between way-points.

    Zhong et al.: Towards Stable and Storage-efficient Dataset Distillation: Matching Convexified
    Trajectory; arXiv 2406.19827. The experts of the recipe `waypoints` are a few snapshots and the
    lengths of their paths, so start and target may lie at any real epoch.
    """

    Params = MCTParams
    experts = "waypoints"

    def draw_epoch(self, low: int, bound: int, generator: torch.Generator) -> float:
        return low + (bound - low) * float(torch.rand((), generator=generator))
