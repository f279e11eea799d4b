"""Image files made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def random_bytes(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise of 8 bits."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: NDArray[Any], mode: str | None = None) -> Path:
    """Write an array as an image, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def tree(root: Path, folders: dict[str, int], side: int = 10, seed: int = 0) -> Path:
    """Write grey PNG files, each another: {folder: how many}."""
    for number, (name, count) in enumerate(folders.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for row in range(count):
            pixels = random_bytes(side, side, seed=seed + 1000 * number + row)
            save(root / name / f"{row:03d}.png", pixels)
    return root
