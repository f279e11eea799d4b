"""A distilled set of six images and the data that it fits, for the tests of the exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from iadd.augment import Augmentation
from iadd.data import Dataset, Split, Transform
from iadd.data.transform import fit
from iadd.exchange import Statement

NAMES = ("ant", "bee", "cat")
STANDARD = Transform("standard", mean=torch.tensor([0.4, 0.5, 0.6]), std=torch.full((3,), 0.2))
SIZE = (3, 4, 4)
IMAGES = torch.randn(6, *SIZE, generator=torch.Generator().manual_seed(0))
PIXELS = IMAGES.sigmoid()
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
SAID = Statement(STANDARD, NAMES)


def whitening() -> Transform:
    pixels = torch.rand(200, *SIZE, generator=torch.Generator().manual_seed(2))
    return fit("zca", pixels)


def data(
    transform: Transform = STANDARD, names: tuple[str, ...] = NAMES, size: Sequence[int] = SIZE
) -> Dataset:
    """What a set has to fit: classes, channels, side."""
    split = Split(torch.zeros(1, *size), torch.zeros(1, dtype=torch.int64))
    held_out: Callable[[Transform], Split] = lambda _: split  # noqa: E731
    return Dataset("zoo", names, split, split, transform, Augmentation(()), "f" * 64, held_out)


def kept(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def one_line(error: pytest.ExceptionInfo[ValueError]) -> None:
    assert "\n" not in str(error.value)
