"""How the networks of each protocol were trained: what a benchmark sets of it, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from iadd.evaluation import PROTOCOLS, Protocol
from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.rows import LeaderboardRow


class Training(NamedTuple):
    """A protocol as the benchmark's configuration has it."""

    epochs: int
    """On a distilled set."""
    whole_epochs: int
    batch: int
    step_size: float
    """For sets that bring none, or that the protocol takes none of."""


def with_training(
    leaderboard: Iterable[LeaderboardRow], trainings: Mapping[str, Training]
) -> list[LeaderboardRow]:
    """Leaderboard rows that tell how their networks were trained; trainings: by protocol."""
    return [
        row
        if row.source == "published" or (found := trainings.get(row.protocol)) is None
        else replace(
            row,
            epochs=found.whole_epochs if row.method == WHOLE else found.epochs,
            batch=found.batch,
            default_step_size=found.step_size,
        )
        for row in leaderboard
    ]


def training_lines(leaderboard: Iterable[LeaderboardRow]) -> list[str]:
    """A sentence for the protocols that train alike, in the order of the rows."""
    found: dict[str, list[LeaderboardRow]] = {}
    for row in leaderboard:
        if row.epochs is not None:
            found.setdefault(row.protocol, []).append(row)
    alike: dict[str, list[str]] = {}
    for protocol, rows in found.items():
        alike.setdefault(_words(protocol, rows), []).append(protocol)
    return [
        f"Protocol{'s' * (len(names) > 1)} {' and '.join(names)}: networks are trained for {words}"
        for words, names in alike.items()
    ]


def _words(protocol: str, rows: Sequence[LeaderboardRow]) -> str:
    rules = PROTOCOLS.get(protocol, Protocol())
    sets = [row for row in rows if row.method != WHOLE]
    whole = [row for row in rows if row.method == WHOLE]
    epochs = []
    if sets:
        own = "" if sets[0].epochs == rules.epochs else f" (the protocol's own: {rules.epochs:,})"
        epochs.append(f"{_epochs(sets[0])} on a distilled set{own}")
    if whole:
        epochs.append(f"{_epochs(whole[0])} on the whole data")
    size = f"{rows[0].default_step_size:g}"
    step = f"{size} for every set"
    if rules.learned_step_size:
        tried = ", ".join(f"{rate:g}" for rate in rules.rates)
        best = f"the one of {tried} that is best on validation data" if tried else size
        step = f"the set's own where it learned one, else {best}"
    return (
        f"{' and '.join(epochs)}, in batches of at most "
        f"{rows[0].batch}, by SGD with momentum 0.9 and weight decay 5e-4; step size: {step}, a "
        "tenth of it from half of the epochs on."
    )


def _epochs(row: LeaderboardRow) -> str:
    return f"{row.epochs:,} epoch{'s' * (row.epochs != 1)}"
