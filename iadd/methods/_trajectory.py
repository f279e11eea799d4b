"""What every trajectory-matching method shares: experts, the unrolled student, its step size.

MTT (Cazenavette et al., CVPR 2022, arXiv 2203.11932): pick an expert and a start epoch i, train a
student for J steps on the synthetic images from theta_i, and compare its end point with the
expert's theta_{i+K}. A method says how they are compared: `loss`. A method whose `label_kind` is
soft learns the labels too, as logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from iadd import extension
from iadd.engine.distance import Distance, distance
from iadd.engine.student import draw_steps
from iadd.engine.unroll import unroll
from iadd.methods._base import Gradients, Iterative, IterativeParams, Rate, Workload
from iadd.methods._importance import describe, is_due
from iadd.methods._variables import SGD, PositiveSGD, Variable
from iadd.seeds import generator_for

_SHARED = ("images", "step_size", "labels")


class TrajectoryParams(IterativeParams):
    """Settings of MTT's outer iteration."""

    unrolled_steps: int = Field(50, ge=1, description="J, student steps on the synthetic set.")
    expert_epochs: int = Field(2, ge=1, description="K, epochs from the start to the target.")
    min_start: int = Field(0, ge=0, description="First of the start epochs.")
    max_start: int = Field(
        2, ge=1, description="Start epochs are drawn from min_start..max_start-1."
    )
    first_max_start: int | None = Field(
        None,
        ge=1,
        description="`max_start` in the first iteration, from where it grows; none: no growth.",
    )
    expansion_end: int = Field(1000, ge=1, description="Iteration in which it has grown up.")
    batch_syn: int | None = Field(
        None, ge=1, description="Synthetic images a student step sees; none: all of them."
    )
    step_size: Rate = Field(0.01, gt=0, description="Student step size alpha at the beginning.")
    lr_lr: Rate = Field(1e-7, ge=0, description="Learning rate of alpha (applied to log alpha).")

    @model_validator(mode="after")
    def _range(self) -> TrajectoryParams:
        name = "max_start" if self.first_max_start is None else "first_max_start"
        bound = getattr(self, name)
        if not self.min_start < bound <= self.max_start:
            allowed = f"min_start ({self.min_start}) < {name} <= max_start ({self.max_start})"
            raise ValueError(f"{name} {bound}: allowed is {allowed}")
        return self

    @property
    def reach(self) -> int:
        return self.max_start - 1 + self.expert_epochs

    def start_bound(self, iteration: int) -> int:
        """Start epochs lie below this: max_start, or what has grown of it (DATM, section 4.2)."""
        first = self.max_start if self.first_max_start is None else self.first_max_start
        grown = first + int((self.max_start - first) * iteration / self.expansion_end)
        return min(grown, self.max_start)


class SoftTrajectoryParams(TrajectoryParams):
    """MTT's settings and how learned labels move."""

    lr_y: Rate = Field(2.0, ge=0, description="Learning rate of the label logits (SGD).")
    momentum_y: float = Field(0.9, ge=0, lt=1, description="Momentum of the logits' updates.")


class Trajectory(Iterative):
    """Base of mtt and its rivals: one outer iteration through the unrolled engine."""

    Params = TrajectoryParams
    experts = "standard"
    between: int | None = None
    """A step, of 1..J - 1, whose student `loss` sees too, (P,), as `own["between"]`."""
    truncated = False
    """Whether the gradient leaves out how a step moves the gradients of later ones."""
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
        that has an optimiser must be used, others may be written in place. A method whose kernel
        gives the unweighted distance along returns both.
        """
        return distance(student, start, target)

    def compares(self, step: int, student: Tensor, target: Tensor) -> bool:
        """Whether `loss` gets the student as it is after this step, (P,), of 1..J.

        Asked after each step in turn; the last one that is compared counts. By default J.
        """
        return bool(step == self.params.unrolled_steps)

    def own_variables(self) -> dict[str, Variable]:
        """What the method changes beside images, step size and labels."""
        return {}

    @cached_property
    def learned(self) -> frozenset[str]:
        """Those of its own variables that have an optimiser."""
        return frozenset(name for name, v in self.own_variables().items() if v.optimiser)

    def columns(self, variables: Mapping[str, Tensor]) -> dict[str, float]:
        """Values of the method's `trace_columns`, after `loss`; all variables are seen here."""
        return {}

    def importance(self, variables: Mapping[str, Tensor]) -> Tensor | None:
        """What multiplies each parameter's mismatch, (P,): weights, or a mask of bool.

        Asked after `loss`, now and then; where there is some, the trace keeps statistics of it a
        parameter tensor. None: all count alike.
        """
        return None

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

    def draw_start(self, generator: torch.Generator, iteration: int = 0) -> tuple[int, float]:
        """A random expert and the epoch to start from, by a stream of their own.

        So methods with the same settings see the same experts, whatever else they draw.
        """
        own = generator_for(generator.initial_seed(), "experts")
        expert = int(torch.randint(self.trajectories.count, (), generator=own))
        bounds = self.params.min_start, self.params.start_bound(iteration)
        return expert, self.draw_epoch(*bounds, own)

    def draw_epoch(self, low: int, bound: int, generator: torch.Generator) -> float:
        """A start epoch of low..bound-1."""
        return int(torch.randint(low, bound, (), generator=generator))

    def draw_expert(self, generator: torch.Generator, iteration: int = 0) -> tuple[Tensor, Tensor]:
        """Start and target (P,) of that expert."""
        expert, epoch = self.draw_start(generator, iteration)
        start = self.trajectories.snapshot(expert, epoch)
        return start, self.trajectories.snapshot(expert, epoch + self.params.expert_epochs)

    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients:
        params, problem, images = self.params, self.problem, variables["images"]
        start, target = self.draw_expert(generator, iteration)
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
        own = {name: value for name, value in variables.items() if name not in _SHARED}
        rate, match = float(variables["step_size"]), _Match(self, start, target, own)
        result = unroll(
            problem.backend,
            start,
            images,
            targets,
            rate,
            steps,
            match.endpoint,
            watch=match.watch,
            truncated=self.truncated,
        )
        by = match.by_own | {"images": result.images, "step_size": result.step_size}
        if logits is not None:  # back through the softmax
            along = (targets * result.targets).sum(1, keepdim=True)
            by["labels"] = targets * (result.targets - along)
        return Gradients(
            float(result.loss),
            by,
            f"{result.path} {extension.kernel_name(start)}",
            float(match.unweighted),
            self.columns(variables),
            match.described(variables) if is_due(iteration, params.updates) else (),
        )

    @classmethod
    def forecast(cls, params: Any, work: Workload) -> float:
        # A gradient forwards; its tangent on the way back costs about three.
        images = min(params.batch_syn or work.synthetic, work.synthetic)
        return float(params.updates * params.unrolled_steps * 4 * images * work.seconds_per_image)


class _Match:
    """A method's loss in one outer iteration: what the engine asks for, and its gradients."""

    def __init__(
        self, method: Trajectory, start: Tensor, target: Tensor, own: Mapping[str, Tensor]
    ) -> None:
        self.method, self.start, self.target = method, start, target
        self.own = {k: v.detach().requires_grad_(k in method.learned) for k, v in own.items()}
        self.seen: dict[str, tuple[int, Tensor]] = {}
        self.by_own: dict[str, Tensor] = {}
        self.unweighted = start.new_zeros(())

    def watch(self, step: int, student: Tensor) -> None:
        """Keep the states that the loss sees."""
        if self.method.compares(step, student, self.target):
            self.seen["student"] = step, student
        if step == self.method.between:
            self.seen["between"] = step, student

    def endpoint(self, end: Tensor) -> tuple[Tensor, Tensor | dict[int, Tensor]]:
        """The loss () and its gradient by the end point, or by the states that it sees."""
        states = {name: state.detach().requires_grad_() for name, (_, state) in self.seen.items()}
        try:
            with torch.enable_grad():
                loss, by = self._differentiated(states)
        except (RuntimeError, ValueError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"method {self.method.name}: loss: {reason}") from error
        self.by_own = {name: by[name] for name in self.method.learned}
        steps: dict[int, Tensor] = {}
        for name, (step, _) in self.seen.items():
            steps[step] = steps[step] + by[name] if step in steps else by[name]
        last = self.method.params.unrolled_steps
        return loss.detach(), steps[last] if list(steps) == [last] else steps

    def described(self, variables: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """What the trace keeps of the weights that this loss had."""
        weights = self.method.importance(variables)
        if weights is None:
            return []
        student = self.seen["student"][1].detach().double()
        if weights.shape != student.shape:
            given, allowed = list(weights.shape), list(student.shape)
            raise ValueError(
                f"method {self.method.name}: importance gives shape {given}, allowed is {allowed}"
            )
        residual = (student - self.target).square()
        movement = (self.start.double() - self.target).abs()
        return describe(weights, residual, movement, self.method.problem.network)

    def _differentiated(self, states: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if "student" not in states:
            raise ValueError("`compares` chose no step of the student")
        student, own = states["student"], self.own | dict(states)
        found = self.method.loss(student, self.start, self.target, own)
        loss = found.weighted if isinstance(found, Distance) else found
        if not isinstance(loss, Tensor) or loss.dim():
            given = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise ValueError(f"gives {given}, allowed is one number () or a Distance")
        leaves = dict(states) | {name: self.own[name] for name in self.method.learned}
        if not loss.requires_grad:
            raise ValueError(f"depends on none of {', '.join(leaves)}")
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        by = dict(zip(leaves, gradients, strict=True))
        unused = [name for name, gradient in by.items() if gradient is None]
        if unused:
            raise ValueError(f"does not depend on {', '.join(unused)}")
        if not isinstance(found, Distance):
            found = distance(student.detach(), self.start, self.target)
        self.unweighted = found.unweighted
        return loss, by
