"""What a method is: its parameters, the problem that it sees, and what it must give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from iadd.augment import Augmentation
from iadd.data import Dataset
from iadd.experts import Experts
from iadd.networks import Network

Space = dict[str, tuple[str, Any, Any] | list[Any]]
"""Search ranges as plain data: ("log" | "uniform" | "int", low, high), or a list of choices."""


class MethodParams(BaseModel):
    """Base of every method's parameters: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    changing: ClassVar[frozenset[str]] = frozenset()
    """What a schedule may change during a run: parameters that are read anew in each iteration."""


class MatchingParams(MethodParams):
    """What every iterative method takes."""

    iterations: int = Field(5000, ge=1, description="Outer iterations: updates of the images.")
    lr_img: float = Field(100.0, gt=0, description="Learning rate of the pixels (SGD).")
    momentum: float = Field(0.5, ge=0, lt=1, description="Momentum of the pixels' updates.")
    clip: float | None = Field(
        None, gt=0, description="Largest L2 norm of the image gradient an iteration; none: free."
    )
    init: Literal["real", "noise"] = Field("real", description="What the images start from.")
    validations: int = Field(
        5, ge=0, description="Validation measurements, evenly spaced; the best set is kept."
    )
    schedule: tuple[tuple[int, dict[str, Any]], ...] = Field(
        (), description="Changes during a run: [[iteration, {parameter: value}], ...], from 0 on."
    )

    changing: ClassVar[frozenset[str]] = frozenset({"lr_img", "momentum", "clip"})

    @model_validator(mode="after")
    def _schedule_holds(self) -> Self:
        last = -1
        for start, changes in self.schedule:
            where = f"schedule at iteration {start}"
            if not last < start < self.iterations:
                allowed = f"{last + 1}..{self.iterations - 1}, ascending"
                raise ValueError(f"{where}: allowed are {allowed}")
            for name in changes:
                if name not in self.changing:
                    may = ", ".join(sorted(self.changing)) or "nothing"
                    reason = "cannot change during a run"
                    if name not in type(self).model_fields:
                        reason = "unknown parameter"
                    raise ValueError(f"{where}: {name}: {reason}; what may change: {may}")
            last = start
        self.phases()
        return self

    def phases(self) -> dict[int, Self]:
        """First outer iteration -> the parameters that hold from there on, 0 the first key.

        Raises:
            ValueError: one line for a scheduled value that the method refuses.
        """
        held = self.model_dump(exclude={"schedule"})
        found = {0: self}
        for start, changes in self.schedule:
            held |= changes
            try:
                found[start] = type(self)(**held)
            except ValidationError as error:
                problem = error.errors()[0]
                name = ".".join(map(str, problem["loc"]))
                reason = f"{name}: {problem['msg']} (given: {problem['input']!r})"
                raise ValueError(f"schedule at iteration {start}: {reason}") from None
        return found

    @property
    def rungs(self) -> list[int]:
        """The iterations after which validation accuracy is measured, ascending, evenly spaced."""
        every = max(1, self.iterations // max(1, self.validations))
        found = (self.iterations - every * k for k in range(self.validations))
        return sorted(iteration for iteration in found if iteration > 0)


@dataclass(frozen=True)
class Problem:
    """What a method works on: the data's train and validation splits, network, experts, budget."""

    dataset: Dataset
    network: Network
    augmentation: Augmentation
    ipc: int
    experts: Experts | None = None

    @property
    def device(self) -> torch.device:
        """Where the data lie, and so where the work is done."""
        return self.dataset.train.images.device

    def class_rows(self, label: int) -> Tensor:
        """Rows (n,) of the training images of one class."""
        return self.dataset.class_rows[label]

    def labels(self) -> Tensor:
        """The synthetic set's hard labels int64 (N,), class after class, on the CPU."""
        return torch.arange(self.dataset.classes).repeat_interleave(self.ipc)

    def random_rows(self, generator: torch.Generator) -> Tensor:
        """`ipc` random training rows of each class without replacement, (N,)."""
        parts = []
        for label in range(self.dataset.classes):
            rows = self.class_rows(label)
            parts.append(rows[torch.randperm(len(rows), generator=generator)[: self.ipc]])
        return torch.cat(parts)

    def check(self) -> None:
        """Raise ValueError where a class has fewer training images than ipc."""
        counts = torch.bincount(self.dataset.train.labels, minlength=self.dataset.classes)
        smallest = int(counts.argmin())
        if self.ipc > counts[smallest]:
            raise ValueError(
                f"ipc {self.ipc} is larger than class {self.dataset.class_names[smallest]!r} of "
                f"{self.dataset.name}, which has {int(counts[smallest])} training images"
            )


class Outer(NamedTuple):
    """One outer iteration: losses, and the gradients by the images and by the student step size."""

    loss: float
    loss_unweighted: float
    images: Tensor
    step_size: float
    path: str


class Method(ABC):
    """A distillation method; `name` is its file's name, its docstring the citation."""

    Params: ClassVar[type[MethodParams]] = MethodParams
    space: ClassVar[Space] = {}
    needs_experts: ClassVar[bool] = False
    reconstruction: ClassVar[bool] = False
    """True where the published description leaves gaps that ours fills by choice."""
    params: Any

    def __init__(self, params: MethodParams, problem: Problem) -> None:
        self.params, self.problem = params, problem

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    def labels(self) -> Tensor:
        return self.problem.labels()

    @abstractmethod
    def initial(self, generator: torch.Generator) -> Tensor:
        """Images (N, C, H, W) that a selection ends with or an iterative method starts from."""


class Matching(Method):
    """An iterative method: `outer` gives one iteration's gradients, `_outer` does the rest."""

    Params: ClassVar[type[MethodParams]] = MatchingParams
    step_size: float | None = None
    """Initial student step size; None where the method does not learn one."""

    def initial(self, generator: torch.Generator) -> Tensor:
        real = self.problem.dataset.train.images[self.problem.random_rows(generator)]
        if self.params.init == "noise":
            return torch.randn(real.shape, generator=generator).to(real.device)
        return real.clone()

    @abstractmethod
    def outer(self, images: Tensor, step_size: float, generator: torch.Generator) -> Outer:
        """Loss and gradients at the current images."""

    def accept(self) -> None:
        """Called once the iteration's gradients were found sound: update what the method learns."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that the method carries from iteration to iteration."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""

    def statistics(self) -> dict[str, float]:
        """Columns of the trace that only this method knows."""
        return {}
