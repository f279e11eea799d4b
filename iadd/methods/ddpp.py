from __future__ import annotations

from pydantic import Field
from torch import Tensor

from iadd.methods._pruning import Pruning
from iadd.methods._trajectory import TrajectoryParams


class DDPPParams(TrajectoryParams):
    """MTT's settings and the pruned share."""

    pruned: float = Field(
        0.1, ge=0, lt=1, description="Share q of parameters, the hardest to match, left out."
    )


class DDPP(Pruning):
    """Dataset Distillation Using Parameter Pruning: MTT without the hard-to-match parameters.

    Li, Togo, Ogawa, Haseyama; IEICE Trans. Fundamentals E107-A(6), 2024; arXiv 2209.14609.
    A reconstruction: the paper prunes by a similarity threshold; here the share q with the largest
    residual (s - t)^2 leaves numerator and denominator, anew in every outer iteration.
    """

    Params = DDPPParams
    reconstruction = True
    space = Pruning.space | {"pruned": ("uniform", 0.0, 0.5)}

    def left_out(self, residual: Tensor, count: int) -> Tensor:
        return residual.topk(count).indices
