"""The state of a run: what an update changes, a rollback brings back and a checkpoint holds.

And `Distilled`, what a run ends with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from iadd.data import ImageRows
from iadd.methods._variables import Memory, Variable
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
        values = {name: variable.value for name, variable in variables.items()}
        average = values["images"].clone() if averaged else None
        return cls(values, {name: {} for name in values}, average)

    def copy(self) -> State:
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
        return float(self.values["step_size"]) if "step_size" in self.values else None

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        found = {f"{prefix}.value.{name}": value for name, value in self.values.items()}
        found[f"{prefix}.iteration"] = torch.tensor(self.iteration)
        for name, memory in self.memories.items():
            found |= {f"{prefix}.memory.{name}.{key}": value for key, value in memory.items()}
        return found if self.average is None else found | {f"{prefix}.average": self.average}

    def read(self, tensors: Mapping[str, Tensor], prefix: str) -> State:
        """What `tensors` stored of a state like this one; KeyError or ValueError if it is not."""

        def like(tensor: Tensor, model: Tensor) -> Tensor:
            if tensor.shape != model.shape or tensor.dtype != model.dtype:
                raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} in a checkpoint")
            return tensor.to(model.device).clone()

        values = {n: like(tensors[f"{prefix}.value.{n}"], v) for n, v in self.values.items()}
        memories: dict[str, Memory] = {name: {} for name in values}
        for name, memory in memories.items():
            start = f"{prefix}.memory.{name}."
            for key in (key for key in tensors if key.startswith(start)):
                tensor = tensors[key]
                # Counters stay on the CPU, as their optimiser made them.
                device = values[name].device if tensor.dim() else torch.device("cpu")
                memory[key.removeprefix(start)] = tensor.to(device).clone()
        average, iteration = self.average, int(tensors[f"{prefix}.iteration"])
        if average is not None:
            average = like(tensors[f"{prefix}.average"], average)
        return State(values, memories, average, iteration)


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
    decoding: Decoding | None = None
    """How the images are decoded before networks are trained on them."""
    states: list[tuple[Tensor, Tensor, float | None]] = field(default_factory=list)
    """Images, labels and step size at every validation measurement, where the hooks ask for it."""

    def decoded(self) -> tuple[Tensor, Tensor]:
        """Images and labels that networks are trained on."""
        return decode(self.images[:], self.labels, self.decoding)
