"""Intervals that cover what they claim, differences that are not found where there are none."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iadd.leaderboard.statistics import (
    Estimate,
    augmentation_robust_score,
    estimate,
    label_robust_score,
)

TRUTH = 0.6


def made_up(rng, seeds, networks, between, within, mean=TRUTH):
    return list(
        mean + rng.normal(0, between, (seeds, 1)) + rng.normal(0, within, (seeds, networks))
    )


def plain_bootstrap(groups, rng, resamples=300):
    """The uncorrected hierarchical percentile bootstrap, network by network: what not to use."""
    table = np.array(groups)
    n, m = table.shape
    seeds = rng.integers(n, size=(resamples, n, 1))
    return np.quantile(
        table[seeds, rng.integers(m, size=(resamples, n, m))].mean((1, 2)), (0.025, 0.975)
    )


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("between", [0.01, 0.003])
def test_coverage_of_the_95_percent_interval(seeds, between):
    rng = np.random.default_rng([seeds, round(1e4 * between)])
    trials, hits, plain = 1000, 0, 0
    for _ in range(trials):
        groups = made_up(rng, seeds, 5, between, 0.005)
        low, high = estimate(groups, rng, 300).interval()
        hits += low <= TRUTH <= high
        low, high = plain_bootstrap(groups, rng)
        plain += low <= TRUTH <= high
    # Binomial standard error here: 0.007. Too wide is wrong as well as too narrow.
    assert 0.925 <= hits / trials <= 0.99
    if seeds == 3 and between == 0.01:
        assert plain / trials < 0.85


def test_equal_methods_are_rarely_told_apart_and_distant_ones_always():
    rng = np.random.default_rng(7)
    false, missed, trials = 0, 0, 400
    for _ in range(trials):
        one, same, far = (
            estimate(made_up(rng, 3, 5, spread, 0.004, mean), rng, 300)
            for mean, spread in ((0.90, 0.006), (0.90, 0.012), (0.96, 0.006))
        )
        false += one.surely_above(same) or same.surely_above(one)
        missed += not far.surely_above(one)
        assert not one.surely_above(far)
    assert false / trials <= 0.08  # 5 % is the promise; the standard error of this count is 1.1 %
    assert missed / trials <= 0.05


def test_many_seeds_of_one_network_give_students_interval():
    rng = np.random.default_rng(3)
    values = rng.normal(0.7, 0.02, 60)
    found = estimate([np.array([v]) for v in values], rng, 20000)
    half = stats.t.ppf(0.975, 59) * values.std(ddof=1) / math.sqrt(60)
    low, high = found.interval()
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)
    assert found.std == pytest.approx(values.std(ddof=1))
    assert found.degrees == 59


def test_draws_are_those_of_a_hierarchical_bootstrap():
    """Two seeds of two networks: all 16 * 4 resamples enumerated by hand, means and frequencies."""
    groups = [np.array([0.1, 0.2]), np.array([0.6, 0.9])]
    means = []
    for seeds in itertools.product(range(2), repeat=2):
        pairs = [list(itertools.product(groups[seed], repeat=2)) for seed in seeds]
        means += [np.mean(a + b) for a, b in itertools.product(*pairs)]
    exact = np.array(means) - 0.45
    found = estimate(groups, np.random.default_rng(0), 40000)
    # By hand: seeds' means 0.15 and 0.75, so the standard error is 0.6 / sqrt(2) / sqrt(2) = 0.3.
    assert found.mean == pytest.approx(0.45)
    assert found.error == pytest.approx(0.3)
    scaled = exact * 0.3 / exact.std()
    assert np.allclose(np.unique(found.draws.round(9)), np.unique(scaled.round(9)), atol=1e-8)
    for q in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert (found.draws <= np.quantile(scaled, q) + 1e-9).mean() == pytest.approx(
            (scaled <= np.quantile(scaled, q) + 1e-9).mean(), abs=0.01
        )


def test_seeds_that_agree_by_luck_do_not_hide_the_networks_noise():
    groups = [np.array([0.5, 0.7]), np.array([0.6, 0.6]), np.array([0.4, 0.8])]
    low, high = estimate(groups, np.random.default_rng(0), 2000).interval()
    # Within: sum of squares 0.02 + 0 + 0.08 over 3 degrees, a sixth of it: error 0.0745, t = 3.18.
    assert high - low == pytest.approx(2 * 3.182 * math.sqrt(0.1 / 3 / 6), rel=0.15)


def test_one_seed_has_no_interval_and_is_never_sure():
    one = estimate([np.array([0.9, 0.91])], np.random.default_rng(0), 100)
    low = estimate([np.array([0.1]), np.array([0.1001])], np.random.default_rng(0), 100)
    assert one.mean == pytest.approx(0.905)
    assert all(map(math.isnan, (*one.interval(), one.std)))
    assert not one.surely_above(low)


def test_no_network_is_an_error():
    for groups in ([], [np.array([0.5]), np.array([])]):
        with pytest.raises(ValueError, match="at least one"):
            estimate(groups, np.random.default_rng(0), 10)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=4), min_size=2, max_size=6)
)
def test_the_interval_holds_the_mean_and_stays_in_range(groups):
    found = estimate([np.array(group) for group in groups], np.random.default_rng(1), 400)
    low, high = found.interval()
    assert -1e-9 <= low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= high <= 1 + 1e-9
    assert not found.surely_above(found)
    twin = Estimate(found.mean, found.std, found.error, found.degrees, found.draws[::-1])
    assert not found.surely_above(twin)


def test_label_robust_score_golden_value():
    # HLR 0.195, IOR 0.343: alpha = 0.074.
    assert label_robust_score(0.848, 0.653, 0.310) == pytest.approx(0.30162, abs=5e-6)
    assert label_robust_score(0.848, 0.653, 0.310, weight=1) == pytest.approx(
        (math.exp(0.343) - math.exp(-1)) / (math.e - math.exp(-1))
    )


def test_augmentation_robust_score_by_hand():
    # beta = 0.5 * (0.7 - 0.3) + 0.5 * (0.5 - 0.3) = 0.3
    by_hand = (math.exp(0.3) - math.exp(-1)) / (math.e - math.exp(-1))
    assert augmentation_robust_score(0.7, 0.3, 0.5, 0.3) == pytest.approx(by_hand)
    assert augmentation_robust_score(0.7, 0.3, 0.9, 0.1, gamma=1) == pytest.approx(
        (math.exp(0.4) - math.exp(-1)) / (math.e - math.exp(-1))
    )
    assert augmentation_robust_score(1, 0, 1, 0) == pytest.approx(1)
    assert augmentation_robust_score(0, 1, 0, 1) == pytest.approx(0)


@pytest.mark.parametrize("bad", [84.8, -0.1, math.nan])
def test_scores_refuse_percent_points(bad):
    with pytest.raises(ValueError, match=r"full.*fraction"):
        label_robust_score(bad, 0.5, 0.3)
    with pytest.raises(ValueError, match=r"random_plain.*fraction"):
        augmentation_robust_score(0.5, 0.3, 0.5, bad)
