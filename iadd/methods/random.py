from __future__ import annotations

import torch
from torch import Tensor

from iadd.methods._base import Method


class Random(Method):
    """Random real images, `ipc` a class without replacement: what every method must beat."""

    def initial(self, generator: torch.Generator) -> Tensor:
        return self.problem.dataset.train.images[self.problem.random_rows(generator)]
