"""An entry of `datasets` in a benchmark's file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from iadd.augment import FAMILIES
from iadd.data import DATASETS
from iadd.data.catalog import BUILT_IN
from iadd.data.raw import NEEDS_ROOT, RESOLUTIONS
from iadd.pipeline.config.file import Section

LABEL = r"^[A-Za-z0-9_][A-Za-z0-9_.]{0,63}$"
"""Of what becomes part of a path: it cannot lead out of results/<benchmark>/."""


class DatasetConfig(Section):
    """One data set and how it is read."""

    name: str = Field(description="One of the data sets above; `folder` or `arrays`: your images.")
    label: str | None = Field(
        None,
        pattern=LABEL,
        description="Name in tables and paths; default: `name`.",
    )
    root: str | None = Field(
        None,
        description="Folder of the files; digits and blobs need none; for `arrays` also a file.",
    )
    resolution: int | None = Field(
        None,
        description=f"Side in pixels that images are resized to, {RESOLUTIONS[0]} to "
        f"{RESOLUTIONS[1]}; default: as they are, 128 for ImageNet's subsets, 112 for `covid19`.",
    )
    channels: Literal[1, 3] | None = Field(
        None,
        description="1 grey or 3 colour, for your own images and `covid19`; default: as found.",
    )
    zca: bool = Field(False, description="ZCA whitening instead of mean and standard deviation.")
    mean: tuple[float, ...] | None = Field(
        None,
        description="Of pixels in [0, 1], a number a channel, as a published result normalised; "
        "default: of the training images.",
    )
    std: tuple[float, ...] | None = Field(None, description="The same; with `mean` only.")
    augmentation: tuple[str, ...] | None = Field(
        None, description=f"Families of {', '.join(FAMILIES)}; default: the data set's own."
    )
    validation_fraction: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Share of the training images cut off for validation; default: 0.1, about "
        "0.15 for `digits`.",
    )
    download: bool = Field(False, description="Let torchvision download the files into `root`.")
    ipc: tuple[int, ...] | None = Field(
        None, min_length=1, description="Which of the benchmark's ipc run on it; default: all."
    )
    groups: str | None = Field(
        None,
        description="What is never cut apart, like a patient's images: a CSV file with columns "
        "`file` (relative to `root`) and `group`; for `arrays` the array's or column's name.",
    )
    positive: str | None = Field(
        None, description="The class whose sensitivity and specificity stand in the tables."
    )

    published: str | None = Field(
        None,
        description="The data set of the literature that these files are, whose published values "
        "stand beside the measured ones; default: `name`.",
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DATASETS:
            raise ValueError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
        return name

    @field_validator("augmentation")
    @classmethod
    def _families(cls, families: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for family in families or ():
            if family not in FAMILIES:
                raise ValueError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
        return families

    @model_validator(mode="after")
    def _placed(self) -> DatasetConfig:
        if self.root is None and self.name not in BUILT_IN:
            raise ValueError(f"{self.key}: {NEEDS_ROOT}")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """What its tensors depend on, beside what the files hold, wherever they lie."""
        elsewhere = {"root", "groups", "download", "label", "ipc", "positive", "published"}
        found = self.model_dump(mode="json", exclude=elsewhere)
        return {k: v for k, v in found.items() if k not in ("mean", "std") or v is not None}

    @property
    def key(self) -> str:
        """The name in tables and paths."""
        return self.label or self.name

    @property
    def published_name(self) -> str:
        """The data set whose published values stand beside."""
        return self.published or self.name
