from __future__ import annotations

import torch
from torch import Tensor

from iadd.methods._base import Method


class Whole(Method):
    """All the real training data: the ceiling. It has no ipc; its runs carry ipc 0."""

    def labels(self) -> Tensor:
        return self.problem.dataset.train.labels

    def initial(self, generator: torch.Generator) -> Tensor:
        return self.problem.dataset.train.images
