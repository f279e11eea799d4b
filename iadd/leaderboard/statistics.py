"""How good and how sure: intervals and comparisons (SPEC.md, section 5), robust scores (section 4).

The unit is the distillation seed; it counts with the mean of its networks, which share its luck.
The floors, after Agresti and Coull (The American Statistician 52(2), 1998), keep seeds that agree
by luck from claiming more than N test images tell. For two methods the floor follows from
McNemar's test: on the same N images the variance of a difference d between two classifiers is
(share - d^2) / N, where the share of images that only one of them gets right is at least |d|.

tests/test_statistics.py simulates coverage and false differences and works cases by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit  # light; scipy.stats would take a second

LEVEL = 0.05


class Estimate(NamedTuple):
    """A mean accuracy over seeds, their standard deviation, the 95 % interval; None: unknown."""

    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None


def estimate(means: Sequence[float], test_images: float) -> Estimate:
    """Mean and 95 % interval of the seeds' means, clipped to [0, 1]; one seed has no interval.

    Args:
        means: accuracy of each seed, a fraction.
        test_images: size of the test set; for balanced accuracy `effective_size`.

    Raises:
        ValueError: no seed, or no test image.
    """
    n = len(means)
    if not n or not test_images > 0:
        raise ValueError(
            f"estimate: {n} seeds and {test_images} test images, at least one is needed"
        )
    return _estimate(means, lambda mean: binomial_error(mean, test_images))


def estimate_auroc(areas: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]]) -> Estimate:
    """Mean area under the ROC curve over classes and seeds, with its 95 % interval over seeds.

    Args:
        areas: of each seed the areas of some classes, fractions.
        pairs: of each of these classes the test images that are of it, and that are not.

    The floor is the mean of the classes' own errors, as if they erred together: never too small.

    Raises:
        ValueError: no seed.
    """
    if not len(areas):
        raise ValueError("estimate: 0 seeds, at least one is needed")
    by_class = np.mean(areas, axis=0)
    errors = [auroc_error(area, *n) for area, n in zip(by_class, pairs, strict=True)]
    return _estimate(np.mean(areas, axis=1).tolist(), lambda _: float(np.mean(errors)))


def _estimate(means: Sequence[float], error: Callable[[float], float]) -> Estimate:
    """error: the standard error that the test set alone leaves to a mean."""
    n, mean = len(means), float(np.mean(means))
    if n == 1:
        return Estimate(mean)
    std = float(np.std(means, ddof=1))
    half = max(float(t_half(std, n)), float(ndtri(1 - LEVEL / 2)) * error(mean))
    return Estimate(mean, std, max(0.0, mean - half), min(1.0, mean + half))


def binomial_error(share: Any, test_images: float) -> Any:
    """Standard error of a share of the test images, after Agresti and Coull: never zero.

    share: a number, or an array of them.
    """
    centre = (test_images * share + 2) / (test_images + 4)
    return np.sqrt(centre * (1 - centre) / (test_images + 4))


def half_width(share: float, test_images: float) -> float:
    """Half of the narrowest 95 % interval that a share of the test images can have."""
    return float(ndtri(1 - LEVEL / 2) * binomial_error(share, test_images))


def auroc_error(area: float, own: int, others: int) -> float:
    """Standard error of an area under the ROC curve from `own` against `others` test images.

    Hanley and McNeil, Radiology 143(1), 1982, at the area moved towards 1/2 as Agresti and Coull
    move a share, by the smaller of the two numbers: so it is never zero.
    """
    n = min(own, others)
    a = (n * area + 2) / (n + 4)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    spread = a * (1 - a) + (own - 1) * (q1 - a * a) + (others - 1) * (q2 - a * a)
    return math.sqrt(spread / (own * others))


def effective_size(class_counts: Sequence[int]) -> float:
    """Test images of equally frequent classes that give balanced accuracy the same error."""
    counts = [count for count in class_counts if count]
    return len(counts) ** 2 / sum(1 / count for count in counts)


class Comparisons(NamedTuple):
    """The pairs of one cell's methods over their common seeds: arrays with an entry a pair.

    `one`, `other`: the methods' places in the given order. `difference`: mean of `one` minus
    `other`, `low` and `high` the ends of its 95 % interval, `std` the deviation of the seeds'
    differences. `p` is two-sided, `p_holm` corrected for all these pairs.
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    seeds: NDArray[np.int64]
    difference: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]
    p_holm: NDArray[np.float64]
    std: NDArray[np.float64]

    @property
    def significant(self) -> NDArray[np.bool_]:
        """Which differences hold at 5 % among all these pairs."""
        return self.p_holm < LEVEL


def compare_all(methods: Mapping[str, Mapping[int, float]], test_images: float) -> Comparisons:
    """Every pair of one cell's methods that have two common seeds, corrected together by Holm.

    An interval excludes 0 exactly where p < 0.05.

    Args:
        methods: name -> seed -> mean accuracy of its networks.
        test_images: size of the test set that all were tested on.
    """
    seeds = sorted({seed for means in methods.values() for seed in means})
    scores = np.array([[m.get(s, np.nan) for s in seeds] for m in methods.values()], np.float64)
    one, other = np.triu_indices(len(methods), 1)
    differences = scores[one] - scores[other] if len(one) else np.empty((0, len(seeds)))
    n = np.isfinite(differences).sum(axis=1)
    one, other, n, differences = one[n > 1], other[n > 1], n[n > 1], differences[n > 1]
    difference, low, high, p, std = _paired(differences, test_images)
    return Comparisons(one, other, n, difference, low, high, p, holm(p), std)


def _paired(
    differences: NDArray[np.float64], test_images: float
) -> tuple[NDArray[np.float64], ...]:
    """Mean, ends of its interval, p-value, standard deviation of rows of differences (P, S), NaN
    where a seed is not common; two or more are."""
    there = np.isfinite(differences)
    n = there.sum(axis=1)
    mean = np.where(there, differences, 0).sum(axis=1) / n
    squares = np.where(there, differences - mean[:, None], 0) ** 2
    std = np.sqrt(squares.sum(axis=1) / (n - 1))
    error = binomial_error(np.abs(mean), test_images)
    half = np.maximum(t_half(std, n), ndtri(1 - LEVEL / 2) * error)
    return mean, mean - half, mean + half, p_value(mean, std, n, error), std


def p_value(mean: Any, std: Any, n: Any, error: Any) -> Any:
    """Two-sided, of n differences with this mean and deviation; `error` is that of the test set."""
    scaled = -np.abs(mean) * np.sqrt(n) / np.where(std > 0, std, 1)
    over_seeds = np.where(std > 0, stdtr(n - 1, scaled), 0)
    return np.where(mean == 0, 1, 2 * np.maximum(over_seeds, ndtr(-np.abs(mean) / error)))


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's adjusted p-values, in the given order: a family's error holds at any level."""
    raw = np.asarray(p_values, dtype=np.float64)
    order, adjusted = np.argsort(raw, kind="stable"), np.empty_like(raw)
    scaled = np.minimum(1, raw[order] * np.arange(len(raw), 0, -1))
    adjusted[order] = np.maximum.accumulate(scaled)
    return adjusted


Verdict = Literal["agrees", "lower", "higher", "undecided"]
MARGIN = 0.01
"""A difference from a published value that an interval must be able to tell from nothing."""
FURTHEST = 1000
"""Seeds beyond which more of them are no answer."""


def agreement(
    found: Estimate, seeds: int, test_images: float, published: float, spread: float
) -> tuple[Verdict, int | None]:
    """How a measured mean stands to a published value, and how many more seeds would settle it.

    The published value counts as the range `published` +- `spread`. The measured interval lies
    below it (`lower`), above it (`higher`), or meets it: `agrees` if half its width is no more than
    a margin of one point (or what this test set can tell, where that is more), else `undecided`.

    Args:
        found: mean, standard deviation and interval of the measured seeds.
        spread: the published standard deviation; 0 where there is none.

    Returns:
        The verdict; for `undecided`, the seeds to add so that another verdict falls if mean and
        standard deviation stay as they are, None where that is not known (one seed) or is hopeless.
    """
    if found.mean is None or found.std is None:
        return "undecided", None
    floor = float(ndtri(1 - LEVEL / 2)) * binomial_error(found.mean, test_images)
    verdict: Verdict = "undecided"
    for n in range(seeds, FURTHEST):
        half = max(t_half(found.std, n), floor)
        if found.mean + half < published - spread:
            verdict = "lower"
        elif found.mean - half > published + spread:
            verdict = "higher"
        elif half <= max(MARGIN, floor):
            verdict = "agrees"
        if verdict != "undecided":
            return (verdict, None) if n == seeds else ("undecided", n - seeds)
    return "undecided", None


def t_half(std: Any, n: Any) -> Any:
    """Half the width of the t interval of a mean of n values with this standard deviation."""
    return stdtrit(n - 1, 1 - LEVEL / 2) * std / np.sqrt(n)


def label_robust_score(full: float, synthetic: float, random: float) -> float:
    """DD-Ranking's label-robust score, in [0, 1] (arXiv 2505.13300).

    From accuracies with hard labels, as fractions, of the whole data, of the distilled set and of
    as many random real images. ValueError for percent points.
    """
    _check_fractions(full=full, synthetic=synthetic, random=random)
    return _normalised(((synthetic - random) - (full - synthetic)) / 2)


def augmentation_robust_score(
    synthetic_aug: float, random_aug: float, synthetic_plain: float, random_plain: float
) -> float:
    """DD-Ranking's augmentation-robust score, in [0, 1]: gains with and without augmentation.

    ValueError for percent points.
    """
    _check_fractions(synthetic_aug=synthetic_aug, random_aug=random_aug)
    _check_fractions(synthetic_plain=synthetic_plain, random_plain=random_plain)
    return _normalised(((synthetic_aug - random_aug) + (synthetic_plain - random_plain)) / 2)


def _normalised(score: float) -> float:
    """Map [-1, 1] onto [0, 1]."""
    return (math.exp(score) - math.exp(-1)) / (math.e - math.exp(-1))


def _check_fractions(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} = {value}: must be a fraction in [0, 1], not percent points")
