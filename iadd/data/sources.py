"""Readers of named datasets: raw arrays and class names, one part (train or test) at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from iadd.data import folder

Part = Literal["train", "test"]
Labels = NDArray[np.int64]

TEST_SEED = 0  # No choice of seed moves an image into or out of a test set.
DIGITS_TEST = 450
BLOBS_PER_CLASS = 60


@dataclass(frozen=True)
class Source:
    """All that is needed to read a dataset, again and part by part."""

    name: str
    root: Path | None = None
    resolution: int | None = None
    channels: int | None = None
    test_fraction: float = 0.2
    download: bool = False

    @property
    def needed_root(self) -> Path:
        """The folder of the data, which this dataset cannot do without."""
        if self.root is None:
            raise ValueError(f"{self.name}: needs root, the folder that holds the data")
        return self.root

    def like(self, *, channels: int, resolution: int) -> Source:
        """Return the source of images that must look like those seen, not as theirs suggest."""
        fixed = channels if self.name == "folder" else None
        return replace(self, channels=fixed, resolution=resolution)


@dataclass(frozen=True, eq=False)
class Raw:
    """One part as it was read: images (N, C, H, W) of values 0..scale, labels (N,), names."""

    images: NDArray[Any]
    labels: Labels
    class_names: tuple[str, ...]
    scale: float = 255.0

    def rows(self, rows: Labels) -> Raw:
        """Return the chosen rows."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])


def read(source: Source, part: Part) -> Raw:
    """Read one part of a dataset; the other part is not kept (nor decoded, for a folder).

    Raises:
        ValueError: one line for an unknown name, missing files or images that do not fit.
    """
    if source.name not in READERS:
        raise ValueError(f"unknown dataset {source.name!r}; known: {', '.join(READERS)}")
    if source.channels is not None and source.name != "folder":
        raise ValueError(f"{source.name}: channels can be set for 'folder' only")
    return READERS[source.name](source, part)


def stratified(labels: Labels, size: int, seed: int) -> tuple[Labels, Labels]:
    """Cut about `size` rows out of `labels` (N,), each class by its share.

    Shares are rounded by largest remainder, so that the sizes are exact, except that no class is
    emptied of its last row. A seed's cut is the same in every version of numpy.

    Returns:
        Sorted row indices (rest, cut), disjoint and complete.
    """
    counts = np.bincount(labels)
    shares = counts * (size / max(len(labels), 1))
    quota = np.floor(shares).astype(np.int64)
    for label in np.argsort(quota - shares, kind="stable")[: size - quota.sum()]:
        quota[label] += 1
    quota = np.minimum(quota, np.maximum(counts - 1, 0))
    # numpy keeps the raw stream of a bit generator stable, but not what its methods make of it.
    keys = np.random.PCG64(seed).random_raw(len(labels))
    order = np.lexsort((keys, labels))  # by class, shuffled within
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    cut = rank < quota[labels[order]]
    return np.sort(order[~cut]), np.sort(order[cut])


def _part(raw: Raw, part: Part, test_size: int) -> Raw:
    rest, cut = stratified(raw.labels, test_size, TEST_SEED)
    return raw.rows(rest if part == "train" else cut)


def _digits(source: Source, part: Part) -> Raw:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, values 0..16; 1,347 train and 450 test."""
    spec = importlib.util.find_spec("sklearn")
    path = Path((spec.origin if spec else None) or "").parent / "datasets/data/digits.csv.gz"
    if path.exists():  # Reading the bundled table spares every job a second of imports.
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
        pixels, labels = table[:, :-1], table[:, -1].astype(np.int64)
    else:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        pixels, labels = pixels.astype(np.uint8), labels.astype(np.int64)
    names = tuple(str(digit) for digit in range(10))
    return _part(Raw(pixels.reshape(-1, 1, 8, 8), labels, names, scale=16.0), part, DIGITS_TEST)


def _blobs(source: Source, part: Part) -> Raw:
    """Made-up 8x8 grey images: one noisy Gaussian blob in a corner; the corner is the class."""
    generator = np.random.default_rng(2024)
    labels = np.repeat(np.arange(4, dtype=np.int64), BLOBS_PER_CLASS)
    centres = np.stack([2.0 + 3.0 * (labels // 2), 2.0 + 3.0 * (labels % 2)])  # (2, N)
    centres += generator.normal(0, 0.5, centres.shape)
    width = generator.uniform(0.8, 1.6, len(labels))
    rows, columns = np.mgrid[0:8, 0:8][:, None]  # each (1, 8, 8)
    squares = (rows - centres[0, :, None, None]) ** 2 + (columns - centres[1, :, None, None]) ** 2
    values = np.exp(-squares / (2 * width[:, None, None] ** 2))
    values = np.clip(values + generator.normal(0, 0.1, values.shape), 0, 1)
    images = np.rint(255 * values).astype(np.uint8)[:, None]  # (N, 1, 8, 8)
    names = ("top-left", "top-right", "bottom-left", "bottom-right")
    return _part(Raw(images, labels, names), part, len(labels) // 3)


def _torchvision(kind: str, where: str) -> Callable[[Source, Part], Raw]:
    """Make the reader of a torchvision set whose files lie under `root/where`.

    CIFAR's files are pickles; torchvision opens them only after their published checksums match.
    """

    def reader(source: Source, part: Part) -> Raw:
        root = source.needed_root
        from torchvision import datasets  # Seconds: not before it is needed.

        choice = {"split": part} if kind == "SVHN" else {"train": part == "train"}
        try:
            loaded = getattr(datasets, kind)(str(root), download=source.download, **choice)
        except (RuntimeError, OSError, EOFError) as error:
            reason = str(error).splitlines()[0] if source.download else "missing or damaged"
            raise ValueError(
                f"{source.name}: files under {root / where} cannot be read ({reason}); put "
                f"torchvision's {kind} files there, or set download to fetch them"
            ) from error
        images = np.asarray(loaded.data)
        if images.ndim == 3:
            images = images[:, None]  # (N, 1, H, W)
        elif images.shape[-1] == 3:
            images = images.transpose(0, 3, 1, 2)  # (N, 3, H, W)
        labels = np.asarray(loaded.labels if kind == "SVHN" else loaded.targets, dtype=np.int64)
        names = tuple(str(digit) for digit in range(10)) if kind == "SVHN" else loaded.classes
        return Raw(np.ascontiguousarray(images), labels, tuple(names))

    return reader


def _folder(source: Source, part: Part) -> Raw:
    """The user's image tree; without a test folder, a fixed stratified share of it is the test."""
    root = source.needed_root
    train, test = folder.layout(root)
    files, labels, names = folder.files_of(train)
    if test is None:
        rest, cut = stratified(labels, round(source.test_fraction * len(labels)), TEST_SEED)
        rows = rest if part == "train" else cut
        files, labels = [files[row] for row in rows], labels[rows]
    elif part == "test":
        files, labels, test_names = folder.files_of(test)
        if test_names != names:
            odd = sorted(set(names) ^ set(test_names))[0]
            raise ValueError(f"{root}: class {odd!r} is not in both {train.name} and {test.name}")
    return Raw(folder.decode(files, source.channels, source.resolution), labels, names)


READERS: dict[str, Callable[[Source, Part], Raw]] = {
    "digits": _digits,
    "blobs": _blobs,
    "mnist": _torchvision("MNIST", "MNIST/raw"),
    "fashionmnist": _torchvision("FashionMNIST", "FashionMNIST/raw"),
    "svhn": _torchvision("SVHN", ""),
    "cifar10": _torchvision("CIFAR10", "cifar-10-batches-py"),
    "cifar100": _torchvision("CIFAR100", "cifar-100-python"),
    "folder": _folder,
}
