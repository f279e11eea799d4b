from __future__ import annotations

from typing import Literal

from pydantic import Field

from iadd.methods._gradient import GradientMatching, GradientParams


class DCParams(GradientParams):
    """Gradient matching's settings; DC starts from noise."""

    init: Literal["real", "noise"] = Field("noise", description="What the images start from.")


class DC(GradientMatching):
    """Dataset Condensation with Gradient Matching, without augmentation.

    Zhao, Mopuri, Bilen; ICLR 2021; arXiv 2006.05929.
    """

    Params = DCParams
