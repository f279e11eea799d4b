"""A dataset as methods see it: training and validation images; the test split stays closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from iadd.augment import Augmentation
from iadd.data.image_rows import ByteImages, ImageRows
from iadd.data.transform import Transform


@dataclass(frozen=True, eq=False)
class Split:
    """Normalised images (N, C, H, W) float32 and their labels (N,) int64."""

    images: ImageRows
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The split on a device."""
        return Split(self.images.to(device), self.labels.to(device))

    def under(self, transform: Transform, own: Transform) -> Split:
        """The split, whose images are normalised by `own`, as another transform has it."""
        if own.same(transform):
            return self
        if isinstance(self.images, ByteImages):
            there = transform.to(self.images.device)
            return replace(self, images=replace(self.images, transform=there))
        return replace(self, images=transform.apply(own.invert(self.images[:])))

    def pick(self, rows: Tensor) -> ImageRows:
        """The images of rows (n,) on the CPU; not copied where that is all of them in order."""
        everything = torch.equal(rows, torch.arange(len(self)))
        return self.images if everything else self.images[rows]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset's train and validation splits under one transform; the test split is not here.

    `augmentation`: the families that leave a label true. `fingerprint`: SHA-256 (hex), the identity
    of the data in specs. `held_out`: gives the test split under a transform; only `open_test` calls
    it. `positive`: the class that sensitivity and specificity speak of, if one was named. `label`:
    what a benchmark calls the data, if not by their name.

    Images may be memory-mapped: nobody writes into them. They may be bytes (`ImageRows`): what is
    needed of them is taken by rows.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    transform: Transform
    augmentation: Augmentation
    fingerprint: str
    held_out: Callable[[Transform], Split] = field(repr=False)
    positive: str | None = None
    label: str | None = None

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.label or self.name

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of an image: 1 (grey) or 3."""
        return int(self.train.images.shape[1])

    @property
    def resolution(self) -> int:
        """Pixels on a side; images are square."""
        return int(self.train.images.shape[-1])

    @cached_property
    def class_rows(self) -> tuple[Tensor, ...]:
        """For each class, its rows in `train`, ascending: (n,) int64 each, on the CPU."""
        labels = self.train.labels.cpu()
        return tuple((labels == c).nonzero()[:, 0] for c in range(self.classes))

    def to(self, device: torch.device) -> Dataset:
        """The dataset with its images and labels on a device; its transform stays on the CPU."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))


def open_test(dataset: Dataset, transform: Transform | None = None) -> Split:
    """Open a dataset's test split: for the evaluation alone, once the choice is made.

    Args:
        transform: that of the distilled set under evaluation; None: the dataset's own.
    """
    return dataset.held_out(transform or dataset.transform)
