"""Distilled sets that others made: image folders and the `.pt` files of the field's code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iadd.artifacts import source_hash
from iadd.data import Transform
from iadd.data.folder import files_of
from iadd.data.images import decode
from iadd.synthetic import TENSORS, SyntheticSet


def import_folder(
    folder: str | Path,
    transform: Transform,
    *,
    channels: int | None = None,
    resolution: int | None = None,
    step_size: float | None = None,
) -> SyntheticSet:
    """Read a distilled set from a folder: an exported one exactly, any other from its images.

    Args:
        transform: applied to the pixels; an exported folder brings its own.
        channels, resolution: of the images, as for the dataset `folder`.
        step_size: the learning rate to train with, if known.
    """
    folder = Path(folder)
    if (folder / TENSORS).exists():
        return SyntheticSet.load(folder / TENSORS)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of images")
    tree = files_of(folder)
    decoded = decode(tree.files, channels, resolution)
    low, high = decoded.low, decoded.high
    pixels = torch.from_numpy(decoded.images).float().sub_(low).div_(high - low)
    return SyntheticSet(
        images=transform.apply(pixels),
        labels=torch.from_numpy(tree.labels),
        transform=transform,
        class_names=tree.class_names,
        step_size=step_size,
        spec={"imported": "folder", "folder": folder.name, "sha256": source_hash(tree.files)},
    )


def import_torch(
    path: str | Path,
    transform: Transform,
    class_names: Sequence[str],
    *,
    labels: str | Path | None = None,
    step_size: float | None = None,
) -> SyntheticSet:
    """Read a foreign distilled set from a `.pt` file, by `torch.load(weights_only=True)` alone.

    Understood: a tensor of images; a pair (images, labels); a mapping with `images` and `labels`;
    a mapping whose `data` is a list of such pairs (the last one is taken), as DC, DSA and DM save.

    Args:
        transform: that by which the images are normalised; the literature's values are often not
            those of our split.
        labels: a `.pt` file of labels, hard (N,) or soft (N, K). Without labels anywhere, images
            are taken to be sorted by class, equally many each, as MTT saves them.
        step_size: the learned learning rate; None: the mapping's `step_size` or `syn_lr`, if any.

    Raises:
        ValueError: one line for a file that is unreadable, would run code, or holds no such set.
    """
    stored = _foreign(Path(path))
    if isinstance(stored, Mapping) and isinstance(stored.get("data"), list) and stored["data"]:
        stored = stored["data"][-1]
    found: Any = None
    if isinstance(stored, Mapping):
        rate = stored.get("step_size", stored.get("syn_lr"))
        step_size = float(rate) if step_size is None and rate is not None else step_size
        images, found = stored.get("images"), stored.get("labels")
    elif isinstance(stored, list | tuple) and len(stored) == 2:
        images, found = stored
    else:
        images = stored
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise ValueError(f"{path}: holds no images, a tensor (N, C, H, W)")
    images = images.detach().float()
    if not images.isfinite().all():
        raise ValueError(f"{path}: images have NaN or infinite values")
    found = _foreign(Path(labels)) if labels is not None else found
    return SyntheticSet(
        images=images,
        labels=_labels(found, len(images), len(class_names), path),
        transform=transform,
        class_names=tuple(class_names),
        step_size=step_size,
        spec={"imported": "torch", "file": Path(path).name, "sha256": source_hash([path])},
    )


def _labels(found: Any, count: int, classes: int, path: str | Path) -> Tensor:
    if found is None:
        if count % classes:
            raise ValueError(
                f"{path}: has no labels, and {count} images are not equally many for {classes} "
                "classes; give labels"
            )
        return torch.arange(classes).repeat_interleave(count // classes)
    if not isinstance(found, Tensor):
        raise ValueError(f"{path}: labels are no tensor but {type(found).__name__}")
    return found.detach().float() if found.ndim == 2 else found.detach().long()


def _foreign(path: Path) -> Any:
    # Sets of DC, DSA and DM hold accuracies beside the images: the pieces of a numpy number.
    scalar: Any = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
    try:
        with torch.serialization.safe_globals([scalar, *numbers]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except Exception as error:  # Unpickling foreign bytes raises nearly anything.
        kind = type(error).__name__
        raise ValueError(f"{path}: damaged, or holds more than plain tensors ({kind})") from error
