"""Image trees of the user's: one folder a class, found, checked and decoded to one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)

LARGEST = 256  # pixels a side that images may have


def layout(root: Path) -> tuple[Path, Path | None]:
    """Return the folders of the training and, if there is one, the test classes.

    Either `root/<class>/...`, or `root/train/<class>/...` with or without `root/test/<class>/...`.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder of images")
    train, test = root / "train", root / "test"
    if train.is_dir() and _folders(train):
        return train, test if test.is_dir() else None
    return root, None


def files_of(root: Path) -> tuple[list[Path], NDArray[np.int64], tuple[str, ...]]:
    """List the images of a folder of classes: files, labels (N,) int64, class names.

    Classes and files come in the order of their names. Where a class folder has a folder `images`,
    only that is read, so that masks beside it are left out.

    Raises:
        ValueError: fewer than 2 classes, or a class without images.
    """
    classes = _folders(root)
    if len(classes) < 2:
        raise ValueError(
            f"{root}: has {len(classes)} class folder(s), at least 2 are needed (<class>/*.png)"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(classes):
        nested = folder / "images"
        inside = nested if nested.is_dir() else folder
        found = sorted(
            path
            for path in inside.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not found:
            raise ValueError(f"{inside}: class {folder.name!r} has no images")
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, dtype=np.int64), tuple(folder.name for folder in classes)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")


def decode(
    files: Sequence[Path], channels: int | None = None, resolution: int | None = None
) -> NDArray[np.uint8]:
    """Read images to one array (N, C, R, R) uint8.

    Args:
        channels: 1 or 3; None: 1 where every image is grey (also grey stored as RGB), else 3.
        resolution: images are cropped about their centre to a square and resized to it; None:
            all must be squares of one size.

    Raises:
        ValueError: an unreadable image, or sizes that differ without a resolution, with its name.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels: {channels} is not allowed, only 1 or 3")
    images: list[NDArray[np.uint8]] = []  # each (1 or 3, H, W)
    for path in files:
        images.append(_read(path, channels, resolution))
        first, (height, width) = images[0].shape[1:], images[-1].shape[1:]
        if (height, width) != first or height != width or height > LARGEST:
            raise ValueError(
                f"{path}: is {width}x{height} pixels, {files[0].name} {first[1]}x{first[0]}; give "
                f"a resolution for all but squares of one size up to {LARGEST}"
            )
    channels = channels or max((len(image) for image in images), default=1)
    side = images[0].shape[1] if images else resolution or 0
    stacked = np.empty((len(images), channels, side, side), dtype=np.uint8)
    for row, image in enumerate(images):
        stacked[row] = image  # A grey image among coloured ones is spread over the channels.
    return stacked


def _read(path: Path, channels: int | None, resolution: int | None) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = _eight_bits(ImageOps.exif_transpose(opened))
    except Exception as error:  # Pillow's decoders raise a great many kinds.
        raise ValueError(f"{path}: is no readable image ({error})") from error
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    if resolution is not None and image.size != (resolution, resolution):
        image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BILINEAR)
    pixels: NDArray[Any] = np.asarray(image, dtype=np.uint8)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if channels is None and len(pixels) == 3 and (pixels == pixels[:1]).all():
        pixels = pixels[:1]
    return pixels


def _eight_bits(image: Image) -> Image:
    """Return the image as 8-bit grey or RGB; 16-bit grey keeps its upper byte."""
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("1", "L", "LA"):
        return image.convert("L")
    return image.convert("RGB")
