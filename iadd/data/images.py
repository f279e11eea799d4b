"""Encoded images brought to one array: every format by the same rules, nothing lost unsaid.

8-bit images stay 8-bit. Grey images of 16 or 32 bits and of floats keep their depth, scaled by the
range of the whole training part. Transparent images are laid on white, or on black where white
would leave nothing to be seen. What cannot be kept is refused, with the file's name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from iadd.data.image_file import Header, Item, Look, UnreadableError, header, laid, pixels, shown
from iadd.data.raw import RESOLUTIONS, Progress, Raw

LARGEST = RESOLUTIONS[1]
BLANK = 2.5  # Standard deviation, of 255, below which an image shows nothing.
TOGETHER = 256  # images handed to the threads at once
NAMED = 5  # unreadable images that are named

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images (N, C, R, R) uint8, or float32 where `look.deep`, and their digests (N, 32).

    `low`, `high`: the range that the values stand in. `transparent`: whether any image was.
    `several`: how many files hold more than the one image that was read. `notes`: what whoever has
    the files may want to look at.
    """

    images: NDArray[Any]
    digests: NDArray[np.uint8]
    look: Look
    low: float
    high: float
    transparent: bool
    several: int
    notes: tuple[str, ...] = ()


def look_of(raw: Raw) -> Look:
    """The form that test images take from the training images."""
    _, channels, side, _ = raw.images.shape
    background = 255 if raw.background is None else raw.background
    return Look(channels, side, raw.images.dtype != np.uint8, background)


def decode(
    items: Collection[Item],
    channels: int | None = None,
    resolution: int | None = None,
    *,
    like: Look | None = None,
    progress: Progress | None = None,
) -> Decoded:
    """Read images to one array, several at a time.

    Args:
        items: gone through more than once, always in the same order.
        channels: 1 or 3; None: 1 where every image is grey (also grey stored as RGB), else 3.
        resolution: images are cropped about their centre to a square and resized to it; None:
            all must be squares of one size.
        like: the form that training images had, instead of one that suits these.

    Raises:
        ValueError: one line naming the images: unreadable, of another size or depth, or blank.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(min(count or 1, 16)) as pool:

        def each(
            work: Callable[[Item], Result], chosen: Iterable[Item], note: str
        ) -> Iterator[Result]:
            for done, found in enumerate(_all_readable(pool, work, chosen), 1):
                yield found
                if progress and (done % TOGETHER == 0 or done == len(items)):
                    progress(done, len(items), note)

        headers = list(each(header, items, "headers read"))
        channels = like.channels if like else channels
        look = like or _look(headers, channels, resolution)
        _fit_together(headers, look, resolution)
        clear = [found.name for found in headers if found.transparent]
        if clear:
            pairs = zip(items, headers, strict=True)
            chosen = (item for item, found in pairs if found.transparent)
            seen = list(each(_contrasts, chosen, "transparent images seen"))
            look = replace(look, background=_background(clear, seen, like))
        decoded = each(lambda item: shown(item, look), items, "images read")
        return _fill(decoded, headers, look, channels)


def _all_readable(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """The results of all items in order; ValueError at the end that names the unreadable ones."""

    def tried(item: Item) -> Result | UnreadableError:
        try:
            return work(item)
        except UnreadableError as error:
            return error

    failed: list[UnreadableError] = []
    coming = iter(items)
    while near := list(islice(coming, TOGETHER)):
        for found in pool.map(tried, near):
            if isinstance(found, UnreadableError):
                failed.append(found)
            elif not failed:
                yield found
    if len(failed) == 1:
        raise failed[0]
    if failed:
        names = ", ".join(error.name for error in failed[:NAMED])
        more = f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise ValueError(f"{len(failed)} files are no readable images: {names}{more}")


def _fill(
    decoded: Iterator[tuple[NDArray[Any], bytes, float, float, bool]],
    headers: Sequence[Header],
    look: Look,
    channels: int | None,
) -> Decoded:
    count = len(headers)
    shape = (count, look.channels, look.side, look.side)
    images = np.empty(shape, dtype=np.float32 if look.deep else np.uint8)
    digests = np.empty((count, 32), dtype=np.uint8)
    low, high, grey = np.inf, -np.inf, np.ones(count, dtype=bool)
    for row, (image, content, least, most, is_grey) in enumerate(decoded):
        images[row] = image  # A grey image among coloured ones is spread over the channels.
        digests[row] = np.frombuffer(content, dtype=np.uint8)
        low, high, grey[row] = min(low, least), max(high, most), is_grey
    if not look.deep:
        low, high = 0.0, 255.0
    elif low >= 0 and all(found.whole for found in headers):
        low, high = 0.0, depth(high)
    elif low == high:
        raise ValueError(f"{headers[0].name}: this and all other images hold nothing but {low:g}")
    notes: tuple[str, ...] = ()
    if channels is None and look.channels == 3:
        if grey.all():
            images, look = images[:, :1].copy(), replace(look, channels=1)
        elif 2 * grey.sum() >= count:
            first, coloured = headers[int(grey.argmin())].name, count - int(grey.sum())
            notes = (
                f"of {count:,} images all but {coloured:,} are grey ({first} is in colour): all "
                "are read as colour; channels: 1 reads all as grey",
            )
    transparent = any(found.transparent for found in headers)
    several = sum(found.several for found in headers)
    return Decoded(images, digests, look, low, high, transparent, several, notes)


def depth(high: float) -> float:
    """The highest value of the bits that a value needs: 4095 for 12 bits."""
    return float((1 << max(1, int(high).bit_length())) - 1)


def _look(headers: Sequence[Header], channels: int | None, resolution: int | None) -> Look:
    channels = channels or (3 if any(found.colour for found in headers) else 1)
    return Look(channels, resolution or headers[0].size[0], headers[0].deep)


def _fit_together(headers: Sequence[Header], look: Look, resolution: int | None) -> None:
    first, (wide, high) = headers[0].name.rpartition(os.sep)[2], headers[0].size
    for found in headers:
        width, height = found.size
        if resolution is None and (width != look.side or height != width or width > LARGEST):
            raise ValueError(
                f"{found.name}: is {width}x{height} pixels, {first} {wide}x{high}; give a "
                f"resolution for all but squares of one size up to {LARGEST}"
            )
        if found.deep != look.deep:
            depths = ("8 bits or less", "more than 8 bits")
            raise ValueError(
                f"{found.name}: has {depths[found.deep]} a value, other images "
                f"{depths[look.deep]}; convert all to one depth"
            )


def _contrasts(item: Item) -> tuple[float, float]:
    """How much an image varies when it is laid on white, and on black."""
    found = pixels(item)
    if len(found) < 4:
        return BLANK, BLANK
    return float(laid(found, 255).std()), float(laid(found, 0).std())


def _background(
    names: Sequence[str], seen: Sequence[tuple[float, float]], like: Look | None
) -> int:
    """White, unless images vanish on it; an image that shows nothing on either does not count."""
    found = list(zip(names, seen, strict=True))
    lost_on_white = [name for name, (white, black) in found if white < BLANK <= black]
    lost_on_black = [name for name, (white, black) in found if black < BLANK <= white]
    white = like.background == 255 if like else not lost_on_white
    lost = lost_on_white if white else lost_on_black
    if lost:
        background = "white" if white else "black"
        raise ValueError(
            f"{lost[0]}: is transparent and blank on {background}, which other images need; lay "
            "the images on one background"
        )
    return 255 if white else 0
