"""One encoded image: its header, its content as it is, and its content in a set's form."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iadd.artifacts import complaint, regular
from iadd.data.cuts import digest

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
# By name: Pillow's others would run interpreters (PostScript) or ask the network.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 1 << 26
"""Of an image, 8192 x 8192: a few bytes can claim more than memory holds."""
MOST_SCANS = 100
"""Of a JPEG file: each goes through all its pixels once more, and encoders make about ten."""


PHOTOMETRIC = 262
"""The tag of TIFF that says what zero is: 0 for white, 1 for black."""


@dataclass(frozen=True)
class Encoded:
    """An image that is no file of its own; `name` says where it stands."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


Item = Path | Encoded


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


@dataclass(frozen=True)
class Header:
    """What an image says of itself before its content is decoded."""

    name: str
    size: tuple[int, int]
    deep: bool
    whole: bool
    colour: bool
    transparent: bool
    several: bool


class UnreadableError(ValueError):
    """An image that cannot be decoded: its name and why."""

    def __init__(self, item: Item, reason: object) -> None:
        told = complaint(reason) if isinstance(reason, Exception) else reason
        super().__init__(f"{item}: is no readable image ({told})")
        self.name = str(item)


def _open(item: Item) -> Image:
    from PIL import Image

    source = regular(item) if isinstance(item, Path) else io.BytesIO(item.content)
    image = Image.open(source, formats=FORMATS)
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, at most {MOST_PIXELS:,} are read")
    return image


def header(item: Item) -> Header:
    """Read an image's header; ValueError for one that is unreadable or would lose depth."""
    try:
        with _open(item) as image:
            mode, tiles = image.mode, str(getattr(image, "tile", ""))
            several = bool(getattr(image, "is_animated", False))  # n_frames goes through all
            size, transparent = image.size, image.has_transparency_data
    except Exception as error:  # Pillow's decoders raise a great many kinds.
        raise UnreadableError(item, error) from error
    if re.search(r"(RGB|RGBA|RGBX|LA|CMYK);16", tiles):
        raise ValueError(f"{item}: has 16 bits a colour, of which 8 would be lost; convert it")
    deep = mode[0] in "IF"
    colour = not deep and mode not in ("1", "L", "LA", "La")
    clear = transparent and not deep
    return Header(str(item), size, deep, mode[0] == "I", colour, clear, several)


def pixels(item: Item) -> NDArray[Any]:
    """An image's content (C, H, W): float32 if deep, else uint8 grey (C = 1), RGB or RGBA."""
    from PIL import ImageOps

    try:
        with _open(item) as opened:
            _check_scans(opened)
            image: Image = opened
            inverted = _is_inverted(image)
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode[0] not in "IF":
                plain = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
                image = image.convert("RGBA" if image.has_transparency_data else plain)
            found: NDArray[Any] = np.asarray(image)
            found = np.iinfo(np.uint16).max - found if inverted else found
    except Exception as error:  # Pillow's decoders raise a great many kinds.
        raise UnreadableError(item, error) from error
    if found.ndim == 2:
        deep = found.dtype != np.uint8
        return found.astype(np.float32)[None] if deep else found[None]
    found = found.transpose(2, 0, 1)
    if len(found) == 4 and (found[3] == 255).all():
        found = found[:3]
    return _grey(found)


def _is_inverted(image: Image) -> bool:
    """Whether white is zero in a TIFF file of 16 bits: as in some of X-rays. Pillow turns 8 bits
    round alone. ValueError for other depths."""
    if image.mode[0] not in "IF" or getattr(image, "tag_v2", {}).get(PHOTOMETRIC) != 0:
        return False
    if not image.mode.startswith("I;16"):
        raise ValueError("white is zero in more than 16 bits; convert it")
    return True


def _check_scans(image: Image) -> None:
    """Refuse a JPEG file that would go through its pixels again and again."""
    file = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or file is None:
        return
    place = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")
    file.seek(place)
    if scans > MOST_SCANS:
        raise ValueError(f"{scans} scans, at most {MOST_SCANS} are read")


def _grey(found: NDArray[Any]) -> NDArray[Any]:
    """RGB of equal channels as one channel; anything else as it is."""
    return found[:1] if len(found) == 3 and (found == found[:1]).all() else found


def laid(rgba: NDArray[np.uint8], background: int) -> NDArray[np.uint8]:
    """RGBA (4, H, W) on a background: (3, H, W)."""
    alpha = rgba[3:].astype(np.uint16)
    mixed: NDArray[np.uint8] = (
        (rgba[:3] * alpha + background * (255 - alpha) + 127) // 255
    ).astype(np.uint8)
    return mixed


def shown(item: Item, look: Look) -> tuple[NDArray[Any], bytes, float, float, bool]:
    """An image in the set's form, its digest, its lowest and highest value, whether it is grey."""
    from PIL import Image, ImageOps

    found = pixels(item)
    content = digest(found)
    if len(found) == 4:
        found = _grey(laid(found, look.background))
    low, high = float(found.min()), float(found.max())
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{item}: has NaN or infinite values")
    grey = len(found) == 1
    if found.shape[1:] == (look.side, look.side) and (grey or look.channels == 3):
        return found, content, low, high, grey
    image = Image.fromarray(found[0] if grey else np.ascontiguousarray(found.transpose(1, 2, 0)))
    if look.channels == 1 and not grey:
        image = image.convert("L")
    if image.size != (look.side, look.side):
        image = ImageOps.fit(image, (look.side, look.side), Image.Resampling.BILINEAR)
    values = np.asarray(image)
    return (
        (values[None] if values.ndim == 2 else values.transpose(2, 0, 1)),
        content,
        low,
        high,
        grey,
    )
