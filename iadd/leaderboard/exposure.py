"""How much a set gives away: membership inference in numbers, distances against a yardstick.

All intervals are 95 %. See SPEC.md, section 10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri

from iadd.leaderboard.rows import Fraction, Row, Source, schema_of
from iadd.leaderboard.statistics import LEVEL, binomial_error, t_half

Values = NDArray[np.float64]
FALSE_POSITIVES = 0.01
"""The rate of false alarms at which an attack's true positives are counted."""
USUAL = 0.05
"""The share of held-out images that counts as unusually near."""
Z = float(ndtri(1 - LEVEL / 2))


@dataclass(frozen=True, kw_only=True)
class PrivacyRow(Row):
    """What one distilled set gives away of the images that it was distilled from.

    Lists have an entry an image of the set, as networks are trained on it. Rows are those of the
    training images; `share` is the share of held-out images that lie as near to a training image.
    `near`: images whose share is surely below 5 %. `usual`: the distance that 5 % of the held-out
    images fall short of, and the ends of its interval; `median`: the held-out images' median.
    """

    table = "privacy"
    key = ("dataset", "ipc", "method", "tuned", "source", "seed")

    dataset: str
    ipc: int
    method: str
    tuned: bool
    source: Source
    reconstruction: bool
    seed: int
    network: str  # whose features are compared, and which is attacked
    copies: int  # images that are training images, but for less than half a grey level
    pixel_row: list[int]
    pixel_distance: list[float]  # root mean square over pixels in [0, 1]
    pixel_share: list[float]
    pixel_near: int
    pixel_usual: list[float]
    pixel_median: float
    feature_row: list[int]
    feature_distance: list[float]  # Euclidean
    feature_share: list[float]
    feature_near: int
    feature_usual: list[float]
    feature_median: float
    members: int  # training images, all of which the set was distilled from
    held_out: int  # validation images, of which no distillation learnt
    shown: list[int]  # images whose nearest pairs the picture shows, from left to right
    data_auc: Fraction  # of the attack: who was in the data that were distilled
    data_auc_low: Fraction
    data_auc_high: Fraction
    data_tpr: Fraction  # true positives at 1 % false positives
    data_tpr_low: Fraction
    data_tpr_high: Fraction
    chosen_auc: Fraction | None = None  # of the attack: who stands in the set as he is
    chosen_auc_low: Fraction | None = None
    chosen_auc_high: Fraction | None = None
    chosen_tpr: Fraction | None = None
    chosen_tpr_low: Fraction | None = None
    chosen_tpr_high: Fraction | None = None


PRIVACY = schema_of(PrivacyRow)


class Interval(NamedTuple):
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def auc(members: Values, others: Values) -> Interval:
    """The chance that a member's score is above another's, ties counting one half.

    Standard error after DeLong et al. (Biometrics 44, 1988), never less than that of Hanley and
    McNeil (Radiology 143, 1982) at the share (n a + 2) / (n + 4), n being the smaller group: scores
    that part without an error do not give an interval of width zero.
    """
    above, below = _wins(members, others), 1 - _wins(others, members)
    m, n, a = len(members), len(others), float(above.mean())
    own = sum(part.var(ddof=1) / len(part) for part in (above, below) if len(part) > 1)
    error = max(math.sqrt(own), _hanley_mcneil((min(m, n) * a + 2) / (min(m, n) + 4), m, n))
    return Interval(a, max(0.0, a - Z * error), min(1.0, a + Z * error))


def _wins(one: Values, other: Values) -> Values:
    """Of each of one group, the share of the other group that it is above, ties counting half."""
    ordered = np.sort(other)
    below, upto = np.searchsorted(ordered, one, "left"), np.searchsorted(ordered, one, "right")
    return np.asarray((below + upto) / (2 * len(other)), dtype=np.float64)


def _hanley_mcneil(a: float, m: int, n: int) -> float:
    one, other = a / (2 - a) - a * a, 2 * a * a / (1 + a) - a * a
    return math.sqrt((a * (1 - a) + (m - 1) * one + (n - 1) * other) / (m * n))


def true_positives(members: Values, others: Values, rate: float = FALSE_POSITIVES) -> Interval:
    """The share of members above a threshold that at most `rate` of the others are above.

    Where the threshold truly lies is known by ranks only: the interval takes its ends, and there
    those of the share (Agresti and Coull). With fewer than 368 others the upper end of a threshold
    of 1 % is unknown, and so the lower end of the share is 0.
    """
    found = quantile(others, 1 - rate)
    allowed = int(rate * len(others))
    share = float((members > np.sort(others)[len(others) - 1 - allowed]).mean())
    least, most = (float((members > end).mean()) for end in (found.high, found.low))
    low, high = (
        least - Z * binomial_error(least, len(members)),
        most + Z * binomial_error(most, len(members)),
    )
    return Interval(share, min(share, max(0.0, low)), max(share, min(1.0, high)))


def quantile(values: Values, share: float) -> Interval:
    """A quantile and its interval by ranks, which holds for every distribution; an end that n
    values cannot tell is infinite."""
    n = len(values)
    below = bdtr(np.arange(n + 1), n, share)  # P(at most k of n lie below the true quantile)
    first, last = (int(np.searchsorted(below, end)) for end in (LEVEL / 2, 1 - LEVEL / 2))
    bounded = np.concatenate([[-np.inf], np.sort(values), [np.inf]])
    return Interval(
        float(np.quantile(values, share)), float(bounded[first]), float(bounded[last + 1])
    )


def shares(distances: Values, held_out: Values) -> Values:
    """Of each distance, the share of held-out images that lie as near to a training image."""
    return np.asarray(
        np.searchsorted(np.sort(held_out), distances, "right") / len(held_out), dtype=np.float64
    )


def named(found: Values, held_out: int) -> NDArray[np.bool_]:
    """Images that are surely nearer than usual: the interval of their share ends below 5 %."""
    ends = [share + Z * binomial_error(float(share), held_out) for share in found]
    return np.array(ends) < USUAL


def distances_of(kind: str, rows: Sequence[int], found: Values, held_out: Values) -> dict[str, Any]:
    """The columns of a `PrivacyRow` that tell distances of one kind, `pixel` or `feature`."""
    of_set = shares(found, held_out)
    return {
        f"{kind}_row": list(rows),
        f"{kind}_distance": found.tolist(),
        f"{kind}_share": of_set.tolist(),
        f"{kind}_near": int(named(of_set, len(held_out)).sum()),
        f"{kind}_usual": list(quantile(held_out, USUAL)),
        f"{kind}_median": float(np.median(held_out)),
    }


def attack_of(kind: str, members: Values, others: Values) -> dict[str, Any]:
    """The columns of a `PrivacyRow` of an attack on one kind of members, `data` or `chosen`."""
    if not len(members):
        return {}
    found = {"auc": auc(members, others), "tpr": true_positives(members, others)}
    ends = ("", "_low", "_high")
    return {
        f"{kind}_{name}{end}": value
        for name, interval in found.items()
        for end, value in zip(ends, interval, strict=True)
    }


class Exposure(NamedTuple):
    """What a method's sets of all seeds give away, at one ipc of one data set."""

    dataset: str
    ipc: int
    method: str
    tuned: bool
    source: str
    reconstruction: bool
    seeds: int
    images: int
    copies: float
    """Share of the images that are training images; so are the next two of those too near."""
    pixel_near: float
    feature_near: float
    pixel_median: float
    """The median image's distance, as a multiple of the held-out images' median."""
    feature_median: float
    data_auc: Interval
    data_tpr: Interval
    chosen_auc: Interval | None
    """Of the images that stand in the set as they are; None where there are none."""
    chosen_tpr: Interval | None


def summaries(rows: Sequence[PrivacyRow]) -> list[Exposure]:
    """A line a data set, ipc and method, in the order of the table, over its seeds."""

    def group(row: PrivacyRow) -> tuple[Any, ...]:
        return row.dataset, row.ipc, row.method, row.tuned, row.source, row.reconstruction

    found = []
    for key, grouped in groupby(rows, key=group):
        seeds = list(grouped)
        images = sum(len(row.pixel_row) for row in seeds)
        values: dict[str, Any] = {"seeds": len(seeds), "images": images // len(seeds)}
        for name in ("copies", "pixel_near", "feature_near"):
            values[name] = sum(getattr(row, name) for row in seeds) / images
        for name in ("pixel", "feature"):
            distances = [d for row in seeds for d in getattr(row, f"{name}_distance")]
            usual = getattr(seeds[0], f"{name}_median")
            values[f"{name}_median"] = float(np.median(distances)) / max(usual, 1e-12)
        for name in ("data_auc", "data_tpr", "chosen_auc", "chosen_tpr"):
            values[name] = over_seeds(seeds, name)
        found.append(Exposure(*key, **values))
    return found


def over_seeds(rows: Sequence[PrivacyRow], name: str) -> Interval | None:
    """The mean over seeds; its interval is that of a seed on average, which is of the images, or
    the t interval over seeds where that is wider. None where no seed has the value."""
    found = [[getattr(row, name + end) for end in ("", "_low", "_high")] for row in rows]
    known = np.array([values for values in found if values[0] is not None], dtype=np.float64)
    if not len(known):
        return None
    mean, low, high = known.mean(0)
    if len(known) > 1:
        half = t_half(float(known[:, 0].std(ddof=1)), len(known))
        low, high = min(low, mean - half), max(high, mean + half)
    return Interval(float(mean), max(0.0, float(low)), min(1.0, float(high)))
