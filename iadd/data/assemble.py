"""Both parts of a source read, checked, cut by content and put in order, ready to be normalised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iadd.data.about import About
from iadd.data.cuts import cut, fingerprint, ordered
from iadd.data.dataset import Split
from iadd.data.raw import ALLOWED, RESOLUTIONS, Labels, Progress, Raw, Source
from iadd.data.sources import read
from iadd.data.transform import Transform, check_features, pieces

UNEVEN = 1.5  # The largest class over the smallest, from which accuracy alone misleads.


class Pixels:
    """Chosen rows of what was read, by label and content, as pixels float32 made when sliced.

    `shape`: (n, C, R, R). Values of the training images lie in [0, 1].
    """

    def __init__(self, raw: Raw, rows: Labels, resolution: int) -> None:
        rows = rows[ordered(raw.digests[rows], raw.labels[rows])]
        self.raw, self.rows, self.resolution = raw, rows, resolution
        self.shape = (len(rows), raw.images.shape[1], resolution, resolution)
        self.labels, self.digests = torch.from_numpy(raw.labels[rows]), raw.digests[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice) -> Tensor:
        pixels = torch.from_numpy(self.raw.images[self.rows[index]]).float()
        if self.raw.low:
            pixels.sub_(self.raw.low)
        pixels.div_(self.raw.high - self.raw.low)
        if pixels.shape[-1] == self.resolution or not len(pixels):
            return pixels
        size = (self.resolution, self.resolution)
        resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        return resized.clamp_(0, 1)

    def pieces(self, transform: Transform) -> Iterator[Tensor]:
        """Normalised images, a few at a time."""
        return map(transform.apply, pieces(self))

    def split(self, transform: Transform) -> Split:
        """All of them in memory."""
        images = torch.empty(self.shape)
        done = 0
        for piece in self.pieces(transform):
            images[done : done + len(piece)] = piece
            done += len(piece)
        return Split(images, self.labels)


def inspect(source: Source, progress: Progress | None = None) -> About:
    """Read and check both parts as `prepare` does, and write nothing: for plans.

    Raises:
        ValueError: one line naming what is wrong and where.
    """
    return assemble(source, progress)[0]


def assemble(source: Source, progress: Progress | None = None) -> tuple[About, dict[str, Pixels]]:
    """Read and check both parts of a source, and cut them; nothing is normalised yet."""
    train = read(source, "train", progress=progress)
    if train is None:
        raise ValueError(f"{source.name}: has no training images")
    side = _resolution(source, train.images)
    test = read(source, "test", like=train, progress=progress)
    rows = np.arange(len(train.labels))
    held = np.zeros(len(rows), dtype=bool)
    if test is None:
        held = cut(train.digests, train.labels, source.test_fraction)
    parts = {
        "test": Pixels(test or train, np.arange(len(test.labels)) if test else rows[held], side)
    }
    rows = rows[~held]
    salt = f"validation {source.seed}"
    held = cut(train.digests[rows], train.labels[rows], source.validation_share, salt)
    parts = {
        "train": Pixels(train, rows[~held], side),
        "validation": Pixels(train, rows[held], side),
        **parts,
    }
    return _about(source, parts), parts


def _resolution(source: Source, images: NDArray[Any]) -> int:
    height, width = images.shape[2:]
    fits = height == width and RESOLUTIONS[0] <= width <= RESOLUTIONS[1]
    if source.resolution is None and not fits:
        raise ValueError(
            f"{source.name}: images are {width}x{height}; give a resolution, {ALLOWED}"
        )
    return source.resolution or width


def _about(source: Source, parts: Mapping[str, Pixels]) -> About:
    names = parts["train"].raw.class_names
    counts = {
        part: tuple(np.bincount(pixels.labels.numpy(), minlength=len(names)).tolist())
        for part, pixels in parts.items()
    }
    for part in ("train", "test"):
        if 0 in counts[part]:
            row = counts[part].index(0)
            there = sum(found[row] for found in counts.values())
            raise ValueError(
                f"{source.name}: class {names[row]!r} has no {part} image: of {there} in "
                "all, too few or all the same, none is left; add images, or leave the class out"
            )
    raw = parts["train"].raw
    kind = "zca" if source.zca else "standard"
    _, *shape = parts["train"].shape
    check_features(kind, prod(shape))
    facts = {
        "class_names": names,
        "shape": shape,
        "transform": kind,
        "values": [raw.low, raw.high],
        "background": raw.background,
    }
    contents = [(pixels.digests, pixels.labels.numpy()) for pixels in parts.values()]
    raws = {id(pixels.raw): pixels.raw for pixels in parts.values()}.values()
    return About(
        name=source.name,
        fingerprint=fingerprint(facts, contents),
        class_names=names,
        counts=counts,
        channels=shape[0],
        resolution=shape[1],
        transform=kind,
        augmentation=source.families,
        values=(raw.low, raw.high),
        remarks=(*(remark for r in raws for remark in r.remarks), *_remarks(parts, counts)),
        left_out=tuple(what for r in raws for what in r.left_out),
    )


def _remarks(parts: Mapping[str, Pixels], counts: Mapping[str, Sequence[int]]) -> Iterator[str]:
    raw = parts["train"].raw
    if raw.background is not None:
        yield f"transparent images are laid on {'white' if raw.background else 'black'}"
    totals = [sum(found) for found in zip(*counts.values(), strict=True)]
    if max(totals) > UNEVEN * min(totals):
        yield (
            f"imbalanced: largest class {max(totals):,}, smallest {min(totals):,}; "
            "read balanced accuracy"
        )
    trained = {row.tobytes() for part in ("train", "validation") for row in parts[part].digests}
    both = sum(row.tobytes() in trained for row in parts["test"].digests)
    if both:
        yield f"{both:,} of {len(parts['test']):,} test images are training images too"
