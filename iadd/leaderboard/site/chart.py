"""Plots as SVG: text that is text, colours that follow the page's theme, an alternative in words.

Made by hand rather than by a plotting library, because a page a run at 10,000 runs leaves about a
millisecond a plot. Colours are the style sheet's variables s0 to s5; each series has a mark of its
own too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

from iadd.leaderboard.site.labels import Box, Point, place

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, FLOOR = 64, 10, 10, 202
MARKS = (
    "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "m-3-3h6v6h-6z",
    "m0-4l4 7h-8z",
    "m0-4.5l4.5 4.5l-4.5 4.5l-4.5-4.5z",
    "m-3.5-3.5l7 7m0-7l-7 7",
    "m0 4l4-7h-8z",
)
SERIES = len(MARKS)
DASHES = ("", "5 3", "1.5 3")
LETTER = 6.2
"""About the width of a letter."""
DIGIT = 7.0
"""The width of a digit, in wide fonts."""


@dataclass(frozen=True)
class Axis:
    """A range of values, linear or logarithmic, and what it is called."""

    title: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def over(
        cls, title: str, values: Sequence[float], log: bool = False, most: float = math.inf
    ) -> Axis:
        """The range of these values with a little room, up to `most`; a logarithmic one of the
        positive ones."""
        known = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
        low, high = min(known), max(known)
        if log:
            low, high = (low / 1.25, high * 1.25) if high / low < 1e3 else (low / 2, high * 2)
            return cls(title, low, high, log)
        spread = high - low
        if spread < 1e-6 * abs(high):  # rounding alone: a flat line
            spread = 0.0
        room = 0.04 * spread or 0.05 * abs(high) or 0.5
        return cls(title, low - room, min(high + room, most))

    def at(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """A few round values within."""
        if self.log and self.high > 10 * self.low:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 3 else (1,)
            every = max(1, (last - first) // 5)
            found = [s * 10.0**k for k in range(first, last + 1, every) for s in steps]
            return [tick for tick in found if self.low <= tick <= self.high]
        rough = (self.high - self.low) / 6
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= rough)
        first = math.ceil(self.low / step)
        return [round(k * step, 12) for k in range(first, math.floor(self.high / step) + 1)]

    def words(self, ticks: Sequence[float]) -> list[str]:
        """These values as they are written: with as many digits as tell them apart."""
        found = [[f"{tick:.{digits}g}" for tick in ticks] for digits in (6, 9, 12)]
        return next((words for words in found if len(set(words)) == len(ticks)), found[-1])


class Curve(NamedTuple):
    """Values of one series along the first axis; what is not finite breaks the line."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


class Dot(NamedTuple):
    """A labelled point; `front`: it is on the Pareto front. series: its colour and mark."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    series: int = 0
    front: bool = False


class Whisker(NamedTuple):
    """A mean with its interval in a line of `whiskers`; hollow: a published value."""

    line: int
    mean: float
    low: float | None
    high: float | None
    series: int
    hollow: bool = False


def curves(
    alt: str, x: Axis, y: Axis, found: Sequence[Curve], marks: Sequence[float] = ()
) -> Markup:
    """Lines over a common axis; `marks` are places on it where something happened."""
    parts = list(_frame(x, y))
    parts += [
        _path(f"M{_across(x, mark):.1f} {TOP}V{FLOOR}", "var(--bad)", dashes="2 3")
        for mark in marks
    ]
    for series, curve in enumerate(found):
        pieces, pen = [], "M"
        for a, b in zip(curve.x, curve.y, strict=True):
            sound = math.isfinite(b) and (b > 0 or not y.log)
            if sound:
                pieces.append(f"{pen}{_across(x, a):.1f} {_up(y, b):.1f}")
            pen = "L" if sound else "M"
        parts.append(_path("".join(pieces), _colour(series), 1.5, DASHES[series % len(DASHES)]))
    labels = [curve.label for curve in found]
    return _svg(alt, parts, HEIGHT, labels, lines=True)


def scatter(alt: str, x: Axis, y: Axis, dots: Sequence[Dot], series: Sequence[str] = ()) -> Markup:
    """Labelled points, with the Pareto front of cheap and good ones joined.

    A name for which there is no room is left out.
    """
    parts, taken = list(_frame(x, y)), []
    for number in sorted({dot.series for dot in dots}):
        front = sorted((d.x, d.y) for d in dots if d.front and d.series == number)
        corners = [(_across(x, a), _up(y, b)) for a, b in front]
        for (a, b), (c, d) in pairwise(corners):
            taken += [Box(a, b - 1, c, b + 1), Box(c - 1, min(b, d), c + 1, max(b, d))]
        if len(front) > 1:
            path = "M{:.1f} {:.1f}".format(*corners[0])
            path += "".join(f"H{a:.1f}V{b:.1f}" for a, b in corners[1:])
            parts.append(_path(path, _colour(number), dashes="4 3"))
    ordered = sorted(dots, key=lambda d: (not d.front, -d.y, d.label))
    points = [Point(_across(x, d.x), _up(y, d.y), LETTER * len(d.label)) for d in ordered]
    taken += [Box(p.x - 4, p.y - 4, p.x + 4, p.y + 4) for p in points]
    taken += [
        Box(_across(x, d.x) - 1, _up(y, d.high), _across(x, d.x) + 1, _up(y, d.low))
        for d in dots
        if d.low is not None and d.high is not None
    ]
    labels = place(points, taken, Box(LEFT, 0, WIDTH, FLOOR))
    for dot, (a, b, _), label in zip(ordered, points, labels, strict=True):
        colour = _colour(dot.series)
        if dot.low is not None and dot.high is not None:
            ends = _up(y, dot.low), _up(y, dot.high)
            parts.append(_path("M{:.1f} {:.1f}V{:.1f}".format(a, *ends), colour, 0.6))
        if label is not None and label.led:
            end = label.x + 2 if label.before else label.x - 2
            leader = f"M{a:.1f} {b:.1f}L{end:.1f} {label.y - 4:.1f}"
            parts.append(_path(leader, "var(--muted)", 0.6))
        parts.append(_mark(a, b, dot.series, colour, hollow=not dot.front))
        if label is not None:
            anchor = "end" if label.before else "start"
            parts.append(_text(label.x, label.y, dot.label, anchor, quiet=False))
    return _svg(alt, parts, HEIGHT, series)


def whiskers(
    alt: str,
    title: str,
    names: Sequence[str],
    series: Sequence[str],
    found: Sequence[Whisker],
    zero: bool = False,
) -> Markup:
    """Means with their intervals (fractions, shown in per cent), a line a name; zero: a rule.

    Several series stand below each other in a line. One alone may have marks of any number.
    """
    ends = [100 * e for w in found for e in (w.low, w.mean, w.high) if e is not None]
    x = Axis.over(title, ends)
    left = 14 + LETTER * max((len(name) for name in names), default=0)
    pitch = 12 + 7 * max(1, len(series))
    floor = TOP + pitch * len(names)

    def across(fraction: float) -> float:
        return left + (WIDTH - left - RIGHT) * x.at(100 * fraction)

    parts = []
    for tick in x.ticks():
        at = across(tick / 100)
        parts.append(_path(f"M{at:.1f} {TOP}V{floor}", "var(--line)"))
        parts.append(_text(at, floor + 14, f"{tick:g}", "middle"))
    if zero:
        parts.append(_path(f"M{across(0):.1f} {TOP}V{floor}", "var(--ink)"))
    for line, name in enumerate(names):
        parts.append(_text(left - 8, TOP + pitch * (line + 0.5) + 4, name, "end", quiet=False))
    for one in found:
        several = len(series) > 1 and not one.hollow
        offset = 7 * (one.series - (len(series) - 1) / 2) if several else 0.0
        b = TOP + pitch * (one.line + 0.5) + offset
        colour = "var(--muted)" if one.hollow else _colour(one.series)
        if one.low is not None and one.high is not None:
            parts.append(_path(f"M{across(one.low):.1f} {b:.1f}H{across(one.high):.1f}", colour, 2))
        parts.append(
            _mark(across(one.mean), b, 3 if one.hollow else one.series, colour, one.hollow)
        )
    parts.append(_text((left + WIDTH - RIGHT) / 2, floor + 31, title, "middle"))
    return _svg(alt, parts, floor + 37, series)


def _across(axis: Axis, value: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * axis.at(value)


def _up(axis: Axis, value: float) -> float:
    return FLOOR - (FLOOR - TOP) * axis.at(value)


def _frame(x: Axis, y: Axis) -> Iterator[str]:
    """Rules, values at them, titles."""
    ticks = y.ticks()
    words = y.words(ticks)
    for tick, word in zip(ticks, words, strict=True):
        yield _path(f"M{LEFT} {_up(y, tick):.1f}H{WIDTH - RIGHT}", "var(--line)")
        yield _text(LEFT - 6, _up(y, tick) + 4, word, "end")
    ticks = x.ticks()
    for tick, word in zip(ticks, x.words(ticks), strict=True):
        yield _text(_across(x, tick), FLOOR + 15, word, "middle")
    yield _text((WIDTH + LEFT - RIGHT) / 2, HEIGHT - 6, x.title, "middle")
    beside = min(10.0, LEFT - 10 - DIGIT * max(map(len, words), default=0))  # long ones push it
    turned = f' transform="translate({beside:g} {(FLOOR + TOP) / 2}) rotate(-90)"'
    yield _text(0, 0, y.title, "middle", more=turned)


def _colour(series: int) -> str:
    return f"var(--s{series % SERIES})"


def _path(d: str, colour: str, width: float = 1, dashes: str = "", fill: str = "none") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="{d}" style="fill:{fill};stroke:{colour}" stroke-width="{width}"{dashed}/>'


def _text(
    x: float, y: float, text: str, anchor: str = "start", quiet: bool = True, more: str = ""
) -> str:
    kind = ' class="quiet"' if quiet else ""
    anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}"{anchored}{more}>{escape(text)}</text>'


def _mark(a: float, b: float, series: int, colour: str, hollow: bool = False) -> str:
    """A circle, square, triangle, diamond, cross or triangle upside down."""
    fill = "none" if hollow or series % SERIES == 4 else colour
    return _path(f"M{a:.1f} {b:.1f}{MARKS[series % SERIES]}", colour, 1.4, fill=fill)


def _legend(labels: Sequence[str], top: float, lines: bool) -> tuple[list[str], float]:
    """Names of the series below a plot, and where they end."""
    parts, at = [], 8.0
    for series, label in enumerate(labels):
        width = 34 + LETTER * len(label)
        if at > 8 and at + width > WIDTH:
            at, top = 8.0, top + 16
        if lines:
            dashes = DASHES[series % len(DASHES)]
            parts.append(_path(f"M{at:.1f} {top - 4:.1f}h16", _colour(series), 2, dashes))
        else:
            parts.append(_mark(at + 8, top - 4, series, _colour(series)))
        parts.append(_text(at + 20, top, label, quiet=False))
        at += width
    return parts, top + 6


def _svg(
    alt: str, parts: Sequence[str], height: float, labels: Sequence[str], lines: bool = False
) -> Markup:
    """The whole plot, with a legend where there are several series. Texts are escaped by then."""
    legend: list[str] = []
    if len(labels) > 1:
        legend, height = _legend(labels, height + 12, lines)
    body = "".join([*parts, *legend])
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(alt)}">{body}</svg>'
    )
