"""What sets give away, in numbers: against worked cases, simulated where the truth is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from iadd.leaderboard.exposure import (
    PRIVACY,
    Interval,
    PrivacyRow,
    attack_of,
    auc,
    distances_of,
    named,
    over_seeds,
    quantile,
    shares,
    summaries,
    true_positives,
)
from iadd.leaderboard.exposure_text import exposure_text, words
from iadd.leaderboard.results import table_of

GENERATOR = np.random.default_rng


def test_auc_is_the_share_of_pairs_in_the_right_order_with_the_variance_of_delong() -> None:
    members, others = np.array([0.0, 1.0, 1.0, 3.0]), np.array([1.0, -1.0, 2.0])
    psi = np.array([[(x > y) + 0.5 * (x == y) for y in others] for x in members])
    found = auc(members, others)
    assert found.value == pytest.approx(psi.mean())
    rows, columns = psi.mean(1).var(ddof=1) / 4, psi.mean(0).var(ddof=1) / 3
    half = norm.ppf(0.975) * np.sqrt(rows + columns)
    assert found.low == pytest.approx(max(0, psi.mean() - half))
    assert auc(-members, -others).value == pytest.approx(1 - found.value)


def test_groups_that_part_without_an_error_do_not_give_an_interval_without_width() -> None:
    few = auc(np.arange(10.0) + 100, np.arange(200.0) / 10)
    many = auc(np.arange(1000.0) + 100, np.arange(1000.0) / 100)
    assert few.value == many.value == 1 and few.low < 0.95 < many.low < 1


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_the_intervals_hold_the_truth_as_often_as_they_say(shift: float) -> None:
    generator = GENERATOR(0)
    truth = {
        "auc": norm.cdf(shift / np.sqrt(2)),
        "tpr": 1 - norm.cdf(norm.ppf(0.99) - shift),
        "quantile": norm.ppf(0.05),
    }
    held = dict.fromkeys(truth, 0)
    rounds = 400
    for _ in range(rounds):
        members, others = generator.normal(shift, size=120), generator.normal(size=400)
        found = {
            "auc": auc(members, others),
            "tpr": true_positives(members, others),
            "quantile": quantile(others, 0.05),
        }
        for name, interval in found.items():
            held[name] += interval.low <= truth[name] <= interval.high
    assert held["auc"] >= 0.92 * rounds
    assert held["tpr"] >= 0.95 * rounds and held["quantile"] >= 0.93 * rounds


def test_true_positives_are_counted_above_what_one_in_a_hundred_others_is_above() -> None:
    others = np.arange(1000.0)
    found = true_positives(np.array([989.5, 988.5, 5000.0, 0.0]), others)
    assert found.value == 0.5 and found.low < 0.5 < found.high
    few = true_positives(np.full(50, 1e9), np.arange(367.0))
    assert few.value == 1 and few.low == 0  # nobody knows where the threshold lies
    assert true_positives(np.full(50, 1e9), np.arange(368.0)).low > 0.8


def test_a_share_counts_held_out_images_that_lie_as_near() -> None:
    held_out = np.array([3.0, 1.0, 2.0, 2.0])
    assert shares(np.array([0.5, 1.0, 2.0, 9.0]), held_out).tolist() == [0, 0.25, 0.75, 1]
    held_out = GENERATOR(1).random(500)
    of_others = named(shares(GENERATOR(2).random(4000), held_out), 500)
    assert of_others.mean() < 0.05  # images like the held-out ones are rarely named
    assert named(shares(np.zeros(3), held_out), 500).all()
    assert not named(np.zeros(1), 20).any()  # twenty images cannot tell 5 %


def row(**changes: Any) -> PrivacyRow:
    values = {"dataset": "d", "ipc": 1, "method": "m", "tuned": False, "source": "measured"}
    held_out, found = np.linspace(1, 2, 400), np.array([0.0, 1.5])
    distances = [distances_of(kind, [7, 8], found, held_out) for kind in ("pixel", "feature")]
    scores = np.linspace(0, 1, 500), np.linspace(-1, 1, 400)
    rest = {"reconstruction": False, "seed": 0, "network": "n", "members": 500, "held_out": 400}
    rest["shown"] = [0]
    measured = distances[0] | distances[1] | attack_of("data", *scores) | rest | {"copies": 1}
    return PrivacyRow(**values | measured | changes)  # type: ignore[arg-type]


def test_a_row_is_a_row_of_the_table() -> None:
    found = row()
    table_of([found], PRIVACY)
    assert found.pixel_share == [0, 0.5] and found.pixel_near == 1
    assert found.data_auc == pytest.approx(0.75, abs=0.01) and found.chosen_auc is None
    assert attack_of("chosen", np.array([]), np.zeros(3)) == {}


def test_seeds_are_put_together_with_the_wider_of_both_intervals() -> None:
    rows = [
        replace(row(seed=k), data_auc=a, data_auc_low=a - 0.01, data_auc_high=a + 0.01)
        for k, a in enumerate((0.5, 0.6, 0.7))
    ]
    found = over_seeds(rows, "data_auc")
    assert found is not None and found.value == pytest.approx(0.6)
    assert found.high - found.value == pytest.approx(0.1 * 4.3027 / np.sqrt(3), rel=1e-4)
    assert over_seeds(rows[:1], "data_auc") == pytest.approx(Interval(0.5, 0.49, 0.51))
    assert over_seeds(rows, "chosen_auc") is None
    (line,) = summaries(rows)
    assert (line.seeds, line.images, line.copies, line.pixel_near) == (3, 2, 0.5, 0.5)
    assert line.pixel_median == pytest.approx(0.75 / 1.5)
    told = words(line)
    assert told["copies %"] == "50" and told["chosen: AUC"] == "-"
    assert told["data: AUC"] == "0.600 (0.352-0.848)"
    text = exposure_text(rows)
    assert text.startswith("d, 1 image a class") and "0.600 (0.352-0.848)" in text
    assert "too few to tell" not in text
    few = exposure_text([*rows, replace(rows[0], held_out=19)])
    assert "19 held-out images are too few to tell where 1 % of false ones lies (368 " in few
