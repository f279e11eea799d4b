"""What every trajectory-matching method shares: experts, the unrolled student, its step size.

MTT (Cazenavette et al., CVPR 2022, arXiv 2203.11932): pick an expert and a start epoch i, train a
student for J steps on the synthetic images from theta_i, and compare its end point with the
expert's theta_{i+K}. A method says how they are compared: `loss`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from iadd import extension
from iadd.engine.backend import choose_backend
from iadd.engine.distance import Distance, distance
from iadd.engine.student import draw_steps
from iadd.engine.unroll import unroll
from iadd.methods._base import Matching, MatchingParams, MethodParams, Outer, Problem, Space


class TrajectoryParams(MatchingParams):
    """Settings of MTT's outer iteration."""

    unrolled_steps: int = Field(50, ge=1, description="J, student steps on the synthetic set.")
    expert_epochs: int = Field(2, ge=1, description="K, epochs from the start to the target.")
    max_start: int = Field(2, ge=1, description="Start epochs are drawn from 0..max_start-1.")
    batch_syn: int | None = Field(
        None, ge=1, description="Synthetic images a student step sees; none: all of them."
    )
    step_size: float = Field(0.01, gt=0, description="Student step size alpha at the beginning.")
    lr_lr: float = Field(1e-7, ge=0, description="Learning rate of alpha (applied to log alpha).")

    changing: ClassVar[frozenset[str]] = MatchingParams.changing | {
        *("unrolled_steps", "expert_epochs", "max_start", "batch_syn", "lr_lr")
    }


class Trajectory(Matching):
    """Base of mtt, ddpp, iadd: one outer iteration through the unrolled engine."""

    Params: ClassVar[type[MethodParams]] = TrajectoryParams
    needs_experts = True
    space: ClassVar[Space] = {
        "lr_img": ("log", 1.0, 1e4),
        "lr_lr": ("log", 1e-7, 1e-2),
        "step_size": ("log", 1e-3, 1e-1),
        "unrolled_steps": ("int", 5, 50),
        "expert_epochs": ("int", 1, 4),
        "max_start": ("int", 1, 20),
    }

    def __init__(self, params: Any, problem: Problem) -> None:
        super().__init__(params, problem)
        self.step_size = params.step_size
        if problem.experts is None:
            raise ValueError(f"method {self.name} needs expert trajectories; none were given")
        epochs = problem.experts.epochs
        for start, held in params.phases().items():
            reach = held.max_start - 1 + held.expert_epochs
            if reach > epochs:
                when = f" (schedule at iteration {start})" * (start > 0)
                raise ValueError(
                    f"method {self.name}: max_start {held.max_start} - 1 + expert_epochs "
                    f"{held.expert_epochs} reaches epoch {reach}, experts were kept to {epochs}"
                    f"{when}"
                )
        self.gradients: tuple[Tensor, ...] = ()
        self.unweighted = torch.tensor(math.nan)

    @abstractmethod
    def loss(self, student: Tensor, start: Tensor, target: Tensor) -> Tensor | Distance:
        """How far the student's end point (P,) is from the target (P,): differentiable, ().

        A method whose kernel gives the unweighted distance along returns both.
        """

    def variables(self) -> tuple[Tensor, ...]:
        """Leaf tensors that the method learns beside the images; `loss` must use each."""
        return ()

    def outer(self, images: Tensor, step_size: float, generator: torch.Generator) -> Outer:
        params, problem = self.params, self.problem
        assert problem.experts is not None
        expert = int(torch.randint(problem.experts.count, (), generator=generator))
        epoch = int(torch.randint(params.max_start, (), generator=generator))
        start = problem.experts.snapshot(expert, epoch)
        target = problem.experts.snapshot(expert, epoch + params.expert_epochs)
        steps = draw_steps(
            params.unrolled_steps,
            len(images),
            params.batch_syn,
            lambda count: problem.augmentation.draw(generator, count),
            generator,
        )
        targets = torch.nn.functional.one_hot(self.labels(), problem.dataset.classes).to(start)

        def endpoint(student: Tensor) -> tuple[Tensor, Tensor]:
            leaf = student.detach().requires_grad_()
            with torch.enable_grad():
                found = self.loss(leaf, start, target)
                loss = found.weighted if isinstance(found, Distance) else found
                by_student, *by_variables = torch.autograd.grad(loss, [leaf, *self.variables()])
            if not isinstance(found, Distance):
                found = distance(student, start, target)
            self.gradients, self.unweighted = tuple(by_variables), found.unweighted
            return loss.detach(), by_student

        backend = choose_backend(problem.network, start.device, start.dtype)
        result = unroll(backend, start, images, targets, step_size, steps, endpoint)
        return Outer(
            float(result.loss),
            float(self.unweighted),
            result.images,
            float(result.step_size),
            f"{result.path} {extension.kernel_name(start)}",
        )
