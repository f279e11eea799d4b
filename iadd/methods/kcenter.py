from __future__ import annotations

import torch
from torch import Tensor

from iadd.methods._selection import TrainedSelection


class KCenter(TrainedSelection):
    """K-center greedy: repeatedly the image farthest from its nearest chosen one.

    Sener & Savarese, ICLR 2018, arXiv 1708.00489, algorithm 1; the first is the one closest to the
    class mean.
    """

    def choose(self, observed: Tensor) -> Tensor:
        chosen = [int((observed - observed.mean(0)).norm(dim=1).argmin())]
        nearest = (observed - observed[chosen[0]]).norm(dim=1)  # (n,)
        while len(chosen) < self.problem.ipc:
            nearest[chosen] = -1.0  # duplicates of a chosen image come last, itself never
            chosen.append(int(nearest.argmax()))
            nearest = nearest.minimum((observed - observed[chosen[-1]]).norm(dim=1))
        return torch.tensor(chosen)
