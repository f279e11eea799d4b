"""Where the names of a plot's points stand so that they cover nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

HEIGHT = 10.0
"""Of a line of text, above its base line."""
REACH = 9
"""Lines up and down at which a name is tried."""
NEAR = 14.0
"""A name farther from its point than this needs a line that leads there."""


class Box(NamedTuple):
    """A rectangle; downwards is positive."""

    left: float
    top: float
    right: float
    bottom: float


class Point(NamedTuple):
    """Where a point lies, and the width of its name."""

    x: float
    y: float
    width: float


class Label(NamedTuple):
    """Where a name begins, or `before` its point ends, and its base line.

    led: whether a line has to lead to its point.
    """

    x: float
    y: float
    before: bool
    led: bool


def place(points: Sequence[Point], taken: Sequence[Box], frame: Box) -> list[Label | None]:
    """A place in the frame for each name, in order, that meets no box and no earlier name, if any.

    The first is the nearest to its point that is free.
    """
    boxes = list(taken)
    found: list[Label | None] = []
    for point in points:
        known = np.array(boxes).reshape(-1, 4)
        for label in _tried(point):
            left = label.x - label.before * point.width
            box = Box(left - 1, label.y - HEIGHT + 1, left + point.width, label.y + 2)
            if _inside(box, frame) and not _met(known, box):
                boxes.append(box)
                found.append(label)
                break
        else:
            found.append(None)
    return found


def _inside(one: Box, frame: Box) -> bool:
    across = one.left >= frame.left and one.right <= frame.right
    return across and one.top >= frame.top and one.bottom <= frame.bottom


def _tried(point: Point) -> Iterator[Label]:
    """Beside the point first, then farther up and down."""
    for far in range(REACH):
        for down in (1, -1) if far else (1,):
            y = point.y + 4 + down * far * HEIGHT
            gap = 7.0 + 2 * (far > 1)
            yield Label(point.x + gap, y, False, far * HEIGHT > NEAR)
            yield Label(point.x - gap, y, True, far * HEIGHT > NEAR)


def _met(boxes: np.ndarray, one: Box) -> bool:
    left, top, right, bottom = boxes.T
    beside = (left < one.right) & (right > one.left)
    return bool((beside & (top < one.bottom) & (bottom > one.top)).any())
