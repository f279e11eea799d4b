from __future__ import annotations

import torch
from torch import Tensor

from iadd.methods._selection import TrainedSelection


class Herding(TrainedSelection):
    """Herding: keep the mean of the chosen features closest to the class mean.

    Welling, ICML 2009; as a coreset: Rebuffi et al., CVPR 2017, arXiv 1611.07725, algorithm 4.
    """

    def choose(self, observed: Tensor) -> Tensor:
        mean, total = observed.mean(0), torch.zeros_like(observed[0])
        free = torch.ones(len(observed), dtype=torch.bool)
        chosen: list[int] = []
        for k in range(1, self.problem.ipc + 1):
            distance = (mean - (observed + total) / k).norm(dim=1)  # (n,)
            best = int(distance.where(free, torch.inf).argmin())
            chosen.append(best)
            free[best] = False
            total = total + observed[best]
        return torch.tensor(chosen)
