from __future__ import annotations

from pydantic import Field
from torch import Tensor

from iadd.methods._pruning import Pruning
from iadd.methods._trajectory import TrajectoryParams


class PADParams(TrajectoryParams):
    """MTT's settings and the pruned share."""

    pruned: float = Field(
        0.25, ge=0, lt=1, description="Share q of parameters, the easiest to match, left out."
    )


class PAD(Pruning):
    """Prioritize Alignment in Dataset Distillation: MTT without the easy-to-match parameters.

    Li, Guo, Zhao, Zhang, et al., 2024; arXiv 2408.03360: the share q with the smallest residual
    (s - t)^2 leaves numerator and denominator, the opposite of `ddpp`.
    Differs: the loss alone on MTT's loop with hard labels, as a control for `ddpp` and `iadd`; the
    paper has DATM's loop, learned labels and experts trained on easy images first.
    """

    Params = PADParams
    space = Pruning.space | {"pruned": ("uniform", 0.0, 0.75)}

    def left_out(self, residual: Tensor, count: int) -> Tensor:
        return residual.topk(count, largest=False).indices
