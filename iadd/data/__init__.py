"""Named datasets as normalised tensors, split for honest work.

Train and validation are loaded; the test split is opened by `open_test` alone, which only the
evaluation calls. torchvision, scikit-learn and Pillow are imported by the readers that need them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from iadd.augment import FAMILIES
from iadd.data.folder import LARGEST
from iadd.data.sources import READERS, Raw, Source, read, stratified
from iadd.data.transform import Transform, fit

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "FAMILIES",
    "Dataset",
    "Source",
    "Split",
    "Transform",
    "load_dataset",
    "open_test",
]

DATASETS = tuple(READERS)
RESOLUTIONS = (8, LARGEST)  # pixels a side
ALLOWED = f"{RESOLUTIONS[0]} to {RESOLUTIONS[1]} pixels are allowed"

_UNMIRRORED = ("color", "crop", "cutout", "scale", "rotate")
AUGMENTATIONS: dict[str, tuple[str, ...]] = {
    # A mirrored digit is no digit. At 8x8 a cutout of half the side takes the stroke away, and
    # brightness, contrast and saturation add little to grey values of one scanner.
    "digits": ("crop", "scale", "rotate"),
    # The place is the class: nothing that moves it across the middle.
    "blobs": ("crop", "scale"),
    "mnist": _UNMIRRORED,
    "svhn": _UNMIRRORED,
    "fashionmnist": FAMILIES,  # Clothes may be mirrored,
    "cifar10": FAMILIES,  # and so may animals and vehicles.
    "cifar100": FAMILIES,
    # Unknown images: X-rays must not be mirrored (the heart is on the left), photographs may.
    "folder": _UNMIRRORED,
}


@dataclass(frozen=True, eq=False)
class Split:
    """Normalised images (N, C, H, W) float32 and their labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The split on a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset's train and validation splits under one transform; the test split is not here.

    `augmentations`: the augmentation families that leave a label true, a choice of `FAMILIES`.
    `fingerprint`: SHA-256 of the raw arrays of both splits, of class names, resolution and kind
    of transform: the identity of the data in specs.
    `source`: what `open_test` needs to read the test split.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    transform: Transform
    augmentations: tuple[str, ...]
    fingerprint: str
    source: Source

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of an image: 1 (grey) or 3."""
        return self.train.images.shape[1]

    @property
    def resolution(self) -> int:
        """Pixels on a side; images are square."""
        return self.train.images.shape[-1]

    @cached_property
    def class_rows(self) -> tuple[Tensor, ...]:
        """For each class, its rows in `train`, ascending: (n,) int64 each, on the CPU."""
        labels = self.train.labels.cpu()
        return tuple((labels == c).nonzero()[:, 0] for c in range(self.classes))

    def to(self, device: torch.device) -> Dataset:
        """The dataset with its images and labels on a device; its transform stays on the CPU."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))

    def under(self, transform: Transform) -> Dataset:
        """Return the dataset under another transform, e.g. that of a foreign distilled set."""
        train, validation = (
            Split(transform.apply(self.transform.invert(split.images)), split.labels)
            for split in (self.train, self.validation)
        )
        return replace(self, train=train, validation=validation, transform=transform)


def load_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    resolution: int | None = None,
    channels: int | None = None,
    zca: bool = False,
    augmentations: tuple[str, ...] | None = None,
    validation_fraction: float | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    download: bool = False,
    transform: Transform | None = None,
) -> Dataset:
    """Load a dataset's train and validation splits, normalised by what train alone says.

    Args:
        name: one of `DATASETS`.
        root: folder of the data; not needed for digits and blobs.
        resolution: pixels a side, 8 to 256; None: as the images are.
        channels: 1 or 3, for `folder`; None: 1 where all images are grey.
        zca: whiten instead of mean/std normalisation.
        augmentations: families instead of the dataset's own (`AUGMENTATIONS`).
        validation_fraction: share of the training part, 0 to 0.5, held out by class; 0 leaves the
            validation split empty; None: 200 images of digits, 0.1 elsewhere.
        test_fraction: share cut as test from a `folder` without a test folder. That cut, and
            digits' and blobs', is fixed: `seed` moves no image into or out of a test set.
        seed: of the validation cut.
        download: let torchvision fetch missing files into `root`.
        transform: one fitted before, instead of fitting (ZCA of 3,072 features takes most of a
            minute on two cores).

    Raises:
        ValueError: one line naming the argument or file, its value and what is allowed.
    """
    families = AUGMENTATIONS.get(name, ()) if augmentations is None else tuple(augmentations)
    if validation_fraction is None:
        validation_fraction = 200 / 1347 if name == "digits" else 0.1
    _check(name, families, resolution, validation=validation_fraction, test=test_fraction)
    place = None if root is None else Path(root)
    source = Source(name, place, resolution, channels, test_fraction, download)
    raw = read(source, "train")
    height, width = raw.images.shape[2:]
    if resolution is None and (height != width or not RESOLUTIONS[0] <= width <= RESOLUTIONS[1]):
        raise ValueError(f"{name}: images are {width}x{height}; give a resolution, {ALLOWED}")
    parts = stratified(raw.labels, round(validation_fraction * len(raw.labels)), seed)
    train, validation = (raw.rows(rows) for rows in parts)
    pixels = _pixels(train, resolution)
    transform = transform or fit("zca" if zca else "standard", pixels)
    return Dataset(
        name=name,
        class_names=raw.class_names,
        train=_split(train, transform, pixels),
        validation=_split(validation, transform, _pixels(validation, resolution)),
        transform=transform,
        augmentations=families,
        fingerprint=_fingerprint(train, validation, pixels.shape[-1], transform),
        source=source.like(channels=pixels.shape[1], resolution=pixels.shape[-1]),
    )


def _check(name: str, families: tuple[str, ...], resolution: int | None, **shares: float) -> None:
    for family in families:
        if family not in FAMILIES:
            raise ValueError(f"augmentations: unknown {family!r}; known: {', '.join(FAMILIES)}")
    if resolution is not None and not RESOLUTIONS[0] <= resolution <= RESOLUTIONS[1]:
        raise ValueError(f"{name}: resolution {resolution} does not fit, {ALLOWED}")
    for key, share in shares.items():
        if not 0 <= share <= 0.5:
            raise ValueError(f"{name}: {key}_fraction is {share}, must be in 0..0.5")


def open_test(dataset: Dataset, transform: Transform | None = None) -> Split:
    """Read a dataset's test split: for the evaluation alone, once the choice is made.

    Args:
        transform: that of the distilled set under evaluation; None: the dataset's own.
    """
    raw = read(dataset.source, "test")
    if not len(raw.labels):
        raise ValueError(f"{dataset.name}: has no test images; raise test_fraction")
    pixels = _pixels(raw, dataset.source.resolution)
    return _split(raw, transform or dataset.transform, pixels)


def _pixels(raw: Raw, resolution: int | None) -> Tensor:
    """Raw values to pixels (N, C, R, R) float32 in [0, 1]."""
    pixels = torch.from_numpy(raw.images).float().div_(raw.scale)
    if resolution is None or pixels.shape[-1] == resolution or not len(pixels):
        return pixels
    size = (resolution, resolution)
    resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    return resized.clamp_(0, 1)


def _split(raw: Raw, transform: Transform, pixels: Tensor) -> Split:
    return Split(transform.apply(pixels), torch.from_numpy(raw.labels.copy()))


def _fingerprint(train: Raw, validation: Raw, resolution: int | None, transform: Transform) -> str:
    digest = hashlib.sha256()
    digest.update(repr((train.class_names, train.scale, resolution, transform.kind)).encode())
    for raw in (train, validation):
        for array in (raw.images, raw.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
