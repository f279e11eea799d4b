"""What an outer iteration is made of: the student's steps, its end-point loss, and what comes out.

Below `unroll` and `graphs`, the two ways to take it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from iadd.augment import Draw

Endpoint = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps the student's end point (P,) to the loss () and its gradient (P,)."""


@dataclass(frozen=True)
class Step:
    """What one student step sees: rows of the synthetic set (None: all) and their augmentation."""

    rows: Tensor | None
    draw: Draw | None


class Unrolled(NamedTuple):
    """The end-point loss and its exact gradients; `end` is theta_J (P,); `path` says what ran."""

    loss: Tensor
    images: Tensor
    targets: Tensor
    step_size: Tensor
    end: Tensor
    path: str


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
