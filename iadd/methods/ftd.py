from __future__ import annotations

from pydantic import Field

from iadd.methods._trajectory import Trajectory, TrajectoryParams


class FTDParams(TrajectoryParams):
    """MTT's settings; the average of the images is on."""

    ema: float | None = Field(
        0.9995, ge=0, lt=1, description="Decay of the images' moving average; none: no average."
    )


class FTD(Trajectory):
    """Minimizing the Accumulated Trajectory Error: MTT on flat expert trajectories.

    Du, Jiang, Tan, Zhou, Li; CVPR 2023; arXiv 2211.11004: experts trained with GSAM (recipe
    `flat`), an exponential moving average of the images. Differs as MTT does; the average alone is
    validated and kept.
    """

    Params = FTDParams
    experts = "flat"
