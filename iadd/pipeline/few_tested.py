"""Classes of which so few images are tested that their recall can hardly be known."""

from __future__ import annotations

from iadd.artifacts import counted
from iadd.data import About
from iadd.leaderboard.statistics import half_width

FEW = 30
"""Test images of a class, below which that is told."""
FEW_POSITIVE = 100
"""The same of the class by which patients would be called ill."""
RECALL = 0.9
"""An example of what is measured on them."""


def few_tested(about: About) -> list[str]:
    """A warning for the positive class and one for the rarest other, where they have few images."""
    tested = dict(zip(about.class_names, about.counts["test"], strict=True))
    lines = []
    if about.positive is not None and tested[about.positive] < FEW_POSITIVE:
        lines.append(_line(about, about.positive, tested.pop(about.positive)))
    few = sorted((count, name) for name, count in tested.items() if count < FEW)
    if few:
        (count, name), *others = few
        more = f"; classes with fewer than {FEW}: {len(few)}" if others else ""
        lines.append(_line(about, name, count) + more)
    return lines


def _line(about: About, name: str, count: int) -> str:
    what = "sensitivity" if name == about.positive else "recall"
    points = 100 * half_width(RECALL, count)
    images = counted(count, "test image{s}")
    return (
        f"WARNING: {about.title}: class {name!r} has {images}, so a {what} of {100 * RECALL:.0f} % "
        f"is known to +-{points:.0f} points at best (95 %)"
    )
