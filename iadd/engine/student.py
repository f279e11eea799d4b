"""What an outer iteration is made of: the student's steps, what they see, its end-point loss.

Below `unroll` and `cuda_graph`, the two ways to take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from iadd.augment import Draw, augment_together, steps_together

Endpoint = Callable[[Tensor], tuple[Tensor, Tensor | Mapping[int, Tensor]]]
"""Maps the student's end point theta_J (P,) to the loss () and its gradient (P,).

A loss of other states, that a `Watch` saw, gives its gradients by {t: theta_t}, t in 1..J.
"""
Watch = Callable[[int, Tensor], None]
"""Hears t and theta_t (P,) after each step, t = 1..J; no theta_t changes until `unroll` ends."""


@dataclass(frozen=True)
class Step:
    """What one student step sees: rows of the synthetic set (None: all) and their augmentation."""

    rows: Tensor | None
    draw: Draw | None


def unwatched(t: int, state: Tensor) -> None:
    """The `Watch` of a loss that sees the end point alone."""


class Student(NamedTuple):
    """A student's training: its start (P,), the images and targets, what each step sees, its end.

    `rate` is the learning rate (); `endpoint` is called once, after `watch` heard of every state.
    `truncated`: the gradient of each step is taken as if it moved the loss's states directly.
    """

    start: Tensor
    images: Tensor
    targets: Tensor
    rate: Tensor
    steps: Sequence[Step]
    endpoint: Endpoint
    watch: Watch = unwatched
    truncated: bool = False


class Unrolled(NamedTuple):
    """The end-point loss and its gradients; `end` is theta_J (P,); `path` says what ran."""

    loss: Tensor
    images: Tensor
    targets: Tensor
    step_size: Tensor
    end: Tensor
    path: str


def by_state(found: Tensor | Mapping[int, Tensor], steps: int) -> Mapping[int, Tensor]:
    """What an `Endpoint` gave, as gradients by {t: theta_t}."""
    return {steps: found} if isinstance(found, Tensor) else found


def draw_steps(
    count: int,
    size: int,
    batch: int | None,
    families: Callable[[int], Draw | None],
    generator: torch.Generator,
) -> list[Step]:
    """Choose `count` student steps over `size` images: full batches, or minibatches of `batch`.

    Minibatches are drawn without replacement and refilled when too few rows are left. `families`
    draws an augmentation for a number of images.
    """
    steps: list[Step] = []
    queue = torch.empty(0, dtype=torch.long)
    for _ in range(count):
        rows = None
        if batch is not None and batch < size:
            if len(queue) < batch:
                queue = torch.randperm(size, generator=generator)
            rows, queue = queue[:batch], queue[batch:]
        steps.append(Step(rows, families(size if rows is None else len(rows))))
    return steps


def rows_of(tensor: Tensor, step: Step) -> Tensor:
    """What the step sees of images or targets (N, ...)."""
    return tensor if step.rows is None else tensor[step.rows]


class AugmentedBatches:
    """The batch of every student step, and the gradient that its steps add up to.

    Several steps' images are augmented in one call, and their gradients backpropagated in one: with
    small images, calls cost more than pixels.
    """

    def __init__(self, student: Student) -> None:
        self.images, self.targets = student.images.detach(), student.targets.detach()
        self.rate, self.steps = float(student.rate), student.steps
        self.by_images, self.by_targets = map(torch.zeros_like, (self.images, self.targets))
        self._group = steps_together(self.images, len(rows_of(self.images, self.steps[0])))
        self._present = range(0)
        """The steps whose augmented images `_seen` holds."""
        self._seen: list[Tensor] = []
        self._waiting: list[tuple[int, Tensor]] = []
        """Steps with gradients by their augmented images that were not yet backpropagated."""

    def __getitem__(self, t: int) -> tuple[Tensor, Tensor]:
        """Augmented images (B, C, H, W) and targets (B, K) of step t."""
        if t not in self._present:
            first = t - t % self._group
            self._present = range(first, min(first + self._group, len(self.steps)))
            batches = [rows_of(self.images, self.steps[k]) for k in self._present]
            self._seen = augment_together(batches, [self.steps[k].draw for k in self._present])
        return self._seen[t - self._present.start], rows_of(self.targets, self.steps[t])

    def add_gradient(self, t: int, by_seen: Tensor, by_labels: Tensor) -> None:
        """Add step t's share, times -rate; steps come in falling order."""
        self._add(self.by_targets, t, by_labels)
        if self.steps[t].draw is None:
            self._add(self.by_images, t, by_seen)
        else:
            self._waiting.append((t, by_seen))
        if t % self._group == 0 and self._waiting:
            steps, batches = zip(*self._waiting, strict=True)
            draws = [self.steps[k].draw for k in steps]
            for k, by_rows in zip(steps, augment_together(batches, draws, True), strict=True):
                self._add(self.by_images, k, by_rows)
            self._waiting.clear()

    def _add(self, gradient: Tensor, t: int, by_rows: Tensor) -> None:
        rows = self.steps[t].rows
        if rows is None:
            gradient.sub_(by_rows, alpha=self.rate)
        else:
            gradient.index_add_(0, rows, by_rows, alpha=-self.rate)
