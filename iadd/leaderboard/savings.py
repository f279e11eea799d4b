"""What a distilled set saves against the whole data: storage, transmission, training time.

Storage and transmission are computed from sizes. Training time is measured where the benchmark
trains on the whole data too (method `whole`); else it is a forecast, and called so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from iadd.leaderboard.cells import WHOLE, cell_of
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.training import Training

BANDWIDTH = 100e6
"""Bits a second at which transmission is told: 100 Mbit/s."""
BACKWARD = 2.0
"""What the gradient costs beside one forward pass, in passes."""


class Data(NamedTuple):
    """The training part of a data set."""

    images: int
    classes: int
    bytes: int
    """Of its decoded pixels in the depth that they came in, and 8 a label."""


def data_of(
    counts: Sequence[int], channels: int, resolution: int, values: tuple[float, float]
) -> Data:
    """What is known of a training part from its images a class, its shape, its values' range.

    A value has one byte up to 255, two up to 65,535; floats, which lie in 0 to 1, have four.
    """
    high = values[1]
    depth = 4 if high <= 1 or high > 65535 else 1 if high <= 255 else 2
    images = sum(counts)
    return Data(images, len(counts), images * (channels * resolution**2 * depth + 8))


def with_savings(
    leaderboard: Iterable[LeaderboardRow],
    data: Mapping[str, Data],
    trainings: Mapping[str, Training],
) -> list[LeaderboardRow]:
    """Leaderboard rows with what their sets save.

    Args:
        data: by data set; trainings: by protocol.
    """
    rows = list(leaderboard)
    measured = {cell_of(row): row.train_seconds for row in rows if row.method == WHOLE}
    forecasts = _forecasts(rows, data, trainings)
    found = []
    for row in rows:
        if row.source == "published" or row.dataset not in data:
            found.append(row)
            continue
        seconds, how = measured.get(cell_of(row)), "measured"
        if seconds is None:
            seconds, how = forecasts.get((row.dataset, row.network_eval, row.protocol)), "forecast"
        whole = data[row.dataset].bytes
        size = whole if row.method == WHOLE else row.bytes
        found.append(
            replace(
                row,
                whole_bytes=whole,
                bytes_share=None if size is None else size / whole,
                transmission_seconds=None if size is None else transmission(size),
                whole_transmission_seconds=transmission(whole),
                whole_train_seconds=seconds,
                whole_train_source=None if seconds is None else how,  # type: ignore[arg-type]
            )
        )
    return found


def transmission(size: int) -> float:
    """Seconds that so many bytes take at `BANDWIDTH`."""
    return 8 * size / BANDWIDTH


def _forecasts(
    rows: Sequence[LeaderboardRow], data: Mapping[str, Data], trainings: Mapping[str, Training]
) -> dict[tuple[str, str, str], float]:
    """Seconds of training on the whole data, by data set, network and protocol.

    From the largest sets, whose steps have the least overhead, and of these the fastest: so that
    what is saved is not overstated.
    """
    rates: dict[tuple[str, str, str], list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        if row.method == WHOLE or row.train_seconds is None or row.dataset not in data:
            continue
        if row.protocol in trainings:
            images = row.ipc * data[row.dataset].classes
            passes = _passes(images, trainings[row.protocol].epochs, row.test_images)
            key = (row.dataset, row.network_eval, row.protocol)
            rates[key].append((-images, row.train_seconds / passes))
    found = {}
    for (dataset, network, protocol), seen in rates.items():
        tests = next(row.test_images for row in rows if row.dataset == dataset)
        passes = _passes(data[dataset].images, trainings[protocol].whole_epochs, tests)
        found[dataset, network, protocol] = min(seen)[1] * passes
    return found


def _passes(images: int, epochs: int, test_images: int | None) -> float:
    """Forward passes of one image that training, and testing once, come to."""
    return (1 + BACKWARD) * epochs * images + (test_images or 0)


def savings_words(rows: Sequence[LeaderboardRow]) -> str:
    """What the sets of one cell save, in a line; empty where that is not known."""
    sets = [row for row in rows if row.bytes_share is not None and row.method != WHOLE]
    if not sets:
        return ""
    first = sets[0]
    words = "Saved: " + ", ".join(
        [
            f"{_range(size_words, (row.bytes for row in sets))} instead of "
            f"{size_words(first.whole_bytes)}",
            f"sent in {_range(time_words, (row.transmission_seconds for row in sets))} instead of "
            f"{time_words(first.whole_transmission_seconds)} at {BANDWIDTH / 1e6:.0f} Mbit/s",
        ]
    )
    times = [row.train_seconds for row in sets if row.train_seconds is not None]
    if times and first.whole_train_seconds is not None:
        forecast = " (forecast)" * (first.whole_train_source == "forecast")
        words += f", trained on in {_range(time_words, times)} instead of "
        words += f"{time_words(first.whole_train_seconds)}{forecast}"
    return words + "."


def _range(form: Callable[[float | None], str], values: Iterable[float | None]) -> str:
    """The smallest and the largest value in words, or the only one."""
    known = [value for value in values if value is not None]
    return " to ".join(dict.fromkeys((form(min(known)), form(max(known)))))


def stored_bytes(row: LeaderboardRow) -> int | None:
    """What the images of a row take up; those of `whole` in the depth that they came in."""
    return row.whole_bytes if row.method == WHOLE else row.bytes


def size_words(count: float | None) -> str:
    """Bytes in the unit that people would use."""
    return _scaled(count or 0.0, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")))


def time_words(seconds: float | None) -> str:
    """Seconds in the unit that people would use, also where they are very few."""
    return _scaled(seconds or 0.0, ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")))


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    """A value in the largest unit of which it is at least one; the last one for less."""
    unit, name = next(((u, n) for u, n in units if value >= u), units[-1])
    number = value / unit
    return f"{number:.0f} {name}" if number >= 100 else f"{number:.2g} {name}"
