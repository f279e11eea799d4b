"""The state of a run: what an update changes, a rollback brings back and a checkpoint holds.

And `Distilled`, what a run ends with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from iadd.data import ImageRows
from iadd.methods._variables import Memory, Optimiser, Variable
from iadd.synthetic.decoding import Decoding, decode


@dataclass
class State:
    """All that an update changes: variables, what their optimisers remember, the images' EMA."""

    values: dict[str, Tensor]
    memories: dict[str, Memory]
    average: Tensor | None = None
    iteration: int = 0
    """The updates after which it was seen to be sound."""

    @classmethod
    def start(cls, variables: Mapping[str, Variable], averaged: bool) -> State:
        """The state before the first update; `averaged`: with an average of the images."""
        values = {name: variable.value for name, variable in variables.items()}
        average = values["images"].clone() if averaged else None
        return cls(values, {name: {} for name in values}, average)

    def copy(self) -> State:
        """A state that shares no tensor with this one."""
        return State(
            {name: value.clone() for name, value in self.values.items()},
            {name: {k: v.clone() for k, v in m.items()} for name, m in self.memories.items()},
            None if self.average is None else self.average.clone(),
            self.iteration,
        )

    @property
    def images(self) -> Tensor:
        """What is validated and kept: the average where there is one."""
        return self.values["images"] if self.average is None else self.average

    @property
    def step_size(self) -> float | None:
        """The student's, where the method learns it."""
        return float(self.values["step_size"]) if "step_size" in self.values else None

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """All of it as named tensors, for a checkpoint; `read` is the way back."""
        found = {f"{prefix}.value.{name}": value for name, value in self.values.items()}
        found[f"{prefix}.iteration"] = torch.tensor(self.iteration)
        for name, memory in self.memories.items():
            found |= {f"{prefix}.memory.{name}.{key}": value for key, value in memory.items()}
        return found if self.average is None else found | {f"{prefix}.average": self.average}

    def read(
        self, tensors: Mapping[str, Tensor], prefix: str, remembered: Mapping[str, Memory]
    ) -> State:
        """What `tensors` stored of a state like this one; KeyError or ValueError if it is not.

        remembered: what each variable's optimiser remembers, if it remembers something.
        """

        def like(tensor: Tensor, model: Tensor) -> Tensor:
            if tensor.shape != model.shape or tensor.dtype != model.dtype:
                raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} in a checkpoint")
            return tensor.to(model.device).clone()

        def memory_of(name: str) -> Memory:
            start, model = f"{prefix}.memory.{name}.", remembered.get(name, {})
            found = {key.removeprefix(start) for key in tensors if key.startswith(start)}
            return {key: like(tensors[start + key], model[key]) for key in (model if found else ())}

        values = {n: like(tensors[f"{prefix}.value.{n}"], v) for n, v in self.values.items()}
        if "step_size" in values and not bool(values["step_size"] > 0):
            raise ValueError("a step size that is not positive")
        memories = {name: memory_of(name) for name in values}
        average, iteration = self.average, int(tensors[f"{prefix}.iteration"])
        if average is not None:
            average = like(tensors[f"{prefix}.average"], average)
        return State(values, memories, average, iteration)


def remembered_by(
    optimisers: Mapping[str, Optimiser], values: Mapping[str, Tensor]
) -> dict[str, Memory]:
    """What the optimisers of variables remember after an update: their tensors' names and forms."""
    memories: dict[str, Memory] = {name: {} for name in optimisers}
    for name, optimiser in optimisers.items():
        value = values[name].clone()
        optimiser.update(value, torch.zeros_like(value), memories[name])
    return memories


class _Row(BaseModel):
    """A row of the trace; further columns are the method's."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, float | None]

    iteration: int
    loss: float | None
    loss_unweighted: float | None
    step_size: float | None
    validation_accuracy: float | None
    seconds: float
    event: Literal["", "skipped", "rollback", "diverged"]
    path: str


class Progress(BaseModel):
    """What a checkpoint tells of a run beside its states."""

    model_config = ConfigDict(strict=True)

    iteration: int = Field(ge=0)
    status: Literal["ok", "diverged"]
    rollbacks: int = Field(ge=0)
    in_a_row: int = Field(ge=0)
    sound: int = Field(ge=0)
    trace: list[_Row]
    weights: list[dict[str, Any]]
    best_accuracy: float
    seconds: float = Field(ge=0)
    validation_seconds: float = Field(ge=0)
    kept: int = Field(ge=0)

    @classmethod
    def check(cls, told: Mapping[str, Any], updates: int) -> None:
        """ValueError for what no run of so many updates can have told."""
        found = cls(**told)
        rows = [row.iteration for row in found.trace]
        if rows != list(range(found.iteration)) or found.iteration > updates + 1:
            raise ValueError("a trace that is not of its iterations")
        if any(row.loss is None and not row.event for row in found.trace):
            raise ValueError("a sound iteration without a loss")
        if found.kept > len(rows):
            raise ValueError("more states than iterations")


@dataclass
class Distilled:
    """What a run ends with; `status` is ok or diverged.

    images: (N, C, H, W); labels: int64 (N,) classes or float32 (N, K) logits, on the CPU.
    """

    images: ImageRows
    labels: Tensor
    step_size: float | None
    status: str
    trace: list[dict[str, Any]] = field(default_factory=list)
    """A row an iteration: iteration, loss, loss_unweighted, step_size, validation_accuracy,
    seconds, event ("", skipped, rollback, diverged), path (which implementation ran, or why the
    update was skipped), and the method's own `trace_columns`."""
    weights: list[dict[str, Any]] = field(default_factory=list)
    """Of a method with weights or masks: iteration, and what `_importance.describe` tells."""
    iteration: int = 0
    """The updates after which these were the images: the best on validation."""
    seconds: float = 0.0
    """Work in all, also before the run was killed and resumed, without the validations."""
    validation_seconds: float = 0.0
    rows: Tensor | None = None
    """The training rows (N,) that a selection chose."""
    variables: Mapping[str, Tensor] = field(default_factory=dict)
    """All that an iterative method changed, at that iteration; none of a selection."""
    start: Tensor | None = None
    """The images (N, C, H, W) before the first update, on the CPU; none of a selection."""
    decoding: Decoding | None = None
    """How the images are decoded before networks are trained on them."""
    states: list[tuple[Tensor, Tensor, float | None]] = field(default_factory=list)
    """Images, labels and step size at every validation measurement, where the hooks ask for it."""

    def decoded(self) -> tuple[Tensor, Tensor]:
        """Images and labels that networks are trained on."""
        return decode(self.images[:], self.labels, self.decoding)
