from __future__ import annotations

import torch
from torch import Tensor

from iadd.methods._base import Selection


class Whole(Selection):
    """All the real training data: the ceiling. It has no ipc; its runs carry ipc 0."""

    by_reference = True

    def rows(self, generator: torch.Generator) -> Tensor:
        return torch.arange(len(self.problem.dataset.train))
