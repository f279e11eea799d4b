"""Datasets that come with the program: digits and blobs. Their test parts are fixed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iadd.data.cuts import digests_of
from iadd.data.raw import Labels, Part, Raw, Source

DIGITS_TEST = 450
BLOBS_PER_CLASS = 60


def _fixed_cut(labels: Labels, size: int) -> tuple[Labels, Labels]:
    """Cut `size` rows out of `labels` (N,), each class by its share: sorted rows (rest, cut).

    Shares are rounded by largest remainder. The cut is the same in every version of numpy.
    """
    counts = np.bincount(labels)
    shares = counts * (size / len(labels))
    quota = np.floor(shares).astype(np.int64)
    for label in np.argsort(quota - shares, kind="stable")[: size - quota.sum()]:
        quota[label] += 1
    # numpy keeps the raw stream of a bit generator stable, but not what its methods make of it.
    keys = np.random.PCG64(0).random_raw(len(labels))
    order = np.lexsort((keys, labels))  # by class, shuffled within
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    held = rank < quota[labels[order]]
    return np.sort(order[~held]), np.sort(order[held])


def _part(
    images: NDArray[Any],
    labels: Labels,
    names: tuple[str, ...],
    high: float,
    part: Part,
    test_size: int,
) -> Raw:
    rest, held = _fixed_cut(labels, test_size)
    rows = rest if part == "train" else held
    images = images[rows]
    return Raw(images, labels[rows], digests_of(images), names, high=high)


def digits(source: Source, part: Part, **_: object) -> Raw:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, values 0..16; 1,347 train and 450 test."""
    package = importlib.util.find_spec("sklearn")
    path = Path(str(package and package.origin)).parent / "datasets/data/digits.csv.gz"
    if path.exists():  # Reading the bundled table spares a second of imports.
        values = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    else:
        from sklearn.datasets import load_digits

        values = np.column_stack(load_digits(return_X_y=True)).astype(np.uint8)
    pixels, labels = values[:, :-1], values[:, -1].astype(np.int64)
    names = tuple(str(digit) for digit in range(10))
    return _part(pixels.reshape(-1, 1, 8, 8), labels, names, 16.0, part, DIGITS_TEST)


def blobs(source: Source, part: Part, **_: object) -> Raw:
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
    return _part(images, labels, names, 255.0, part, len(labels) // 3)
