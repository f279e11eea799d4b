"""What is to be read (`Source`) and what was read (`Raw`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from iadd.augment import Augmentation
from iadd.data.catalog import AUGMENTATIONS, DATASETS, OPEN, SIDES

Part = Literal["train", "test"]
Progress = Callable[[int, int, str], None]
Labels = NDArray[np.int64]

RESOLUTIONS = (8, 256)  # pixels a side
NEEDS_ROOT = "needs root, the folder that holds the data"
ALLOWED = f"{RESOLUTIONS[0]} to {RESOLUTIONS[1]} pixels are allowed"


@dataclass(frozen=True)
class Source:
    """All that says which data are read and how they are cut and normalised.

    Args:
        name: one of `DATASETS`.
        label: what messages call it; None: its name.
        root: folder of the data, `~` is expanded; digits and blobs need none.
        resolution: pixels a side, 8 to 256; None: that of `SIDES`, else as the images are.
        channels: 1 or 3, for `OPEN` sets; None: 1 where all training images are grey.
        zca: whiten instead of mean/std normalisation.
        mean, std: of pixels in [0, 1], a number a channel, in place of those of the training
            images: what a published result normalised with.
        validation_fraction: share of the training images, 0 to 0.5, held out for validation; None:
            200 of 1,347 for digits, 0.1 elsewhere.
        test_fraction: share, up to 0.5, cut as test where a set has no test part of its own.
        seed: of the validation cut. It moves no image into or out of a test set.
        download: let torchvision fetch missing files into `root`.
        augmentation: families instead of the dataset's own (`AUGMENTATIONS`).
        positive: the class that sensitivity and specificity speak of; it changes no tensor.
        groups: what belongs together, like the images of a patient, and is never cut apart: a CSV
            file with columns file (relative to `root`) and group; for `arrays` the name of the
            array or column of groups.

    Raises:
        ValueError: one line naming the field, its value and what is allowed.
    """

    name: str
    root: str | Path | None = None
    resolution: int | None = None
    channels: int | None = None
    zca: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    validation_fraction: float | None = None
    test_fraction: float = 0.2
    seed: int = 0
    download: bool = False
    augmentation: tuple[str, ...] | None = None
    positive: str | None = None
    groups: str | Path | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.name not in DATASETS:
            raise ValueError(f"unknown dataset {self.name!r}; known: {', '.join(DATASETS)}")
        for key in ("channels", "groups"):
            if getattr(self, key) is not None and self.name not in OPEN:
                raise ValueError(f"{self.title}: {key} can be set for {', '.join(OPEN)} only")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"{self.title}: channels {self.channels}: allowed are 1 and 3")
        if self.resolution is None:
            object.__setattr__(self, "resolution", SIDES.get(self.name))
        least, most = RESOLUTIONS
        if self.resolution is not None and not least <= self.resolution <= most:
            raise ValueError(f"{self.title}: resolution {self.resolution} does not fit, {ALLOWED}")
        self._check_normalisation()
        if not 0 <= self.validation_share <= 0.5:
            share = self.validation_fraction
            raise ValueError(f"{self.title}: validation_fraction is {share}, must be in 0..0.5")
        if not 0 < self.test_fraction <= 0.5:
            share = self.test_fraction
            raise ValueError(f"{self.title}: test_fraction is {share}, must be above 0, up to 0.5")
        if self.root is not None:
            object.__setattr__(self, "root", Path(self.root).expanduser())
        if self.augmentation is not None:
            object.__setattr__(self, "augmentation", tuple(self.augmentation))
            Augmentation(self.augmentation)

    def _check_normalisation(self) -> None:
        if self.mean is None and self.std is None:
            return
        if self.mean is None or self.std is None or self.zca:
            raise ValueError(f"{self.title}: mean and std go together, and not with zca")
        if len(self.mean) != len(self.std) or not all(0 < value < math.inf for value in self.std):
            raise ValueError(
                f"{self.title}: mean {self.mean}, std {self.std}: a number a channel each, and std "
                "above 0"
            )

    @property
    def title(self) -> str:
        """What messages call it: two folders of images are told apart."""
        return self.label or self.name

    @property
    def folder(self) -> Path:
        """The folder of the data, which this dataset cannot do without."""
        if self.root is None:
            raise ValueError(f"{self.title}: {NEEDS_ROOT}")
        return Path(self.root)

    @property
    def validation_share(self) -> float:
        """The share of the training images that is held out for validation."""
        if self.validation_fraction is not None:
            return self.validation_fraction
        return 200 / 1347 if self.name == "digits" else 0.1

    @property
    def families(self) -> tuple[str, ...]:
        """The augmentation families that leave a label true."""
        return AUGMENTATIONS[self.name] if self.augmentation is None else self.augmentation


@dataclass(frozen=True, eq=False)
class Raw:
    """Images of one part as they were read, in the order in which they were found.

    `images`: (N, C, H, W), integers or floats of values `low`..`high` (of the training images;
    test images may go beyond). `labels`: (N,) int64. `digests`: (N, 32) uint8, the SHA-256 of each
    image's content before it was resized or its channels were changed. `background`: the grey
    value under transparent images, if there are any. `groups`: (N,) names of what must not be cut
    apart. `validation`: (N,) which images the set itself holds out for validation. `remarks`,
    `left_out`, `notes`: as in `About`.
    """

    images: NDArray[Any]
    labels: Labels
    digests: NDArray[np.uint8]
    class_names: tuple[str, ...]
    low: float = 0.0
    high: float = 255.0
    background: int | None = None
    groups: NDArray[np.str_] | None = None
    validation: NDArray[np.bool_] | None = None
    remarks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
