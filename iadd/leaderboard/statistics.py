"""How good and how sure: t intervals over distillation seeds, paired comparisons, robust scores.

Networks trained on one distilled set share its luck, so the unit is the distillation seed: each
seed counts with the mean of its networks.

*One method.* The 95 % interval of its mean m over n seeds has the half width

    max(t(0.975, n - 1) * s / sqrt(n),  z(0.975) * b(m))

with s the standard deviation of the seeds' means and b(m) the binomial error of a test set of N
images, after Agresti and Coull (The American Statistician 52(2), 1998) so that it is never zero:

    b(p) = sqrt(q * (1 - q) / (N + 4)),  q = (N * p + 2) / (N + 4).

Few seeds agree by luck now and then; the floor keeps them from claiming more than N images tell.

*Two methods.* Seed s means the same initial images, expert draws and evaluation networks for every
method, so the seeds are paired: with d the mean of the differences over the common seeds and s
their standard deviation, the p-value is

    max(2 * T(-|d| * sqrt(n) / s; n - 1),  2 * Z(-|d| / b(|d|)))

with T and Z the distribution functions of Student's t and of the normal. The second part is the
floor: on the same N images the variance of a difference between two classifiers is
(share - d^2) / N, where the share of images that only one of them gets right (McNemar's discordant
ones) is at least |d|. So |d| * (1 - |d|) / N is the least that it can be, and equal differences do
not give certainty: on 360 images a difference of six is the smallest that can be significant.

*Many methods.* All pairs of a cell are corrected together by Holm's method: the chance of even one
false difference in the cell stays below 5 %.

Balanced accuracy goes by the same formulas; its N is the number of images with the same error if
classes were equally frequent: K^2 / sum(1 / N_c) for K classes of N_c images.

tests/test_statistics.py simulates coverage and false differences and works cases by hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.05
SEEDS_LIMIT = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean accuracy over seeds: the mean, the seeds' standard deviation, the 95 % interval.

    std, low and high are None where there is one seed: it has no spread.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None


def estimate(means: Sequence[float], test_images: float) -> Estimate:
    """Mean and 95 % interval of the seeds' means, clipped to [0, 1] (see this module's page).

    Args:
        means: accuracy of each seed, a fraction.
        test_images: size of the test set; for balanced accuracy `effective_size`.

    Raises:
        ValueError: no seed, or no test image.
    """
    values = np.asarray(means, dtype=np.float64)
    if not values.size or not test_images > 0:
        raise ValueError(
            f"estimate: {values.size} seeds and {test_images} test images, at least one is needed"
        )
    mean, n = float(values.mean()), values.size
    if n == 1:
        return Estimate(mean, None, None, None)
    std = float(values.std(ddof=1))
    floor = _normal_quantile(1 - LEVEL / 2) * binomial_error(mean, test_images)
    half = max(_t_quantile(1 - LEVEL / 2, n - 1) * std / math.sqrt(n), floor)
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
    return _p_value(
        abs(float(differences.mean())), float(differences.std(ddof=1)), len(common), test_images
    )


def _p_value(difference: float, std: float, seeds: int, test_images: float) -> float:
    from scipy.special import ndtr, stdtr  # light; scipy.stats would take a second

    if difference == 0:
        return 1.0
    over_seeds = 0.0
    if std > 0:
        over_seeds = 2 * float(stdtr(seeds - 1, -difference * math.sqrt(seeds) / std))
    floor = 2 * float(ndtr(-difference / binomial_error(difference, test_images)))
    return max(over_seeds, floor)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: a family's error holds at any level."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, p_values[k] * (len(order) - rank)))
        adjusted[k] = largest
    return adjusted


def significantly_better(
    methods: Mapping[str, Mapping[int, float]], test_images: float
) -> set[tuple[str, str]]:
    """All (better, worse) pairs of one cell's methods that differ at 5 %, corrected by Holm.

    methods: name -> seed -> mean accuracy.
    """
    names = list(methods)
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    raw = [paired_p_value(methods[a], methods[b], test_images) for a, b in pairs]
    found = set()
    for (a, b), p in zip(pairs, holm(raw), strict=True):
        if p < LEVEL:
            common = methods[a].keys() & methods[b].keys()
            ahead = sum(methods[a][seed] - methods[b][seed] for seed in common) > 0
            found.add((a, b) if ahead else (b, a))
    return found


def more_seeds(
    one: Mapping[int, float], other: Mapping[int, float], test_images: float, pairs: int = 1
) -> int | None:
    """How many further seeds would settle which of two methods is better, as far as one can tell.

    The estimate takes the present mean and spread of the differences as they are.

    Args:
        pairs: comparisons of the cell that the level is divided by (Holm's first step).

    Returns 0 where the difference is significant already, None where no number of seeds would do:
    the difference is too small for this test set, or fewer than two seeds are common.
    """
    common = sorted(one.keys() & other.keys())
    if len(common) < 2:
        return None
    differences = np.array([one[seed] - other[seed] for seed in common])
    mean, std = abs(float(differences.mean())), float(differences.std(ddof=1))
    for seeds in range(len(common), SEEDS_LIMIT + 1):
        if _p_value(mean, std, seeds, test_images) * pairs < LEVEL:
            return seeds - len(common)
    return None


def _t_quantile(level: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, level))


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(level))


def label_robust_score(full: float, synthetic: float, random: float, weight: float = 0.5) -> float:
    """DD-Ranking's label-robust score, in [0, 1] (arXiv 2505.13300).

    alpha = weight * IOR - (1 - weight) * HLR with IOR = synthetic - random, HLR = full - synthetic:
    accuracies with hard labels, as fractions, of the whole data, of the distilled set and of as
    many random real images. ValueError for percent points.
    """
    _check_fractions(full=full, synthetic=synthetic, random=random, weight=weight)
    return _normalised(weight * (synthetic - random) - (1 - weight) * (full - synthetic))


def augmentation_robust_score(
    synthetic_aug: float,
    random_aug: float,
    synthetic_plain: float,
    random_plain: float,
    gamma: float = 0.5,
) -> float:
    """DD-Ranking's augmentation-robust score, in [0, 1] (arXiv 2505.13300).

    beta = gamma * (gain over random, augmented) + (1 - gamma) * (gain over random, plain), from
    accuracies as fractions. ValueError for percent points.
    """
    _check_fractions(synthetic_aug=synthetic_aug, random_aug=random_aug, gamma=gamma)
    _check_fractions(synthetic_plain=synthetic_plain, random_plain=random_plain)
    gain = gamma * (synthetic_aug - random_aug)
    return _normalised(gain + (1 - gamma) * (synthetic_plain - random_plain))


def _normalised(score: float) -> float:
    """Map [-1, 1] onto [0, 1]."""
    return (math.exp(score) - math.exp(-1)) / (math.e - math.exp(-1))


def _check_fractions(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} = {value}: must be a fraction in [0, 1], not percent points")
