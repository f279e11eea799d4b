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
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
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
    mean = float(np.mean(means))
    if n == 1:
        return Estimate(mean)
    std = float(np.std(means, ddof=1))
    floor = ndtri(1 - LEVEL / 2) * binomial_error(mean, test_images)
    half = float(max(stdtrit(n - 1, 1 - LEVEL / 2) * std / math.sqrt(n), floor))
    return Estimate(mean, std, max(0.0, mean - half), min(1.0, mean + half))


def binomial_error(share: float, test_images: float) -> float:
    """Standard error of a share of the test images, after Agresti and Coull: never zero."""
    centre = (test_images * share + 2) / (test_images + 4)
    return math.sqrt(centre * (1 - centre) / (test_images + 4))


def effective_size(class_counts: Sequence[int]) -> float:
    """Test images of equally frequent classes that give balanced accuracy the same error."""
    counts = [count for count in class_counts if count]
    return len(counts) ** 2 / sum(1 / count for count in counts)


def paired_p_value(
    one: Mapping[int, float], other: Mapping[int, float], test_images: float
) -> float:
    """Two-sided p-value of the difference of two methods over their common seeds.

    Args:
        one, other: seed -> mean accuracy of its networks.
        test_images: size of the test set that both were tested on.

    Returns 1 where fewer than two seeds are common: nothing can be said.
    """
    common = sorted(one.keys() & other.keys())
    if len(common) < 2:
        return 1.0
    differences = np.array([one[seed] - other[seed] for seed in common])
    mean, std = abs(float(differences.mean())), float(differences.std(ddof=1))
    if mean == 0:
        return 1.0
    n = len(common)
    over_seeds = stdtr(n - 1, -mean * math.sqrt(n) / std) if std > 0 else 0.0
    return 2 * float(max(over_seeds, ndtr(-mean / binomial_error(mean, test_images))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: a family's error holds at any level."""
    raw = np.asarray(p_values, dtype=np.float64)
    order, adjusted = np.argsort(raw, kind="stable"), np.empty_like(raw)
    scaled = np.minimum(1, raw[order] * np.arange(len(raw), 0, -1))
    adjusted[order] = np.maximum.accumulate(scaled)
    return [float(p) for p in adjusted]


def significantly_better(
    methods: Mapping[str, Mapping[int, float]], test_images: float
) -> set[tuple[str, str]]:
    """All (better, worse) pairs of one cell's methods that differ at 5 %, corrected by Holm.

    methods: name -> seed -> mean accuracy.
    """
    pairs = list(combinations(methods, 2))
    raw = [paired_p_value(methods[a], methods[b], test_images) for a, b in pairs]
    found = set()
    for (a, b), p in zip(pairs, holm(raw), strict=True):
        if p < LEVEL:
            common = methods[a].keys() & methods[b].keys()
            ahead = sum(methods[a][seed] - methods[b][seed] for seed in common) > 0
            found.add((a, b) if ahead else (b, a))
    return found


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
