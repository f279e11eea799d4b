"""Intervals that cover what they claim, differences that are not found where there are none."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_tables import compare
from scipy import stats

from iadd.leaderboard.statistics import (
    MARGIN,
    Estimate,
    agreement,
    augmentation_robust_score,
    auroc_error,
    binomial_error,
    compare_all,
    effective_size,
    estimate,
    estimate_auroc,
    holm,
    label_robust_score,
)

TRUTH = 0.6
MANY = 10**9  # test images: so many that the floor does not matter


def numbered(values):
    return dict(enumerate(values))


# ---- one method ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_simulated_coverage_of_the_95_percent_interval(seeds):
    rng = np.random.default_rng(seeds)
    trials = 2000
    draws = rng.normal(TRUTH, 0.01, (trials, seeds))
    intervals = [estimate(row, MANY) for row in draws]
    hits = sum(found.low <= TRUTH <= found.high for found in intervals)
    # Binomial standard error here: 0.005. Too wide is wrong as well as too narrow.
    assert 0.935 <= hits / trials <= 0.965
    floored = [estimate(row, 400) for row in draws]
    assert sum(found.low <= TRUTH <= found.high for found in floored) >= hits


def test_a_mean_s_interval_by_hand():
    # Means 0.5, 0.6, 0.7: s = 0.1, t(0.975, 2) = 4.3027, half width 4.3027 * 0.1 / sqrt(3).
    found = estimate([0.5, 0.6, 0.7], MANY)
    assert found.mean == pytest.approx(0.6)
    assert found.std == pytest.approx(0.1)
    assert found.high - found.mean == pytest.approx(0.24841, abs=1e-5)
    assert found.mean - found.low == pytest.approx(0.24841, abs=1e-5)


def test_equal_seeds_give_the_interval_of_the_test_set_s_size_not_of_width_zero():
    found = estimate([0.9, 0.9, 0.9], 96)
    # q = (96 * 0.9 + 2) / 100 = 0.884; error sqrt(0.884 * 0.116 / 100) = 0.032022.
    assert found.std == pytest.approx(0)
    assert found.high - found.mean == pytest.approx(1.95996 * 0.032022, abs=1e-5)
    for mean in (0.0, 1.0):
        edge = estimate([mean] * 5, 1000)
        assert edge.high - edge.low > 0.0025  # nearly three images of the thousand


def test_one_seed_has_no_interval():
    found = estimate([0.9], 100)
    assert (found.mean, found.std, found.low, found.high) == (0.9, None, None, None)


@pytest.mark.parametrize(("means", "images"), [([], 100), ([0.5], 0)])
def test_no_seed_or_no_test_image_is_an_error(means, images):
    with pytest.raises(ValueError, match="at least one is needed"):
        estimate(means, images)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(1, 10**6))
def test_the_interval_holds_the_mean_stays_in_range_and_is_never_empty(means, images):
    found = estimate(means, images)
    assert 0 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= 1
    assert found.high > found.low


def test_balanced_accuracy_has_the_error_of_an_effective_number_of_images():
    assert effective_size([50, 50, 50]) == pytest.approx(150)
    # Two classes of 10 and 90: 4 / (1/10 + 1/90) = 36.
    assert effective_size([10, 90]) == pytest.approx(36)
    rng = np.random.default_rng(0)
    right = rng.binomial([10, 90], 0.8, (20000, 2)) / [10, 90]
    assert right.mean(axis=1).std() == pytest.approx(math.sqrt(0.8 * 0.2 / 36), rel=0.03)


def test_the_error_of_an_area_under_the_curve_by_hand():
    # Hanley and McNeil at 0.88, which 0.9 is moved to by 71 images: (71 * 0.9 + 2) / 75 = 0.8787.
    a = (71 * 0.9 + 2) / 75
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    spread = a * (1 - a) + 70 * (q1 - a * a) + 799 * (q2 - a * a)
    assert auroc_error(0.9, 71, 800) == pytest.approx(math.sqrt(spread / (71 * 800)))
    assert auroc_error(1.0, 71, 800) > 0 and auroc_error(1.0, 5, 5) > 0.05


@pytest.mark.parametrize(("apart", "most"), [(0.5, 0.985), (2.5, 1.0)])
def test_simulated_coverage_of_the_interval_of_an_area_under_the_curve(apart, most):
    """Seeds that agree: all that differs from truth is the draw of the test images. The error is
    made for scores that are spread more widely than these, so it may be too large, not too small.
    """
    rng = np.random.default_rng(0)
    truth, own, others, hits, trials = stats.norm.cdf(apart / math.sqrt(2)), 12, 200, 0, 500
    for _ in range(trials):
        ill, well = rng.normal(apart, 1, own), rng.normal(0, 1, others)
        area = float((ill[:, None] > well).mean())
        found = estimate_auroc([[area]] * 3, [(own, others)])
        hits += found.low <= truth <= found.high
    assert 0.94 <= hits / trials <= most


def test_an_area_s_interval_is_over_seeds_where_they_differ_more():
    wide = estimate_auroc([[0.5, 0.7], [0.6, 0.8], [0.7, 0.9]], [(10**6, 10**6)] * 2)
    plain = estimate([0.6, 0.7, 0.8], MANY)
    assert (wide.mean, wide.low, wide.high) == pytest.approx((plain.mean, plain.low, plain.high))
    assert estimate_auroc([[0.9]], [(5, 5)]) == Estimate(0.9)
    with pytest.raises(ValueError, match="0 seeds"):
        estimate_auroc([], [])


# ---- two methods ---------------------------------------------------------------------------------


def test_a_paired_comparison_by_hand():
    one, other = [0.62, 0.71, 0.80], [0.60, 0.68, 0.76]
    # Differences 0.02, 0.03, 0.04: mean 0.03, s 0.01, t = 5.196 with 2 degrees: p = 0.0351.
    found = compare(numbered(one), numbered(other), MANY)
    assert found.p == pytest.approx(0.03510, abs=1e-5)
    assert found.p == pytest.approx(stats.ttest_rel(one, other).pvalue)
    # t(0.975, 2) = 4.3027, half width 4.3027 * 0.01 / sqrt(3) = 0.02484.
    assert (found.seeds, found.difference) == (3, pytest.approx(0.03))
    assert (found.low, found.high) == pytest.approx((0.00516, 0.05484), abs=1e-5)
    # Unpaired, the seeds' common luck would hide it.
    assert stats.ttest_ind(one, other).pvalue > 0.5


def test_seeds_are_paired_by_their_number_and_only_common_ones_count():
    one = {0: 0.62, 1: 0.71, 2: 0.80, 7: 0.1}
    other = {2: 0.76, 0: 0.60, 1: 0.68, 5: 0.9}
    assert compare(one, other, MANY).p == pytest.approx(0.03510, abs=1e-5)
    assert compare({0: 0.1, 1: 0.2}, {1: 0.9, 2: 0.9}, MANY) is None


def test_equal_differences_are_not_sure_below_what_the_test_set_can_resolve():
    """The floor agrees with McNemar's exact test where all discordant images are on one side."""
    for images in (360, 10000):
        for lead in range(1, 15):
            one = [0.5 + lead / images] * 3
            found = compare(numbered(one), numbered([0.5] * 3), images)
            exact = stats.binomtest(lead, lead).pvalue
            assert (found.p < 0.05) == (exact < 0.05), (images, lead)
            assert (found.p < 0.05) == (found.low > 0), (images, lead)
    assert compare(numbered([0.9] * 3), numbered([0.9] * 3), 100).p == 1
    # By hand: d = 0.1, N = 96: q = 11.6 / 100, error 0.032022, z = 3.1228, p = 0.00179.
    found = compare(numbered([0.6] * 3), numbered([0.5] * 3), 96)
    assert found.p == pytest.approx(0.00179, abs=1e-5)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_a_difference_s_interval_excludes_zero_where_its_p_value_says_so(pairs):
    one, other = (numbered(values) for values in zip(*pairs, strict=True))
    found, swapped = compare(one, other, 500), compare(other, one, 500)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert swapped.difference == -found.difference and swapped.p == found.p


def test_the_floor_never_exceeds_the_variance_of_two_classifiers_difference():
    """Up to Agresti and Coull's four images: |d| (1 - |d|) / N is at most McNemar's variance."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        first, second = rng.random(500) < rng.random(), rng.random(500) < rng.random()
        difference = abs(first.mean() - second.mean())
        mcnemar = ((first != second).mean() - difference**2) / 500
        assert binomial_error(difference, 500) <= math.sqrt(mcnemar) + 0.003


# ---- many methods --------------------------------------------------------------------------------


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04 -> made monotone.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]).tolist() == []
    assert holm([0.9, 0.8]).tolist() == [1, 1]


def test_all_pairs_at_once_are_each_pair_by_itself():
    """Also where methods have different seeds, one in common, or always the same difference."""
    rng = np.random.default_rng(3)
    methods = {
        name: {int(s): float(rng.normal(0.6, 0.05)) for s in rng.permutation(8)[:count]}
        for name, count in zip("abcde", (8, 5, 5, 2, 8), strict=True)
    }
    methods["f"] = {seed: value - 0.01 for seed, value in methods["a"].items()}
    methods["g"] = dict(methods["a"])
    methods["lonely"] = {99: 0.5}
    found = compare_all(methods, 500)
    names = list(methods)
    at = {
        (names[a], names[b]): k for k, (a, b) in enumerate(zip(found.one, found.other, strict=True))
    }
    by_hand = {
        pair: alone
        for pair in itertools.combinations(names, 2)
        if (alone := compare(methods[pair[0]], methods[pair[1]], 500))
    }
    assert at.keys() == by_hand.keys() and 15 < len(at) < 28
    adjusted = holm([alone.p for alone in by_hand.values()])
    for k, (pair, alone) in enumerate(by_hand.items()):
        one = [
            getattr(found, name)[at[pair]] for name in ("seeds", "difference", "low", "high", "p")
        ]
        assert one == pytest.approx([alone.seeds, alone.difference, alone.low, alone.high, alone.p])
        assert found.p_holm[at[pair]] == pytest.approx(adjusted[k])
    assert found.p[at["a", "g"]] == 1 and found.difference[at["a", "f"]] == pytest.approx(0.01)


def test_simulated_family_wise_error_stays_below_5_percent():
    """Six methods that are the same: one wrong difference among fifteen is one too many."""
    rng = np.random.default_rng(5)
    trials, corrected, uncorrected = 600, 0, 0
    for _ in range(trials):
        luck = rng.normal(0.6, 0.02, 5)  # of the seeds, common to the methods
        methods = {str(k): numbered(luck + rng.normal(0, 0.01, 5)) for k in range(6)}
        pairs = compare_all(methods, MANY)
        corrected += pairs.significant.any()
        uncorrected += (pairs.p < 0.05).any()
    assert corrected / trials <= 0.065  # 5 % is the promise; this count's standard error is 0.9 %
    assert uncorrected / trials > 0.2


def test_paired_seeds_find_a_difference_that_common_luck_would_hide():
    rng = np.random.default_rng(2)
    found, trials = 0, 200
    for _ in range(trials):
        luck = rng.normal(0.6, 0.03, 5)
        better = numbered(luck + 0.02 + rng.normal(0, 0.004, 5))
        worse = numbered(luck + rng.normal(0, 0.004, 5))
        pair = compare_all({"a": worse, "b": better}, 10000)
        found += pair.significant.item() and pair.difference.item() < 0
    assert found / trials > 0.95


# ---- beside a published value --------------------------------------------------------------------


def judged(mean, std, seeds, published=0.463, spread=0.008, images=10000):
    found = estimate([mean] * seeds, images)._replace(mean=mean, std=std)
    half = max(
        stats.t.ppf(0.975, seeds - 1) * std / math.sqrt(seeds),
        1.959964 * binomial_error(mean, images),
    )
    found = found._replace(low=mean - half, high=mean + half)
    return agreement(found, seeds, images, published, spread)


def test_a_measured_interval_agrees_with_lies_below_or_above_a_published_value():
    # 5 seeds, s = 0.005: half width 2.7764 * 0.005 / sqrt(5) = 0.0062, the test set's 0.0098.
    assert judged(0.460, 0.005, 5) == ("agrees", None)
    assert judged(0.446, 0.005, 5) == ("agrees", None)  # up to 0.4558, the published from 0.455 on
    assert judged(0.444, 0.005, 5) == ("lower", None)  # up to 0.4538
    assert judged(0.482, 0.005, 5) == ("higher", None)  # from 0.4722 on, the published up to 0.471
    assert judged(0.444, 0.005, 5, spread=0.02) == ("agrees", None)


def test_undecided_says_how_many_more_seeds_would_settle_it():
    # s = 0.01: half widths 0.0248 (3 seeds), 0.0159 (4), 0.0124 (5), 0.0105 (6), 0.0092 (7).
    assert judged(0.463, 0.01, 3) == ("undecided", 7 - 3)
    # At 0.44 the interval ends below 0.455 with 5 seeds (0.4524), not with 4 (0.4559).
    assert judged(0.44, 0.01, 3) == ("undecided", 5 - 3)
    for more in (1, 2, 3):
        assert judged(0.463, 0.01, 3 + more)[0] == "undecided"
    assert judged(0.463, 0.01, 7) == ("agrees", None)


def test_what_no_number_of_seeds_settles_or_nobody_can_know():
    assert agreement(Estimate(0.463), 1, 10000, 0.463, 0.008) == ("undecided", None)
    assert agreement(Estimate(), 0, 10000, 0.463, 0.008) == ("undecided", None)
    assert judged(0.463, 0.4, 3) == ("undecided", None)  # thousands of seeds
    # 450 test images tell no better than 4.6 points: that is the margin, then.
    assert 1.96 * binomial_error(0.463, 450) > 4 * MARGIN
    assert judged(0.463, 0.005, 5, images=450) == ("agrees", None)


# ---- DD-Ranking's scores -------------------------------------------------------------------------


def test_label_robust_score_golden_value():
    # HLR 0.195, IOR 0.343: alpha = 0.074.
    assert label_robust_score(0.848, 0.653, 0.310) == pytest.approx(0.30162, abs=5e-6)


def test_augmentation_robust_score_by_hand():
    # beta = 0.5 * (0.7 - 0.3) + 0.5 * (0.5 - 0.3) = 0.3
    by_hand = (math.exp(0.3) - math.exp(-1)) / (math.e - math.exp(-1))
    assert augmentation_robust_score(0.7, 0.3, 0.5, 0.3) == pytest.approx(by_hand)
    assert augmentation_robust_score(1, 0, 1, 0) == pytest.approx(1)
    assert augmentation_robust_score(0, 1, 0, 1) == pytest.approx(0)


@pytest.mark.parametrize("bad", [84.8, -0.1, math.nan])
def test_scores_refuse_percent_points(bad):
    with pytest.raises(ValueError, match=r"full.*fraction"):
        label_robust_score(bad, 0.5, 0.3)
    with pytest.raises(ValueError, match=r"random_plain.*fraction"):
        augmentation_robust_score(0.5, 0.3, 0.5, bad)
