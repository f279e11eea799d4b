"""The variables of an iterative method and the optimisers that move them.

An optimiser is a frozen value; what it remembers (momentum, averages) is a dictionary of tensors
that the loop keeps, copies, stores in checkpoints and clears after a rollback.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from iadd.engine.distance import WeightsRule, weights_step

LARGEST_STEP_SIZE_MOVE = 0.5
"""The logarithm of the student's step size moves by at most this much an update."""

Memory = dict[str, Tensor]


class Optimiser(Protocol):
    """Moves a variable along its gradient, in place."""

    def update(self, value: Tensor, gradient: Tensor, memory: Memory) -> None:
        """One update; `memory` is empty before the first and may be written."""


@dataclass(frozen=True)
class Variable:
    """A tensor that a run changes: by its optimiser, or where it has none by the method itself."""

    value: Tensor
    optimiser: Optimiser | None


@dataclass(frozen=True)
class SGD:
    """SGD with momentum; `clip` bounds the L2 norm of the gradient, `maximise` is ascent."""

    lr: float
    momentum: float = 0.0
    clip: float | None = None
    maximise: bool = False

    def update(self, value: Tensor, gradient: Tensor, memory: Memory) -> None:
        if self.clip is not None:
            norm = float(gradient.norm())
            gradient = gradient * (self.clip / norm) if norm > self.clip else gradient
        if self.momentum:
            velocity = memory.setdefault("velocity", torch.zeros_like(value))
            gradient = velocity.mul_(self.momentum).add_(gradient)
        value.add_(gradient, alpha=self.lr if self.maximise else -self.lr)


@dataclass(frozen=True)
class Adam:
    """`torch.optim.Adam` (arXiv 1412.6980); `maximise` is ascent."""

    lr: float
    maximise: bool = False

    def update(self, value: Tensor, gradient: Tensor, memory: Memory) -> None:
        adam = torch.optim.Adam([value], lr=self.lr, maximize=self.maximise)
        if memory:
            adam.state[value] = memory
        value.grad = gradient
        adam.step()
        value.grad = None
        memory.update(adam.state[value])


@dataclass(frozen=True)
class MeanOneAdam:
    """Adam on v where the variable is w = clamp(v / mean(v), 0, high); takes the gradient by w.

    One step (`engine.distance.weights_step`) goes back through clamp and mean.
    """

    lr: float
    high: float
    maximise: bool = False

    def update(self, value: Tensor, gradient: Tensor, memory: Memory) -> None:
        if not memory:
            memory |= {"v": value.clone(), "step": torch.tensor(0)}
            memory |= {"mean": torch.zeros_like(value), "square": torch.zeros_like(value)}
        memory["step"] += 1
        rule = WeightsRule(lr=self.lr, high=self.high, maximise=self.maximise)
        averages = memory["mean"], memory["square"]
        weights_step(memory["v"], value, gradient, *averages, int(memory["step"]), rule)


@dataclass(frozen=True)
class PositiveSGD:
    """SGD on the logarithm of a positive number a: it is multiplied by exp(-lr * momentum of g/a).

    To first order a moves by -lr g, so that published learning rates of the step size apply.
    """

    lr: float
    momentum: float = 0.0

    def update(self, value: Tensor, gradient: Tensor, memory: Memory) -> None:
        velocity = memory.setdefault("velocity", torch.zeros_like(value))
        velocity.mul_(self.momentum).add_(gradient.to(value) / value)
        bound = LARGEST_STEP_SIZE_MOVE
        value.mul_(math.exp(-min(max(self.lr * float(velocity), -bound), bound)))
