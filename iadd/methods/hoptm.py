from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from iadd.methods._base import Gradients, Problem, Rate
from iadd.methods._trajectory import Trajectory, TrajectoryParams
from iadd.methods._variables import Variable


class HoPTMParams(TrajectoryParams):
    """MTT's settings, how the compared parameters grow in number, and the weight of the shape."""

    base: Rate = Field(1e-10, gt=0, description="Squared residual b below which one is compared.")
    growth: float = Field(1.3, ge=1, le=100, description="Factor g of that threshold.")
    growth_every: int = Field(500, ge=1, description="Iterations after which it grows.")
    shape: Rate = Field(1.0, ge=0, description="Weight lambda of the trajectories' shapes.")


class HoPTM(Trajectory):
    """High-Order Progressive Trajectory Matching: easy parameters first, and the shape of the path.

    Dong, Bian, Hou, Hu, Shi, Dong, Zhu, Mou; MICCAI 2025; arXiv 2509.24177 and its code. A
    parameter's v turns 1, for good, once r = (s - t)^2 < b g^floor(iteration / 500), s and t being
    the ends of student and teacher and o their start:
    `L = sum v r / sum v (o - t)^2 + lambda * mean smooth-L1(A_student - A_teacher)`,
    A the 27 cosines between differences of (start, middle, end): the middle is the student after
    floor(J / 2) steps and the teacher's snapshot floor((2 i + K) / 2).
    Differs: the first term is 0, not 0 / 0, while no parameter that the teacher moved is compared.
    """

    Params = HoPTMParams
    experts = "flat"
    least_loss = 1.0  # The first is near 0: of parameters chosen for being near. The next is not.
    space = Trajectory.space | {
        "base": ("log", 1e-11, 1e-6),
        "growth": ("uniform", 1.1, 2.0),
        "shape": ("log", 0.1, 10.0),
    }
    trace_columns: ClassVar = {"kept": "Share of the parameters that the loss compares."}

    def __init__(self, params: Any, problem: Problem) -> None:
        super().__init__(params, problem)
        self.between = params.unrolled_steps // 2
        self.threshold, self.middle = params.base, self.trajectories.snapshot(0, 0)

    def own_variables(self) -> dict[str, Variable]:
        none = torch.zeros(self.problem.network.num_parameters, dtype=torch.bool)
        return {"compared": Variable(none.to(self.problem.device), None)}

    def draw_expert(self, generator: torch.Generator, iteration: int = 0) -> tuple[Tensor, Tensor]:
        expert, epoch = self.draw_start(generator, iteration)
        self.middle = self.trajectories.snapshot(expert, epoch + self.params.expert_epochs // 2)
        return super().draw_expert(generator, iteration)

    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients:
        growth = torch.tensor(self.params.growth, dtype=torch.float64)  # too large is inf
        times = iteration // self.params.growth_every
        self.threshold = self.params.base * float(growth**times)
        return super().gradients(iteration, variables, generator)

    def loss(
        self, student: Tensor, start: Tensor, target: Tensor, own: Mapping[str, Tensor]
    ) -> Tensor:
        residual, movement = (student - target).square(), (start - target).square()
        compared = own["compared"].logical_or_(residual.detach() < self.threshold)
        smallest = torch.finfo(movement.dtype).tiny
        ratio = (compared * residual).sum() / (compared * movement).sum().clamp_min(smallest)
        halfway = own.get("between", start)  # after no step, if there is but one
        path, teacher = corners(start, halfway, student), corners(start, self.middle, target)
        # Of the 27 cosines each corner's is there twice, the others are 0 and 1 on both sides.
        apart = F.smooth_l1_loss(path, teacher, reduction="sum") * 2 / 27
        return ratio + float(self.params.shape) * apart

    def importance(self, variables: Mapping[str, Tensor]) -> Tensor:
        return variables["compared"]

    def columns(self, variables: Mapping[str, Tensor]) -> dict[str, float]:
        return {"kept": float(variables["compared"].double().mean())}


def corners(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Cosines (3,) of the angles of the triangle of three states (P,)."""
    sides = ((b - a, c - a), (a - b, c - b), (a - c, b - c))
    return torch.stack([F.cosine_similarity(x, y, dim=0) for x, y in sides])
