"""How many seeds would settle a difference: against the definition, and where none would."""

import math

import numpy as np
import pytest
from scipy import stats

from iadd.leaderboard.needed import more_seeds
from iadd.leaderboard.statistics import compare_all


def needed(methods, test_images):
    return more_seeds(compare_all(methods, test_images), test_images).tolist()


@pytest.mark.parametrize("lift", [0.001, 0.004, 0.02])
def test_a_difference_is_settled_at_that_number_of_seeds_and_not_before(lift):
    methods = {
        "a": {0: 0.82 + lift, 1: 0.80 + lift, 2: 0.85 + lift},
        "b": {0: 0.81, 1: 0.80, 2: 0.82},
        "c": {0: 0.81, 1: 0.80, 2: 0.80},
    }
    many = 10**9  # test images: so many that the floor does not matter
    assert not compare_all(methods, many).significant.any()
    for (one, other), more in zip(("ab", "ac", "bc"), needed(methods, many), strict=True):
        differences = np.array([methods[one][s] - methods[other][s] for s in range(3)])
        mean, std = abs(differences.mean()), differences.std(ddof=1)

        def corrected(n, mean=mean, std=std):
            return 3 * 2 * stats.t.sf(mean * math.sqrt(n) / std, n - 1)

        assert corrected(3 + more) < 0.05 <= corrected(2 + more)


def test_no_number_of_seeds_settles_what_the_test_set_cannot_tell():
    methods = {
        "a": {s: 0.80 + 0.001 * s for s in range(4)},
        "b": {s: 0.798 + 0.0011 * s for s in range(4)},
    }
    assert needed(methods, 400) == [0]
    assert compare_all(methods, 10**6).significant.all() and needed(methods, 10**6) == [0]


def test_equal_methods_are_settled_by_none_and_one_method_has_no_pair():
    same = {s: 0.8 + 0.01 * s for s in range(3)}
    assert needed({"a": same, "b": same}, 10**6) == [0]
    assert needed({"a": same}, 10**6) == []
