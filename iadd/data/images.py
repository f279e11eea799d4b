"""Image files brought to one array: every format by the same rules, nothing lost unsaid.

8-bit images stay 8-bit. Grey images of 16 or 32 bits and of floats keep their depth, scaled by the
range of the whole training part. Transparent images are laid on white, or on black where white
would leave nothing to be seen. What cannot be kept is refused, with the file's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from iadd.data.cuts import digest
from iadd.data.raw import RESOLUTIONS, Progress

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
# By name: Pillow's others would run interpreters (PostScript) or ask the network.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM")
LARGEST = RESOLUTIONS[1]
BLANK = 2.5  # Standard deviation, of 255, below which an image shows nothing.
TOGETHER = 256  # files handed to the threads at once

Item = TypeVar("Item")


@dataclass(frozen=True)
class Look:
    """The form that a set's images are brought to; test images take that of the training images.

    `channels`: 1 or 3. `side`: pixels. `deep`: more than 8 bits, kept as float32. `background`:
    grey value under transparent images, 255 or 0.
    """

    channels: int
    side: int
    deep: bool
    background: int = 255


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images (N, C, R, R) uint8, or float32 where `look.deep`, and their digests (N, 32).

    `low`, `high`: the range that the values stand in. `transparent`: whether any image was.
    `several`: how many files hold more than the one image that was read.
    """

    images: NDArray[Any]
    digests: NDArray[np.uint8]
    look: Look
    low: float
    high: float
    transparent: bool
    several: int


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    deep: bool
    whole: bool
    colour: bool
    transparent: bool
    frames: int


def decode(
    files: Sequence[Path],
    channels: int | None = None,
    resolution: int | None = None,
    *,
    like: Look | None = None,
    progress: Progress | None = None,
) -> Decoded:
    """Read images to one array, several at a time.

    Args:
        channels: 1 or 3; None: 1 where every image is grey (also grey stored as RGB), else 3.
        resolution: images are cropped about their centre to a square and resized to it; None:
            all must be squares of one size.
        like: the form that training images had, instead of one that suits these.

    Raises:
        ValueError: one line naming the file: unreadable, of another size or depth, or blank.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(min(count or 1, 16)) as pool:

        def each(work: Callable[[Path], Item], chosen: Sequence[Path]) -> Iterator[Item]:
            for start in range(0, len(chosen), TOGETHER):
                yield from pool.map(work, chosen[start : start + TOGETHER])

        headers = list(each(_header, files))
        channels = like.channels if like else channels
        look = like or _look(files, headers, channels, resolution)
        _fit_together(files, headers, look, resolution)
        transparent = [f for f, header in zip(files, headers, strict=True) if header.transparent]
        if transparent:
            seen = list(each(_contrasts, transparent))
            look = replace(look, background=_background(transparent, seen, like))
        return _fill(each(lambda path: _one(path, look), files), headers, look, channels, progress)


def _fill(
    decoded: Iterator[tuple[NDArray[Any], bytes, float, float, bool]],
    headers: Sequence[_Header],
    look: Look,
    channels: int | None,
    progress: Progress | None,
) -> Decoded:
    count = len(headers)
    shape = (count, look.channels, look.side, look.side)
    images = np.empty(shape, dtype=np.float32 if look.deep else np.uint8)
    digests = np.empty((count, 32), dtype=np.uint8)
    low, high, grey = np.inf, -np.inf, channels is None and look.channels == 3
    for row, (image, content, least, most, is_grey) in enumerate(decoded):
        images[row] = image  # A grey image among coloured ones is spread over the channels.
        digests[row] = np.frombuffer(content, dtype=np.uint8)
        low, high, grey = min(low, least), max(high, most), grey and is_grey
        if progress and (row % TOGETHER == 0 or row + 1 == count):
            progress(row + 1, count, "images read")
    if not look.deep:
        low, high = 0.0, 255.0
    elif low >= 0 and all(header.whole for header in headers):
        low, high = 0.0, float((1 << max(1, int(high).bit_length())) - 1)  # 4095 for 12 bits
    elif low == high:
        raise ValueError(f"all images hold nothing but the value {low:g}; there is nothing to see")
    if grey:
        images, look = images[:, :1].copy(), replace(look, channels=1)
    transparent = any(header.transparent for header in headers)
    several = sum(header.frames > 1 for header in headers)
    return Decoded(images, digests, look, low, high, transparent, several)


def _open(path: Path) -> Image:
    from PIL import Image

    return Image.open(path, formats=FORMATS)


def _header(path: Path) -> _Header:
    try:
        with _open(path) as image:
            mode, tiles = image.mode, str(getattr(image, "tile", ""))
            frames = getattr(image, "n_frames", 1)
            size, transparent = image.size, image.has_transparency_data
    except Exception as error:  # Pillow's decoders raise a great many kinds.
        raise ValueError(f"{path}: is no readable image ({error})") from error
    if re.search(r"(RGB|RGBA|RGBX|LA|CMYK);16", tiles):
        raise ValueError(f"{path}: has 16 bits a colour, of which 8 would be lost; convert it")
    deep = mode[0] in "IF"
    colour = not deep and mode not in ("1", "L", "LA", "La")
    return _Header(size, deep, mode[0] == "I", colour, transparent and not deep, frames)


def _look(
    files: Sequence[Path], headers: Sequence[_Header], channels: int | None, resolution: int | None
) -> Look:
    channels = channels or (3 if any(header.colour for header in headers) else 1)
    return Look(channels, resolution or headers[0].size[0], headers[0].deep)


def _fit_together(
    files: Sequence[Path], headers: Sequence[_Header], look: Look, resolution: int | None
) -> None:
    first = f"{headers[0].size[0]}x{headers[0].size[1]}"
    for path, header in zip(files, headers, strict=True):
        width, height = header.size
        if resolution is None and (width != look.side or height != width or width > LARGEST):
            raise ValueError(
                f"{path}: is {width}x{height} pixels, {files[0].name} {first}; give a resolution "
                f"for all but squares of one size up to {LARGEST}"
            )
        if header.deep != look.deep:
            depths = ("8 bits or less", "more than 8 bits")
            raise ValueError(
                f"{path}: has {depths[header.deep]} a value, other images {depths[look.deep]}; "
                "convert all to one depth"
            )


def _contrasts(path: Path) -> tuple[float, float]:
    """How much an image varies when it is laid on white, and on black."""
    pixels = _pixels(path)
    if len(pixels) < 4:
        return BLANK, BLANK
    return float(_laid(pixels, 255).std()), float(_laid(pixels, 0).std())


def _background(
    files: Sequence[Path], seen: Sequence[tuple[float, float]], like: Look | None
) -> int:
    """White, unless images vanish on it; an image that shows nothing on either does not count."""
    found = list(zip(files, seen, strict=True))
    lost_on_white = [path for path, (white, black) in found if white < BLANK <= black]
    lost_on_black = [path for path, (white, black) in found if black < BLANK <= white]
    white = like.background == 255 if like else not lost_on_white
    lost = lost_on_white if white else lost_on_black
    if lost:
        background = "white" if white else "black"
        raise ValueError(
            f"{lost[0]}: is transparent and blank on {background}, which other images need; lay "
            "the images on one background"
        )
    return 255 if white else 0


def _laid(pixels: NDArray[np.uint8], background: int) -> NDArray[np.uint8]:
    """RGBA (4, H, W) on a background: (3, H, W)."""
    alpha = pixels[3:].astype(np.uint16)
    laid: NDArray[np.uint8] = (
        (pixels[:3] * alpha + background * (255 - alpha) + 127) // 255
    ).astype(np.uint8)
    return laid


def _pixels(path: Path) -> NDArray[Any]:
    """An image's content (C, H, W): float32 if deep, else uint8 grey (C = 1), RGB or RGBA."""
    from PIL import ImageOps

    try:
        with _open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode[0] not in "IF":
                plain = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
                image = image.convert("RGBA" if image.has_transparency_data else plain)
            pixels: NDArray[Any] = np.asarray(image)
    except Exception as error:  # Pillow's decoders raise a great many kinds.
        raise ValueError(f"{path}: is no readable image ({error})") from error
    if pixels.ndim == 2:
        deep = pixels.dtype != np.uint8
        return pixels.astype(np.float32)[None] if deep else pixels[None]
    pixels = pixels.transpose(2, 0, 1)
    if len(pixels) == 4 and (pixels[3] == 255).all():
        pixels = pixels[:3]
    return _grey(pixels)


def _grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """RGB of equal channels as one channel; anything else as it is."""
    return pixels[:1] if len(pixels) == 3 and (pixels == pixels[:1]).all() else pixels


def _one(path: Path, look: Look) -> tuple[NDArray[Any], bytes, float, float, bool]:
    """An image in the set's form, its digest, its lowest and highest value, whether it is grey."""
    from PIL import Image, ImageOps

    pixels = _pixels(path)
    content = digest(pixels)
    if len(pixels) == 4:
        pixels = _grey(_laid(pixels, look.background))
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{path}: has NaN or infinite values")
    grey = len(pixels) == 1
    image = Image.fromarray(pixels[0] if grey else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if look.channels == 1 and not grey:
        image = image.convert("L")
    if image.size != (look.side, look.side):
        image = ImageOps.fit(image, (look.side, look.side), Image.Resampling.BILINEAR)
    shown = np.asarray(image)
    return (shown[None] if shown.ndim == 2 else shown.transpose(2, 0, 1)), content, low, high, grey
