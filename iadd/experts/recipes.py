"""Expert recipes: how experts are trained and stored, as named settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Recipe(BaseModel):
    """How experts are trained and stored; with `rho` by sharpness-aware steps (GSAM)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_size: float = Field(0.01, gt=0, description="Learning rate (SGD).")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
    batch: int = Field(256, ge=1, description="Batch size.")
    rho: float = Field(
        0.0, ge=0, le=1, description="Size of GSAM's adaptive perturbation; 0: plain SGD."
    )
    alpha: float = Field(0.0, ge=0, le=10, description="Weight of GSAM's surrogate gap.")
    augmentation: bool = Field(True, description="Train with the data set's augmentation families.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Float type of the stored snapshots."
    )
    imported: str | None = Field(
        None,
        description="Checksum of the replay buffers, where others trained these experts; "
        "`iadd experts CONFIG --import FOLDER` tells and reads them. The other settings are then "
        "theirs, as far as they are known.",
    )
    waypoints: tuple[int, ...] | None = Field(
        None,
        min_length=2,
        description="Epochs whose parameters are kept, from 0 to the last; what lies between is on "
        "straight lines (MCT); none: all epochs.",
    )

    @field_validator("waypoints")
    @classmethod
    def _ascending(cls, epochs: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if epochs and (epochs[0] != 0 or list(epochs) != sorted(set(epochs))):
            raise ValueError(f"{list(epochs)}: allowed are ascending epochs from 0 on")
        return epochs


RECIPES = {
    # Cazenavette et al., CVPR 2022, arXiv 2203.11932.
    "standard": Recipe(),
    # FTD's flat trajectories: Du et al., CVPR 2023, arXiv 2211.11004, appendix; alpha is that of
    # CIFAR-10 at ipc 1 and 10 (1 elsewhere).
    "flat": Recipe(rho=0.01, alpha=0.3),
    # Experts that learn slowly, to be stopped early: arXiv 2406.10485, CIFAR-10.
    "slow": Recipe(step_size=5e-4),
    # MCT: Zhong et al., arXiv 2406.19827, its code.
    "waypoints": Recipe(waypoints=(0, 6, 25, 50)),
}
"""Recipes by the name under which a method asks for its experts."""


def named_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A named recipe with some settings of one's own; ValueError for an unknown name or value."""
    if name not in RECIPES:
        raise ValueError(f"unknown expert recipe {name!r}; known: {', '.join(RECIPES)}")
    return Recipe(**(RECIPES[name].model_dump() | dict(changes or {})))
