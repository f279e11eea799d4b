"""What every trajectory-matching method shares: experts, the unrolled student, its step size.

MTT (Cazenavette et al., CVPR 2022, arXiv 2203.11932): pick an expert and a start epoch i, train a
student for J steps on the synthetic images from theta_i, and compare its end point with the
expert's theta_{i+K}. A method says how they are compared: `loss`. A method whose `label_kind` is
soft learns the labels too, as logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from iadd import extension
from iadd.engine.distance import Distance, distance
from iadd.engine.student import draw_steps
from iadd.engine.unroll import unroll
from iadd.methods._base import Gradients, Iterative, IterativeParams, Rate, Workload
from iadd.methods._variables import SGD, PositiveSGD, Variable
from iadd.seeds import generator_for

_SHARED = ("images", "step_size", "labels")


class TrajectoryParams(IterativeParams):
    """Settings of MTT's outer iteration."""

    unrolled_steps: int = Field(50, ge=1, description="J, student steps on the synthetic set.")
    expert_epochs: int = Field(2, ge=1, description="K, epochs from the start to the target.")
    max_start: int = Field(2, ge=1, description="Start epochs are drawn from 0..max_start-1.")
    batch_syn: int | None = Field(
        None, ge=1, description="Synthetic images a student step sees; none: all of them."
    )
    step_size: Rate = Field(0.01, gt=0, description="Student step size alpha at the beginning.")
    lr_lr: Rate = Field(1e-7, ge=0, description="Learning rate of alpha (applied to log alpha).")

    @property
    def reach(self) -> int:
        return self.max_start - 1 + self.expert_epochs


class SoftTrajectoryParams(TrajectoryParams):
    """MTT's settings and how learned labels move."""

    lr_y: Rate = Field(2.0, ge=0, description="Learning rate of the label logits (SGD).")
    momentum_y: float = Field(0.9, ge=0, lt=1, description="Momentum of the logits' updates.")


class Trajectory(Iterative):
    """Base of mtt, ddpp, iadd, ftd: one outer iteration through the unrolled engine."""

    Params = TrajectoryParams
    experts = "standard"
    space: ClassVar = {
        "lr_img": ("log", 1.0, 1e4),
        "lr_lr": ("log", 1e-7, 1e-2),
        "step_size": ("log", 1e-3, 1e-1),
        "unrolled_steps": ("int", 5, 50),
        "expert_epochs": ("int", 1, 4),
        "max_start": ("int", 1, 20),
    }

    def loss(
        self, student: Tensor, start: Tensor, target: Tensor, own: Mapping[str, Tensor]
    ) -> Tensor | Distance:
        """How far the student's end point (P,) is from the target (P,): differentiable, ().

        By default MTT's (equation 2). `own` are the method's own variables (`own_variables`); each
        must be used. A method whose kernel gives the unweighted distance along returns both.
        """
        return distance(student, start, target)

    def own_variables(self) -> dict[str, Variable]:
        """What the method learns beside images, step size and labels."""
        return {}

    def columns(self, variables: Mapping[str, Tensor]) -> dict[str, float]:
        """Values of the method's `trace_columns`, after `loss`; all variables are seen here."""
        return {}

    def initial_labels(self, images: Tensor) -> Tensor:
        """Logits (N, K) that learned labels start from: the first expert's at its last epoch."""
        return self.problem.expert_logits(0, self.trajectories.epochs, images)

    def variables(self, images: Tensor) -> dict[str, Variable]:
        p = self.params
        found = super().variables(images) | self.own_variables()
        step_size = torch.tensor(p.step_size, dtype=torch.float64)
        found["step_size"] = Variable(step_size, PositiveSGD(p.lr_lr, p.momentum))
        if self.label_kind == "soft":
            logits = self.initial_labels(images)
            found["labels"] = Variable(logits, SGD(p.lr_y, p.momentum_y))
        return found

    def draw_expert(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Start and target (P,) of a random expert, from a stream of its own.

        So methods with the same settings see the same experts, whatever else they draw.
        """
        own = generator_for(generator.initial_seed(), "experts")
        expert = int(torch.randint(self.trajectories.count, (), generator=own))
        epoch = int(torch.randint(self.params.max_start, (), generator=own))
        start = self.trajectories.snapshot(expert, epoch)
        return start, self.trajectories.snapshot(expert, epoch + self.params.expert_epochs)

    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients:
        params, problem, images = self.params, self.problem, variables["images"]
        start, target = self.draw_expert(generator)
        draw = problem.augmentation.draw
        steps = draw_steps(
            params.unrolled_steps,
            len(images),
            params.batch_syn,
            lambda count: draw(generator, count),
            generator,
        )
        logits = variables.get("labels")
        targets = problem.one_hot() if logits is None else logits.softmax(1)
        own = {k: v.detach().requires_grad_() for k, v in variables.items() if k not in _SHARED}
        by: dict[str, Tensor] = {}
        unweighted: list[Tensor] = []

        def endpoint(student: Tensor) -> tuple[Tensor, Tensor]:
            leaf = student.detach().requires_grad_()
            with torch.enable_grad():
                found = self.loss(leaf, start, target, own)
                loss = found.weighted if isinstance(found, Distance) else found
                by_student, *by_own = torch.autograd.grad(loss, [leaf, *own.values()])
            if not isinstance(found, Distance):
                found = distance(student, start, target)
            by.update(zip(own, by_own, strict=True))
            unweighted[:] = [found.unweighted]
            return loss.detach(), by_student

        rate = float(variables["step_size"])
        result = unroll(problem.backend, start, images, targets, rate, steps, endpoint)
        by |= {"images": result.images, "step_size": result.step_size}
        if logits is not None:  # back through the softmax
            along = (targets * result.targets).sum(1, keepdim=True)
            by["labels"] = targets * (result.targets - along)
        return Gradients(
            float(result.loss),
            by,
            f"{result.path} {extension.kernel_name(start)}",
            float(unweighted[0]),
            self.columns(variables),
        )

    @classmethod
    def forecast(cls, params: Any, work: Workload) -> float:
        # A gradient forwards; its tangent on the way back costs about three.
        images = min(params.batch_syn or work.synthetic, work.synthetic)
        return float(params.updates * params.unrolled_steps * 4 * images * work.seconds_per_image)
