"""Trajectories of which a few way-points are kept: what lies between them is on straight lines.

MCT (Zhong et al.: Towards Stable and Storage-efficient Dataset Distillation: Matching Convexified
Trajectory, arXiv 2406.19827): between way-points a and b, tensor l is
`(1 - beta_l(t)) theta_a,l + beta_l(t) theta_b,l`, where beta_l(t) is the length of the path that
the tensor went from a to t over that from a to b. So t may be any real number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def path_lengths(trajectory: Tensor, sizes: Sequence[int]) -> Tensor:
    """Length of each tensor's path up to each epoch, float64 (E + 1, T), of parameters (E + 1, P).

    The path is the polygon through the epochs; sizes: numbers of parameters of the T tensors.
    """
    steps = [
        torch.stack([part.double().norm() for part in (after - before).split(list(sizes))])
        for before, after in pairwise(trajectory)
    ]
    return torch.stack([torch.zeros(len(sizes), dtype=torch.float64), *steps]).cumsum(0)


def shares(lengths: Tensor, waypoints: Sequence[int], epoch: float) -> tuple[int, Tensor]:
    """Between which way-points an epoch lies, k and k + 1, and beta (T,) of each tensor there.

    lengths: from `path_lengths`; waypoints: epochs, ascending. A path between two epochs is gone at
    an even pace; a tensor that does not move between the way-points has beta 0.
    """
    k = max(i for i, start in enumerate(waypoints[:-1]) if start <= epoch)
    below = min(math.floor(epoch), len(lengths) - 2)
    gone = torch.lerp(lengths[below], lengths[below + 1], epoch - below)
    start, end = lengths[waypoints[k]], lengths[waypoints[k + 1]]
    return k, (gone - start) / (end - start).clamp(min=torch.finfo(torch.float64).tiny)
