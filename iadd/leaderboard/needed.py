"""How many more seeds would tell two methods apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iadd.leaderboard.statistics import FURTHEST, LEVEL, Comparisons, binomial_error, p_value


def more_seeds(pairs: Comparisons, test_images: float) -> NDArray[np.int64]:
    """Seeds to add until each pair's difference is significant, if mean and deviation stay (P,).

    It is then so by Holm's strictest step, p times the number of pairs (SPEC, section 5). 0 where
    it is significant already, where this test set cannot tell so small a difference, and beyond
    `FURTHEST` seeds.
    """
    error = binomial_error(np.abs(pairs.difference), test_images)

    def settled(n: NDArray[np.int64]) -> NDArray[np.bool_]:
        p = p_value(pairs.difference, pairs.std, n, error)
        return np.asarray(len(pairs.p) * p < LEVEL)

    low, high = pairs.seeds, np.full_like(pairs.seeds, FURTHEST)
    hopeless = pairs.significant | ~settled(high)
    while (high - low > 1).any():  # p falls with n: the first settled n is in (low, high]
        middle = (low + high) // 2
        done = settled(middle)
        low, high = np.where(done, low, middle), np.where(done, middle, high)
    return np.where(hopeless, 0, high - pairs.seeds)
