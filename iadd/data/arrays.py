"""Images that lie in arrays: the user's own `.npz` or safetensors, and what MedMNIST publishes.

A file holds `train_images` and `train_labels` and may hold the same of `val` and `test`. Nothing is
unpickled, and both byte orders give the same data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iadd.artifacts import open_npz, parsing, regular, words_of
from iadd.data.cuts import digest
from iadd.data.images import TOGETHER, depth
from iadd.data.parquet import read_parquet, shards_of
from iadd.data.raw import Labels, Part, Progress, Raw, Source

Array = NDArray[Any]
SUFFIXES = (".npz", ".safetensors")
KEYS = "train_images, train_labels and, as far as there are, the same of val and test"


def arrays(
    source: Source, part: Part, like: Raw | None = None, progress: Progress | None = None
) -> Raw | None:
    """The user's own arrays: one `.npz` or `.safetensors` file, or Parquet shards of images."""
    root = source.folder
    files = [root] if root.is_file() else sorted(f for s in SUFFIXES for f in root.glob(f"*{s}"))
    shards = {} if root.is_file() else shards_of(root)
    if len(files) + bool(shards) != 1:
        found = ", ".join([*(file.name for file in files), *(["Parquet files"] if shards else [])])
        raise ValueError(
            f"{root}: must hold one .npz or .safetensors file ({KEYS}) or else Parquet files "
            f"train-*.parquet; found: {found or 'none of them'}"
        )
    if shards:
        return read_parquet(source, shards, part, like, progress)
    return read_arrays(Opened(files[0]), source, part, like, progress)


class Opened:
    """Named arrays of an `.npz` or safetensors file, each read when it is asked for.

    Raises:
        ValueError: one line for a file that is neither, is damaged, or holds pickled objects.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        self.told: dict[str, str] = {}
        self._open: Any
        if path.suffix == ".npz":
            self._open = open_npz(path)
            self.names = {*self._open.files}
            return
        with parsing(regular(path), f"{path.suffix} file"):
            self._open = safe_open(path, "pt")  # mapped, not read
            self.names, self.told = {*self._open.keys()}, self._open.metadata() or {}

    def get(self, name: str) -> Array:
        """An array of the file."""
        if name not in self.names:
            held = ", ".join(sorted(self.names))
            raise ValueError(f"{self.path}: has no array {name}, only {held}; needed: {KEYS}")
        with parsing(self.path, f"array {name}"):
            if self.path.suffix == ".npz":
                found: Array = self._open[name]
                return found
            tensor = self._open.get_tensor(name)
            return np.asarray(tensor.float() if tensor.dtype.is_floating_point else tensor)

    def class_names(self) -> tuple[str, ...] | None:
        """What `class_names` holds: an array of text, or JSON in the metadata of safetensors."""
        if "class_names" in self.told:
            with parsing(self.path, "JSON list class_names"):
                return tuple(map(str, json.loads(self.told["class_names"])))
        return _words(self, "class_names") if "class_names" in self.names else None


def read_arrays(
    file: Opened,
    source: Source,
    part: Part,
    like: Raw | None,
    progress: Progress | None,
    names: tuple[str, ...] | None = None,
) -> Raw | None:
    """One part of a file; validation images come with the training images. None: no test part."""
    if part == "test" and "test_images" not in file.names:
        if "val_images" in file.names:
            raise ValueError(f"{file.path}: has val_images and no test_images; call them test")
        return None
    names = like.class_names if like else names or file.class_names()
    parts: list[str] = [part]
    if part == "train" and "val_images" in file.names:
        parts.append("val")
    images = [_images(file, f"{name}_images", source) for name in parts]
    labels = [
        _labels(file, name, len(each), names) for name, each in zip(parts, images, strict=True)
    ]
    for name, each in zip(parts, images, strict=True):
        first, resized = (
            (like.images, source.resolution is not None) if like else (images[0], False)
        )
        _same_form(file, f"{name}_images", each, first, resized)
    low, high = (like.low, like.high) if like else _range(file, images)
    digests = [_digests(each, progress) for each in images]
    groups = None
    if source.groups is not None:
        held = [
            _groups(file, f"{name}_{source.groups}", len(each))
            for name, each in zip(parts, images, strict=True)
        ]
        groups = np.concatenate(held)
    every = np.concatenate(labels)
    return Raw(
        images[0] if len(images) == 1 else np.concatenate(images),
        every,
        np.concatenate(digests),
        names or tuple(map(str, range(int(every.max()) + 1))),
        low,
        high,
        groups=groups,
        validation=np.arange(len(every)) >= len(images[0]) if len(parts) > 1 else None,
    )


def _images(file: Opened, name: str, source: Source) -> Array:
    """The images as (N, C, H, W), a view of what is stored."""
    stored = file.get(name)
    if stored.dtype.kind not in "uif" or not len(stored):
        raise ValueError(
            f"{file.path}: {name} are {len(stored)} of {stored.dtype}; needed are integers or "
            "floats"
        )
    if stored.ndim == 3:
        stored = stored[:, None]
    channels = [axis for axis in (1, 3) if stored.ndim == 4 and stored.shape[axis] in (1, 3)]
    if len(channels) != 1:
        raise ValueError(
            f"{file.path}: {name} are {stored.shape}; allowed are (N, H, W), (N, H, W, C) and "
            "(N, C, H, W) with 1 or 3 channels"
        )
    images = np.moveaxis(stored, channels[0], 1)
    if source.channels not in (None, images.shape[1]):
        raise ValueError(f"{file.path}: channels {source.channels}: {name} have {images.shape[1]}")
    height, width = images.shape[2:]
    if source.resolution is None or height == width:
        return images
    side = min(height, width)  # about the centre
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, :, top : top + side, left : left + side]


def _labels(file: Opened, part: str, count: int, names: tuple[str, ...] | None) -> Labels:
    name = f"{part}_labels"
    stored = file.get(name)
    if stored.ndim == 2 and stored.shape[1] > 1:
        raise ValueError(
            f"{file.path}: {name} are {stored.shape}: several labels an image; only data with one "
            "class an image are read"
        )
    if stored.shape not in ((count,), (count, 1)) or stored.dtype.kind not in "ui":
        raise ValueError(
            f"{file.path}: {name} are {stored.dtype} {stored.shape}; needed are integers ({count},)"
        )
    labels = stored.reshape(-1).astype(np.int64)
    most = len(names) - 1 if names else 9999
    wrong = np.flatnonzero((labels < 0) | (labels > most))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"{file.path}: {name}: row {row} is {labels[row]}; allowed are 0 to {most}"
        )
    return labels


def _groups(file: Opened, name: str, count: int) -> NDArray[np.str_]:
    groups = _words(file, name)
    if len(groups) != count:
        raise ValueError(f"{file.path}: {name}: has {len(groups)} groups for {count} images")
    return np.array(groups)


def _words(file: Opened, name: str) -> tuple[str, ...]:
    """An array of names, texts or numbers."""
    stored = file.get(name)
    with parsing(file.path, f"array of names {name}"):
        return words_of(stored)


def _same_form(file: Opened, name: str, images: Array, first: Array, resized: bool) -> None:
    sides = slice(1, 2) if resized else slice(1, 4)
    if images.dtype.newbyteorder("=") != first.dtype.newbyteorder("="):
        raise ValueError(f"{file.path}: {name} are {images.dtype}, train_images {first.dtype}")
    if images.shape[sides] != first.shape[sides]:
        raise ValueError(
            f"{file.path}: {name} are {images.shape[1:]}, train_images {first.shape[1:]} "
            "(channels, height, width)"
        )
    if images.dtype.kind == "f":
        for piece in _pieces(images):
            low, high = float(piece.min()), float(piece.max())
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    f"{file.path}: {name} have values from {low:g} to {high:g}; floats must lie in "
                    "0 to 1 (integers have the range of their bits)"
                )


def _range(file: Opened, images: list[Array]) -> tuple[float, float]:
    """The range that the values of training images stand in."""
    kind = images[0].dtype
    if kind == np.uint8 or kind.kind == "f":
        return 0.0, 255.0 if kind == np.uint8 else 1.0
    low = min(float(each.min()) for each in images)
    high = max(float(each.max()) for each in images)
    if low >= 0:
        return 0.0, depth(high)
    if low == high:
        raise ValueError(f"{file.path}: all images hold nothing but the value {low:g}")
    return low, high


def _digests(images: Array, progress: Progress | None) -> NDArray[np.uint8]:
    """The digest of each image (N, 32), as an image file of the same content has it."""
    found = bytearray()
    for piece in _pieces(images):
        if piece.dtype != np.uint8:
            piece = piece.astype(np.float32)
        grey = (piece == piece[:, :1]).all((1, 2, 3))
        found += b"".join(digest(i[:1] if g else i) for i, g in zip(piece, grey, strict=True))
        if progress:
            progress(len(found) // 32, len(images), "images read")
    return np.frombuffer(bytes(found), dtype=np.uint8).reshape(-1, 32)


def _pieces(images: Array) -> Iterator[Array]:
    return (images[row : row + TOGETHER] for row in range(0, len(images), TOGETHER))
