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
from iadd.data.cuts import cut, digests_of_names, fingerprint, ordered, united
from iadd.data.dataset import Split
from iadd.data.image_rows import unit_range
from iadd.data.raw import ALLOWED, RESOLUTIONS, Labels, Progress, Raw, Source
from iadd.data.sources import read
from iadd.data.transform import PIECE, Transform, check_features, pieces

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
        self.groups = None if raw.groups is None else raw.groups[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice) -> Tensor:
        chosen = self.raw.images[self.rows[index]]
        pixels = torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.float32))
        unit_range(pixels, self.raw.low, self.raw.high)
        if pixels.shape[-1] == self.resolution or not len(pixels):
            return pixels
        size = (self.resolution, self.resolution)
        resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        return resized.clamp_(0, 1)

    def keeps_bytes(self, transform: Transform) -> bool:
        """Whether they are stored as bytes: as they were read, and quickly normalised."""
        return (
            self.raw.images.dtype == np.uint8
            and self.raw.images.shape[-1] == self.resolution
            and transform.kind != "zca"
        )

    def bytes(self) -> Iterator[Tensor]:
        """What was read, a few images at a time."""
        step = max(1, PIECE // prod(self.shape[1:]))
        for start in range(0, len(self), step):
            yield torch.from_numpy(self.raw.images[self.rows[start : start + step]])

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
        raise ValueError(f"{source.title}: has no training images")
    side = _resolution(source, train.images)
    test = read(source, "test", like=train, progress=progress)
    keys = train.digests
    if train.groups is not None:
        keys = united(train.digests, digests_of_names(train.groups))
    rows, share = np.arange(len(train.labels)), source.validation_share
    if test is None:
        held = cut(keys, train.labels, source.test_fraction, least=2 if share else 1)
        tested = Pixels(train, rows[held], side)
        rows = rows[~held]
    else:
        tested = Pixels(test, np.arange(len(test.labels)), side)
    if train.validation is None:
        held = cut(keys[rows], train.labels[rows], share, f"validation {source.seed}")
    elif source.validation_fraction is None:
        held = train.validation
    else:
        raise ValueError(
            f"{source.title}: validation_fraction is {share}, but the set has validation images of "
            "its own; leave it out"
        )
    parts = {
        "train": Pixels(train, rows[~held], side),
        "validation": Pixels(train, rows[held], side),
        "test": tested,
    }
    _check_groups(source, parts)
    channels = parts["train"].shape[1]
    if source.mean is not None and len(source.mean) != channels:
        raise ValueError(
            f"{source.title}: mean and std have {len(source.mean)} numbers, the images "
            f"{channels} channels"
        )
    return _about(source, parts), parts


def _check_groups(source: Source, parts: Mapping[str, Pixels]) -> None:
    """Refuse groups that a set's own parts tear apart."""
    seen: dict[str, str] = {}
    for part, pixels in parts.items():
        for group in {*pixels.groups.tolist()} if pixels.groups is not None else ():
            if seen.setdefault(group, part) != part:
                raise ValueError(
                    f"{source.title}: groups: {group!r} is in the set's own {seen[group]} and "
                    f"{part} part; leave groups out, or put the images into one part"
                )


def _resolution(source: Source, images: NDArray[Any]) -> int:
    height, width = images.shape[2:]
    fits = height == width and RESOLUTIONS[0] <= width <= RESOLUTIONS[1]
    if source.resolution is None and not fits:
        raise ValueError(
            f"{source.title}: images are {width}x{height}; give a resolution, {ALLOWED}"
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
                f"{source.title}: class {names[row]!r} has no {part} image: of {there} in "
                "all, too few or all of one content or group, none is left; add images, or leave "
                "the class out"
            )
    raw = parts["train"].raw
    stated = {} if source.mean is None else {"mean": source.mean, "std": source.std}
    kind = "zca" if source.zca else "standard"
    _, *shape = parts["train"].shape
    check_features(kind, prod(shape), source.title)
    facts = {
        "class_names": names,
        "shape": shape,
        "transform": kind,
        "values": [raw.low, raw.high],
        "background": raw.background,
        **stated,
    }
    contents = [
        (p.digests, p.labels.numpy(), *([] if p.groups is None else [digests_of_names(p.groups)]))
        for p in parts.values()
    ]
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
        notes=tuple(what for r in raws for what in r.notes),
        positive=source.positive,
        label=source.label,
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
    if len(parts["validation"]):
        for name, held in zip(raw.class_names, counts["validation"], strict=True):
            if not held:
                yield f"class {name!r} has no validation image"
    yield from _twice(parts)
    trained = {row.tobytes() for part in ("train", "validation") for row in parts[part].digests}
    both = sum(row.tobytes() in trained for row in parts["test"].digests)
    if both:
        yield f"{both:,} of {len(parts['test']):,} test images are training images too"


def _twice(parts: Mapping[str, Pixels]) -> Iterator[str]:
    """A line if one image stands under several classes."""
    labels: dict[bytes, int] = {}
    twice: dict[bytes, tuple[int, int]] = {}
    for pixels in parts.values():
        for row, label in zip(pixels.digests, pixels.labels.tolist(), strict=True):
            first = labels.setdefault(row.tobytes(), label)
            if first != label:
                twice[row.tobytes()] = first, label
    if twice:
        one, other = (parts["train"].raw.class_names[label] for label in min(twice.values()))
        images = "image stands" if len(twice) == 1 else "images stand"
        yield f"{len(twice):,} {images} under several classes, like {one!r} and {other!r}"
