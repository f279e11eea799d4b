from __future__ import annotations

import torch
from torch import Tensor

from iadd.methods._base import Selection


class Random(Selection):
    """Random real images, `ipc` a class without replacement: what every method must beat."""

    def rows(self, generator: torch.Generator) -> Tensor:
        return self.problem.random_rows(generator)
