from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from iadd.methods._base import Gradients
from iadd.methods._trajectory import Trajectory, TrajectoryParams


class TESLAParams(TrajectoryParams):
    """MTT's settings and the scale of the released code."""

    released_scale: bool = Field(
        False, description="Halve the image gradient, as the released code does, not the paper."
    )


class TESLA(Trajectory):
    """Scaling Up Dataset Distillation to ImageNet-1K: MTT by a truncated gradient.

    Cui, Wang, Si, Hsieh; ICML 2023; arXiv 2211.10586: with theta_J = theta_0 - alpha sum_j g_j and
    MTT's loss L, dL/dx = -alpha sum_j (dg_j/dx)^T dL/dtheta_J with every theta_j constant, and
    dL/dalpha = -<sum_j g_j, dL/dtheta_J>: how a step moves later ones is left out.
    Differs: hard labels only (the paper's ImageNet runs have an expert's), and the engine keeps the
    states, so that memory is as MTT's here.
    """

    Params = TESLAParams
    truncated = True

    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients:
        found = super().gradients(iteration, variables, generator)
        if not self.params.released_scale:
            return found
        # Its `2 * torch.autograd.grad(...)` repeats a tuple instead of doubling the gradient.
        return replace(found, by=dict(found.by) | {"images": found.by["images"] / 2})
