"""Plots: values where they belong, axes that can be read, names that cover nothing."""

from __future__ import annotations

import re

import pytest

from iadd.leaderboard.site.chart import (
    DIGIT,
    FLOOR,
    LEFT,
    LETTER,
    TOP,
    Axis,
    Curve,
    Dot,
    Whisker,
    curves,
    scatter,
    whiskers,
)
from iadd.leaderboard.site.labels import Box, Point, place

FRAME = Box(0, 0, 200, 100)


def heights(plot: str, colour: str) -> list[float]:
    """Where a colour's intervals lie, downwards."""
    return [
        float(y) for y in re.findall(rf'd="M[\d.]+ ([\d.]+)H[^"]*" style="[^"]*{colour}\)', plot)
    ]


def test_a_mark_of_any_series_stands_in_the_line_of_its_name() -> None:
    found = [Whisker(0, 0.1, 0.0, 0.2, 0), Whisker(1, -0.1, -0.2, 0.0, 4)]
    plot = str(whiskers("alt", "points", ["a", "b"], [""], found, zero=True))
    names = {m[1]: float(m[0]) for m in re.findall(r'y="([\d.]+)"[^>]*>(a|b)</text>', plot)}
    (first,), (second,) = heights(plot, "s0"), heights(plot, "s4")
    assert first == pytest.approx(names["a"] - 4) and second == pytest.approx(names["b"] - 4)


def test_several_series_stand_below_each_other() -> None:
    found = [Whisker(0, 0.5, 0.4, 0.6, k) for k in range(3)]
    plot = str(whiskers("alt", "accuracy", ["a"], ["x", "y", "z"], found))
    rows = [heights(plot, f"s{k}")[0] for k in range(3)]
    assert rows[1] - rows[0] == rows[2] - rows[1] == 7


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.99985, 1.0001), (0.1, 1.0), (20_000.0, 90_000.0), (1e-7, 3e-7), (401.0, 570.0), (0.3, 1.1)],
)
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_tells_its_values_apart(low: float, high: float, log: bool) -> None:
    axis = Axis.over("x", [low, high], log)
    words = axis.words(axis.ticks())
    assert len(set(words)) == len(words) >= 3
    assert [float(word) for word in words] == pytest.approx(axis.ticks())
    assert all(0 <= axis.at(tick) <= 1 for tick in axis.ticks())


def test_what_rounding_alone_moves_is_a_flat_line() -> None:
    axis = Axis.over("x", [1.0, 1.0 + 1e-9, 1.0 - 1e-9])
    assert axis.low == pytest.approx(0.95) and axis.high == pytest.approx(1.05)
    plot = str(curves("alt", Axis("k", 0, 2), axis, [Curve("w", [0, 1, 2], [1, 1 + 1e-9, 1])]))
    (line,) = re.findall(r'd="(M[\d.]+ [\d.]+L[^"]*)"', plot)
    assert {y for _, y in re.findall(r"([\d.]+) ([\d.]+)", line)} == {f"{(TOP + FLOOR) / 2:.1f}"}


def test_an_axis_ends_where_values_cannot_go_on() -> None:
    assert Axis.over("accuracy, %", [100.0, 100.0], most=100.0).high == 100.0
    assert Axis.over("accuracy, %", [50.0, 60.0], most=100.0).high == pytest.approx(60.4)


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.99975, 1.0], [-0.000012345, -0.000012344]])
def test_the_name_of_an_axis_lies_beside_its_values(values: list[float]) -> None:
    axis = Axis.over("share", values)
    longest = max(map(len, axis.words(axis.ticks())))
    plot = str(curves("alt", Axis("k", 0, 1), axis, [Curve("w", [0, 1], values)]))
    (beside,) = re.findall(r"translate\((-?[\d.]+) ", plot)
    assert float(beside) + 3 <= LEFT - 6 - DIGIT * longest  # letters reach 3 below their line


def test_names_meet_neither_points_nor_each_other() -> None:
    points = [Point(100 + k, 50 + k % 3, 30) for k in range(8)]
    marks = [Box(p.x - 4, p.y - 4, p.x + 4, p.y + 4) for p in points]
    found = place(points, marks, FRAME)
    assert all(found)
    lefts = [(one.x - 30 * one.before, one.y) for one in found if one]
    boxes = [Box(x, y - 8, x + 30, y + 1) for x, y in lefts]
    for k, one in enumerate(boxes):
        assert min(one) >= 0 and one.right <= 200 and one.bottom <= 100
        for other in [*boxes[:k], *marks]:
            beside = one.left < other.right and other.left < one.right
            assert not (beside and one.top < other.bottom and other.top < one.bottom)


def test_no_name_crosses_an_interval() -> None:
    dots = [Dot("a", 1.0, 1.0, 0.2, 1.8), Dot("somebody", 0.9, 1.0)]
    plot = str(scatter("alt", Axis("x", 0, 2), Axis("y", 0, 2), dots))
    (at,) = re.findall(r'x="([\d.]+)" y="[\d.]+"( text-anchor="end")?>somebody<', plot)
    (bar,) = re.findall(r"M([\d.]+) [\d.]+V[\d.]+\" style=\"[^\"]*\" stroke-width=\"0.6\"", plot)
    left = float(at[0]) - (LETTER * len("somebody") if at[1] else 0)
    assert float(bar) < left or float(bar) > left + LETTER * len("somebody")


def test_a_name_without_room_is_left_out_and_one_far_away_is_led_to_its_point() -> None:
    assert place([Point(100, 50, 300)], [], FRAME) == [None]
    (label,) = place([Point(100, 50, 30)], [Box(0, 30, 200, 70)], FRAME)
    assert label is not None and label.led
    dots = [Dot("far-away-name", 1.0, 1.0 + k / 1000, front=k == 0) for k in range(30)]
    plot = str(scatter("alt", Axis("x", 0, 2), Axis("y", 0, 2), dots))
    assert 2 <= plot.count(">far-away-name</text>") < 30
