"""The measures of the tables: which one ranks a cell, and what a row says by each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

from iadd.leaderboard.rows import LeaderboardRow

Measure = Literal["accuracy", "balanced_accuracy", "sensitivity", "auroc"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
WORDS: dict[Measure, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "auroc": "area under the ROC curve",
}


class Value(NamedTuple):
    """A mean over seeds with its 95 % interval, all fractions; None: unknown."""

    mean: float | None
    low: float | None
    high: float | None


def value(row: LeaderboardRow, measure: Measure) -> Value:
    """What a row says by a measure; of a published value the accuracy alone is known."""
    mean = row.auroc if measure == "auroc" else getattr(row, f"{measure}_mean")
    return Value(mean, getattr(row, f"{measure}_low"), getattr(row, f"{measure}_high"))


def ranking_measure(rows: Iterable[LeaderboardRow]) -> Measure:
    """What the rows of one data set are ranked by: balanced accuracy where its tested classes are
    unequal, else accuracy."""
    return next((row.ranked_by for row in rows if row.ranked_by), "accuracy")


def other(measure: Measure) -> Measure:
    """Of accuracy and balanced accuracy, which are shown beside each other, the other one."""
    return "balanced_accuracy" if measure == "accuracy" else "accuracy"


def imbalanced(rows: Iterable[LeaderboardRow]) -> bool:
    """Whether a data set's tested classes are unequal: balanced accuracy stands beside accuracy."""
    return ranking_measure(rows) == "balanced_accuracy"


def ceiling_below(whole: LeaderboardRow, rows: Iterable[LeaderboardRow]) -> list[str]:
    """Methods of the cell whose mean is above that of training on all the real data, best first."""
    measure = ranking_measure([whole])
    top = value(whole, measure).mean
    if top is None:
        return []
    means = {
        row.method: value(row, measure).mean
        for row in rows
        if row.source != "published" and row.method != whole.method
    }
    above = {method: mean for method, mean in means.items() if mean is not None and mean > top}
    return sorted(above, key=lambda method: -above[method])
