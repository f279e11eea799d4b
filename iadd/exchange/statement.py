"""What is said of a set's numbers, by its form or by its user, and the set that follows from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from iadd.artifacts import parsing, read_content, regular
from iadd.data import Dataset, Transform
from iadd.synthetic import SyntheticSet

NO_LABELS = (torch.bool, torch.complex64, torch.complex128)
CERTAIN = 1e-30  # Least probability that becomes a logit: zero would become minus infinity.


@dataclass(frozen=True, eq=False)
class Statement:
    """What is said of a set's numbers; None where nothing is.

    `transform`: how the images are normalised, or "pixels" in [0, 1] where they are not.
    `class_names`: what the labels 0, 1, ... stand for. `probabilities`: whether soft labels are
    probabilities, else logits. `step_size`: the learning rate that was learned along.
    """

    transform: Transform | Literal["pixels"] | None = None
    class_names: tuple[str, ...] | None = None
    probabilities: bool | None = None
    step_size: float | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """A set as its form holds it: images and labels unchanged, and what the form says of them."""

    images: Tensor
    labels: Tensor | None  # None: sorted by class, equally many each
    says: Statement
    spec: Mapping[str, Any]


def state(
    dataset: Dataset,
    *,
    pixels: bool = False,
    mean: str | None = None,
    std: str | None = None,
    zca: bool = False,
    classes: str | None = None,
    probabilities: bool | None = None,
    step_size: float | None = None,
) -> Statement:
    """A statement in the words of the command line.

    Args:
        mean, std: one number a channel, or one for all, separated by commas.
        zca: images are whitened as `dataset` is.
        classes: names separated by commas, a file with a name a line, or "same": as in `dataset`.

    Raises:
        ValueError: one line for words that contradict each other or do not fit the data set.
    """
    ways = {"--pixels": pixels, "--mean and --std": mean or std, "--zca": zca}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: only one of them can be true")
    transform: Transform | Literal["pixels"] | None = "pixels" if pixels else None
    if bool(mean) != bool(std):
        raise ValueError("--mean and --std: give both, or neither")
    if mean and std:
        values = [_numbers(name, text, dataset) for name, text in (("mean", mean), ("std", std))]
        transform = Transform("standard", mean=values[0], std=values[1])
    elif zca:
        transform = dataset.transform
        if transform.kind != "zca":
            raise ValueError(f"--zca: {dataset.title} is not whitened here, its zca is off")
    return Statement(transform, _names(classes, dataset), probabilities, step_size)


def _numbers(name: str, text: str, dataset: Dataset) -> Tensor:
    words = text.split(",")
    words = words * dataset.channels if len(words) == 1 else words
    try:
        values = torch.tensor([float(word) for word in words])
    except ValueError:
        values = torch.full((1,), torch.nan)
    sound = bool(values.isfinite().all()) and (name == "mean" or bool((values > 0).all()))
    if len(values) != dataset.channels or not sound:
        kind = "number" if name == "mean" else "positive number"
        allowed = f"a {kind} for each of {dataset.channels} channels, or one for all"
        raise ValueError(f"--{name} {text}: allowed is {allowed}")
    return values


def _names(classes: str | None, dataset: Dataset) -> tuple[str, ...] | None:
    if classes is None or classes == "same":
        return None if classes is None else dataset.class_names
    if os.path.isfile(classes):  # noqa: PTH113 - Path's raises for names too long for a file
        content = read_content(classes)
        with parsing(classes, "UTF-8 text"):
            lines = content.decode("utf-8-sig").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    names = tuple(word.strip() for word in classes.split(","))
    if len(names) == 1 and names != dataset.class_names:
        allowed = "names with commas, a file with a name a line, or same"
        raise ValueError(f"--classes {classes}: no such file; allowed are {allowed}")
    return names


def settled(found: Found, dataset: Dataset, said: Statement, where: Path) -> SyntheticSet:
    """The distilled set that a form holds, checked against the data set that it stands for."""
    says = found.says
    numbers = "--pixels, --mean and --std, or --zca"
    transform = _one(
        where, "how its images are normalised", numbers, says.transform, said.transform
    )
    names = _one(
        where, "which classes its labels are", "--classes", says.class_names, said.class_names
    )
    soft = found.labels is not None and found.labels.ndim == 2
    what, options = "what its soft labels are", "--probabilities or --logits"
    if said.probabilities is not None and not soft:
        raise ValueError(f"{where}: its labels are classes; leave {options} out")
    claimed = says.probabilities, said.probabilities
    probable = soft and _one(where, what, options, *claimed)
    images = _images(found.images, dataset, where, transform == "pixels")
    labels = _labels(found.labels, len(images), len(names), probable, where)
    rate = says.step_size if said.step_size is None else said.step_size
    own = dataset.transform if transform == "pixels" else transform
    spec = dict(found.spec)
    return fitted(SyntheticSet(images, labels, own, names, rate, spec), dataset, where)


def _one(where: Path, what: str, options: str, form: Any, user: Any) -> Any:
    """What either the form or its user says; never both, never neither."""
    if form is None and user is None:
        raise ValueError(f"{where}: does not say {what}; give iadd import {options}")
    if form is not None and user is not None:
        raise ValueError(f"{where}: says itself {what}; leave {options} out")
    return user if form is None else form


def _images(images: Tensor, dataset: Dataset, where: Path, pixels: bool) -> Tensor:
    images = images.detach()
    if images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == 1:
        images = images.expand(-1, dataset.channels, -1, -1)  # grey pictures of coloured data
    if images.ndim != 4 or not (images.is_floating_point() or images.dtype == torch.uint8):
        shown = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"{where}: its images are {shown}; allowed are numbers (N, C, H, W)")
    _same_size(images, dataset, where)
    if images.dtype == torch.uint8:
        if not pixels:
            raise ValueError(f"{where}: its images are whole numbers of 8 bits, which are --pixels")
        images = images.float() / 255
    images = images.float()
    if not len(images) or not images.isfinite().all():
        raise ValueError(f"{where}: its images have NaN or infinite values, or there are none")
    if pixels and not 0 <= float(images.mean()) <= 1:
        mean = float(images.mean())
        raise ValueError(f"{where}: the mean of its images is {mean:.4g}; pixels are in [0, 1]")
    return dataset.transform.apply(images) if pixels else images


def _labels(labels: Tensor | None, count: int, classes: int, probable: bool, where: Path) -> Tensor:
    """Hard labels int64 (N,) or logits float32 (N, K)."""
    if labels is None:
        if count % classes:
            raise ValueError(f"{where}: {count} images are not equally many for {classes} classes")
        return torch.arange(classes).repeat_interleave(count // classes)
    labels, shape = labels.detach(), tuple(labels.shape)
    soft = labels.is_floating_point()
    if shape != ((count, classes) if soft else (count,)) or labels.dtype in NO_LABELS:
        allowed = f"whole numbers ({count},) or soft labels ({count}, {classes})"
        raise ValueError(f"{where}: its labels are {labels.dtype} {shape}; allowed are {allowed}")
    if not soft:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"{where}: labels go from {low} to {high}; allowed are 0..{classes - 1}"
            )
        return labels.long()
    labels = labels.float()
    if not labels.isfinite().all():
        raise ValueError(f"{where}: its labels have NaN or infinite values")
    if not probable:
        return labels
    sums = labels.double().sum(1)
    if float(labels.min()) < 0 or float((sums - 1).abs().max()) > 1e-3:
        shown = f"between {float(sums.min()):.4g} and {float(sums.max()):.4g}"
        raise ValueError(f"{where}: its labels are no probabilities: they add up to {shown}")
    return labels.clamp(min=CERTAIN).log()


def fitted(distilled: SyntheticSet, dataset: Dataset, where: str | Path) -> SyntheticSet:
    """A set with its labels in the order of a data set's classes, found by their names.

    Raises:
        ValueError: one line with both sides: other classes, channels, side, or rows of other data.
    """
    own, theirs = dataset.class_names, distilled.class_names
    if sorted(own) != sorted(theirs):
        sides = f"{_told(theirs)} are not those of {dataset.title}: {_told(own)}"
        raise ValueError(f"{where}: its classes {sides}")
    _same_size(distilled.images, dataset, where)
    distilled.images_of(dataset, where)  # raises where its rows are not of these data
    _check_use(distilled, where)
    order = torch.tensor([own.index(name) for name in theirs])  # their label -> ours
    labels = distilled.labels
    if labels.ndim == 1:
        labels = order[labels]
    else:
        labels = torch.empty_like(labels).index_copy_(1, order, labels)
    states = tuple(fitted(state, dataset, where) for state in distilled.states)
    return replace(distilled, labels=labels, class_names=own, states=states)


def _check_use(distilled: SyntheticSet, where: str | Path) -> None:
    """Refuse a transform that does not belong to the images, and a step size that is none."""
    try:
        some = distilled.images[:1]
        seen = torch.cat([distilled.transform.apply(some), distilled.transform.invert(some)])
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{where}: its transform does not fit its images ({reason})") from None
    if not bool(seen.isfinite().all()):
        raise ValueError(f"{where}: its transform has NaN or infinite values")
    rate = distilled.step_size
    if rate is not None and not 0 < rate < 1e30:
        raise ValueError(f"{where}: its step size is {rate}; allowed is a positive number")


def _same_size(images: Tensor, dataset: Dataset, where: str | Path) -> None:
    size = (dataset.channels, dataset.resolution, dataset.resolution)
    if tuple(images.shape[1:]) != size:
        sides = ["x".join(map(str, side)) for side in (images.shape[1:], size)]
        raise ValueError(f"{where}: its images are {sides[0]}, those of {dataset.title} {sides[1]}")


def _told(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + f", ... ({len(names)})" * (len(names) > 10)


def checksum(path: Path) -> str:
    """SHA-256 (hex) of a file's content, whatever it is called and wherever it lies."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# What our own forms say of themselves, as plain data and tensors.


def described(distilled: SyntheticSet, probabilities: bool = False) -> dict[str, Any]:
    """Plain data that say what a set's numbers are; beside them go `transform.tensors()`."""
    return {
        "class_names": list(distilled.class_names),
        "labels": "probabilities" if probabilities else distilled.label_kind,
        "step_size": distilled.step_size,
        "transform": distilled.transform.kind,
    }


def read_description(about: Any, tensors: Mapping[str, Tensor], where: Path) -> Statement:
    """The statement that `described` made; ValueError of one line for anything else."""
    with parsing(where, "description of a distilled set"):
        rate, names = about["step_size"], about["class_names"]
        if not isinstance(names, list):
            raise ValueError("class_names is no list")
        return Statement(
            Transform.from_tensors(about["transform"], tensors),
            tuple(map(str, names)),
            about["labels"] == "probabilities",
            None if rate is None else float(rate),
        )
