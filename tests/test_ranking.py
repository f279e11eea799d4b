"""A leaderboard that hides nothing and ranks nothing together that does not compare."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from made_up_tables import (
    by_class,
    compare,
    compared,
    confusion,
    evaluation,
    rank,
    runs,
    spread,
    table,
)

from iadd.leaderboard.cells import UNSEEN
from iadd.leaderboard.columns import judged_of
from iadd.leaderboard.ranking import Positive
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.statistics import estimate, estimate_auroc, label_robust_score
from iadd.leaderboard.text import comparisons_text, leaderboard_text, remark


def line(board: list[LeaderboardRow], method: str, **where: object) -> LeaderboardRow:
    (row,) = [
        row
        for row in board
        if row.method == method and all(getattr(row, n) == v for n, v in where.items())
    ]
    return row


def test_methods_that_cannot_be_told_apart_share_a_range():
    rows = [
        *runs("a", spread(0.90, 0.004)),
        *runs("b", [[0.905, 0.899], [0.899, 0.903], [0.900, 0.905]]),
        *runs("c", spread(0.70)),
        *runs("d", spread(0.60)),
    ]
    board = rank(table(rows))
    found = {row.method: (row.rank_low, row.rank_high) for row in board}
    assert found == {"a": (1, 2), "b": (1, 2), "c": (3, 3), "d": (4, 4)}
    assert [row.method for row in board] == ["b", "a", "c", "d"]
    row = line(board, "c")
    assert row.accuracy_mean == pytest.approx(0.70, abs=1e-9)
    # Seeds' means 0.699, 0.701, 0.700: their standard deviation is 0.001.
    assert row.accuracy_std == pytest.approx(0.001)
    expected = estimate([0.699, 0.701, 0.700], 10000)
    assert (row.accuracy_low, row.accuracy_high) == pytest.approx((expected.low, expected.high))
    assert (row.n_seeds, row.n_networks, row.n_failed, row.source) == (3, 6, 0, "measured")
    assert (row.distill_seconds, row.validation_seconds) == (11.0, 2.0)  # seeds took 10, 11, 12
    assert (row.bytes, row.test_images, row.test_imbalance) == (2640, 10000, 1.0)


def test_what_a_method_cost_stands_beside_what_it_reached():
    """Seeds 0, 1, 2 of two networks each: 10, 11, 12 seconds and 2 of probes on a card."""
    card = [
        row | {"distill_gpu_seconds": row["distill_seconds"] + 2, "evaluate_gpu_seconds": 2.0}
        for row in runs("a", spread(0.9), device="H100")
    ]
    card[3] |= {"host_peak_bytes": 3 * 10**9, "device_peak_bytes": 7}
    unknown = runs("b", spread(0.9), distill_gpu_seconds=None, distill_seconds=None)
    board = rank(table([*card, *unknown, *runs("c", spread(0.9))]))
    a, b, c = (line(board, method) for method in "abc")
    assert (a.evaluate_seconds, a.gpu_seconds) == (4.0, 13.0 + 4.0)
    assert (a.host_peak_bytes, a.device_peak_bytes) == (3 * 10**9, 7)
    assert (b.evaluate_seconds, b.gpu_seconds, b.distill_seconds) == (4.0, None, None)
    assert (c.gpu_seconds, c.host_peak_bytes, c.device_peak_bytes) == (0.0, 10**9, None)


def test_methods_are_compared_seed_by_seed():
    """Seeds share their luck: a lead that is small beside the seeds' spread is found by pairing."""
    luck = [0.55, 0.60, 0.65]
    rows = runs("a", [[x + 0.02] for x in luck]) + runs("b", [[x] for x in luck])
    board = rank(table(rows))
    assert (line(board, "a").rank_high, line(board, "b").rank_low) == (1, 2)
    assert line(board, "a").accuracy_low < line(board, "b").accuracy_high  # the intervals overlap


def test_equal_seeds_make_no_method_significantly_better_within_the_test_set_s_error():
    small = {"balanced_accuracy": None}
    rows = [
        row | small | {"confusion": confusion(row["accuracy"], (50, 50))}
        for row in runs("a", [[0.92]] * 3) + runs("b", [[0.90]] * 3)
    ]
    board = rank(table(rows))
    assert {row.rank_low for row in board} == {1}
    row = line(board, "a")
    assert row.accuracy_std == pytest.approx(0)
    assert row.accuracy_high - row.accuracy_low > 0.08  # a hundred test images tell no more


def test_one_method_s_interval_does_not_depend_on_the_others_or_on_order():
    rows = runs("a", spread(0.90, 0.01)) + runs("b", spread(0.91, 0.02), protocol="dc-v1")
    alone = rank(table(rows))
    both = rank(table([*runs("c", spread(0.95)), *reversed(rows), *runs("c", spread(0.5), ipc=10)]))
    for method in "ab":
        old, new = line(alone, method), line(both, method)
        assert (old.accuracy_low, old.accuracy_high) == (new.accuracy_low, new.accuracy_high)


def test_whole_is_the_ceiling_of_every_cell_and_has_no_rank():
    rows = [
        *runs("random", spread(0.310)),
        *runs("random", spread(0.4), ipc=10),
        *runs("mtt", spread(0.653)),
        *runs("whole", [[0.847, 0.848, 0.849]], ipc=0),
        *runs("random", spread(0.2), network_eval="mlp"),
    ]
    board = rank(table(rows))
    for ipc in (1, 10):
        row = line(board, "whole", ipc=ipc)
        assert row.accuracy_mean == pytest.approx(0.848)
        assert row.rank_low is None and row.lrs is None
        assert 0.83 < row.accuracy_low < row.accuracy_high < 0.86  # networks are its units
    assert [row.method for row in board if row.ipc == 1][:3] == ["mtt", "random", "whole"]
    assert line(board, "mtt").lrs == pytest.approx(0.30162, abs=5e-6)
    assert line(board, "mtt").rank_high == 1
    assert line(board, "random", network_eval="convnet", ipc=1).lrs == pytest.approx(
        label_robust_score(0.848, 0.310, 0.310)
    )
    assert line(board, "random", network_eval="mlp").lrs is None
    assert [row.ipc for row in rank(table(runs("whole", [[0.9]], ipc=0)))] == [0]


def test_ars_needs_both_methods_without_augmentation():
    def of(protocol, **means):
        return [r for m, mean in means.items() for r in runs(m, spread(mean), protocol=protocol)]

    rows = of("mtt-v1", random=0.3, mtt=0.7, dc=0.5) + of("mtt-v1-noaug", random=0.3, mtt=0.5)
    board = rank(table(rows))
    beta = (math.exp(0.3) - math.exp(-1)) / (math.e - math.exp(-1))
    assert line(board, "mtt", protocol="mtt-v1").ars == pytest.approx(beta)
    assert line(board, "mtt", protocol="mtt-v1-noaug").ars is None
    assert line(board, "dc", protocol="mtt-v1").ars is None


def test_failures_are_counted_and_leave_a_method_unranked():
    good, other = runs("good", spread(0.6)), runs("lost", spread(0.9))
    other[4] |= {"accuracy": None, "confusion": None, "status": "failed"}
    diverged = runs("diverged", spread(0.8))
    diverged[0] |= {"accuracy": 0.1, "confusion": None, "status": "diverged"}
    gone = runs("gone", [[None, None]] * 3, status="diverged")
    board = rank(table(good + other + diverged + gone))
    lost, wild, none = (line(board, name) for name in ("lost", "diverged", "gone"))
    assert (lost.n_networks, lost.n_failed, lost.n_diverged) == (6, 1, 0)
    assert lost.rank_low is None
    assert lost.accuracy_mean == pytest.approx(np.mean([0.899, 0.901, 0.902]))
    assert (wild.n_networks, wild.n_failed, wild.n_diverged) == (6, 0, 1)
    assert wild.accuracy_mean < 0.8 - 0.1
    assert wild.rank_high == 2
    assert (none.n_seeds, none.n_failed) == (3, 6)
    assert none.accuracy_mean is None and none.accuracy_low is None and none.rank_low is None


def test_a_diverged_distillation_does_not_mark_sound_networks_as_diverged():
    rows = runs("mtt", spread(0.6)) + runs("dm", spread(0.4))
    rows = [r | {"distill_status": "diverged"} if r["seed"] == 1 else r for r in rows[:6]] + rows[
        6:
    ]
    board = rank(table(rows))
    row = line(board, "mtt")
    assert (row.n_diverged, row.n_diverged_runs, row.rank_low) == (0, 1, 1)
    assert line(board, "dm").n_diverged_runs == 0
    assert remark(row, board) == "1 of 3 runs diverged"
    assert "networks diverged" not in leaderboard_text(board)


def test_too_few_seeds_are_shown_unranked():
    rows = runs("few", spread(0.95)[:2]) + runs("one", [[0.5, 0.6]]) + runs("a", spread(0.9))
    board = rank(table(rows))
    assert line(board, "a").rank_high == 1
    assert line(board, "few").rank_low is None
    assert line(board, "few").accuracy_low is not None
    assert line(board, "one").accuracy_low is None


def test_label_regimes_are_never_ranked_together():
    rows = runs("mtt", spread(0.6)) + runs("datm", spread(0.9), label_regime="soft")
    rows += runs("tesla", spread(0.95), label_regime="soft+teacher")
    rows += runs("random", spread(0.3)) + runs("whole", [[0.95, 0.96]], ipc=0)
    board = rank(table(rows))
    for method in ("mtt", "datm", "tesla"):
        assert (line(board, method).rank_low, line(board, method).rank_high)[0] == 1
    assert line(board, "tesla").rank_high == line(board, "datm").rank_high == 1
    assert line(board, "datm").lrs is None
    assert [row.method for row in board if row.label_regime == "soft"] == ["datm", "whole"]


def test_protocols_are_never_ranked_together():
    rows = runs("mtt", spread(0.6)) + runs("dc", spread(0.9), protocol="dc-v1")
    assert {(row.rank_low, row.rank_high) for row in rank(table(rows))} == {(1, 1)}


def test_tuned_and_default_are_ranked_apart_with_the_same_references():
    rows = [
        *runs("mtt", spread(0.5)),
        *runs("mtt", spread(0.7), tuned=True, params="{}"),
        *runs("random", spread(0.3)),
        *runs("whole", [[0.9]] * 3, ipc=0),
    ]
    board = rank(table(rows))
    assert len(board) == 6
    low, high = (line(board, "random", tuned=tuned) for tuned in (False, True))
    assert (low.accuracy_mean, low.accuracy_low) == (high.accuracy_mean, high.accuracy_low)
    for tuned, mean in ((False, 0.5), (True, 0.7)):
        row = line(board, "mtt", tuned=tuned)
        assert row.accuracy_mean == pytest.approx(mean)
        assert row.rank_low == 1 and row.lrs is not None
        assert line(board, "whole", tuned=tuned).rank_low is None


def test_reconstructions_are_named_by_the_row_s_own_column():
    rows = runs("new", spread(0.9), reconstruction=True) + runs(
        "iadd", spread(0.8), reconstruction=0 == 1
    )
    board = rank(table(rows))
    assert (line(board, "new").reconstruction, line(board, "iadd").reconstruction) == (True, False)
    text = leaderboard_text(board)
    assert "new*" in text and "iadd*" not in text
    assert "* a reconstruction" in text
    assert "reconstruction" not in leaderboard_text(rank(table(runs("mtt", spread(0.5)))))


def test_balanced_accuracy_has_mean_and_interval_and_is_printed_where_classes_are_imbalanced():
    def of(method, mean):
        return [
            row
            | {"balanced_accuracy": row["accuracy"] - 0.2}
            | {"confusion": confusion(row["accuracy"], (900, 100))}
            for row in runs(method, spread(mean))
        ]

    board = rank(table(of("mtt", 0.9) + of("dm", 0.8)))
    row = line(board, "mtt")
    assert row.test_imbalance == 9
    assert row.balanced_accuracy_mean == pytest.approx(0.7)
    expected = estimate([0.699, 0.701, 0.700], 4 / (1 / 900 + 1 / 100))
    assert row.balanced_accuracy_low == pytest.approx(expected.low)
    assert row.balanced_accuracy_high == pytest.approx(expected.high)
    text = leaderboard_text(board)
    assert re.search(r"70\.00 +6\d\.\d to 7\d\.\d +90\.0", text)
    assert max(map(len, text.splitlines())) <= 100
    assert "balanced %" not in leaderboard_text(rank(table(runs("mtt", spread(0.9)))))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 0, "eval_seed": 0}, "seed 0, eval_seed 0 is there 2 times"),
        ({"params": '{"lr":0.2}'}, "mtt in digits, 1, convnet, mtt-v1, hard, False: params is"),
        ({"source": "submitted"}, "source is measured and submitted"),
        ({"network_distill": "mlp"}, "network_distill is convnet and mlp"),
        ({"confusion": [1, 2, 3]}, "digits: confusion has 3 entries, no square number"),
        ({"confusion": [90, 10, 10, 80]}, "digits: tested on .* one data set must have one test"),
    ],
)
def test_rank_refuses_what_must_not_be_averaged(changes, words):
    rows = [*runs("mtt", spread(0.9)), evaluation(seed=3) | changes]
    with pytest.raises(ValueError, match=words):
        rank(table(rows))


def test_a_data_set_has_one_test_set_in_all_parts_of_a_table():
    parts = [table(runs("mtt", spread(0.9))), table([evaluation(confusion=[90, 10, 10, 80])])]
    assert judged_of(parts[:1]).tests == {"digits": [5000, 5000]}
    with pytest.raises(ValueError, match=r"digits: tested on \[5000, 5000\] and on \[100, 90\]"):
        judged_of(parts)


def test_the_printed_table_fits_100_columns_and_says_what_is_wrong():
    rows = [
        *runs("random", spread(0.31)),
        *runs("iadd", spread(0.93), distill_seconds=12345.6),
        *runs("mtt", spread(0.93)),
        *runs("forgetting", spread(0.5)[:2]),
        *runs("whole", [[0.98, 0.99]], ipc=0),
        *runs("datm", spread(0.9), label_regime="soft"),
        *runs("mtt", spread(0.94), tuned=True, params="{}"),
    ]
    rows[0] |= {"status": "diverged"}
    text = leaderboard_text(rank(table(rows)), "10 trials")
    assert max(map(len, text.splitlines())) <= 100
    title = "digits, 1 image a class, {}, evaluated by convnet, protocol mtt-v1"
    for group in ("hard labels", "hard labels, tuned", "soft labels"):
        assert title.format(group) in text
    assert "searches of 10 trials each" in text
    lines = {}
    for row in text.splitlines():
        if len(words := row.split()) > 5:
            lines.setdefault(words[1], row)
    assert re.match(r"\s*1-2 +iadd\* +93\.00 +\S+ to \S+ +3 x 2 ", lines["iadd*"])
    assert "1 network diverged" in text.replace("\n", " ") or "1 network" in lines["random"]
    assert "few seeds" in lines["forgetting"]
    assert "ceiling" in lines["whole"]
    assert text.index("mtt ") < text.index("random") < text.index("whole")
    assert "\x1b" not in text


# ---- comparisons ---------------------------------------------------------------------------------


def test_every_difference_is_a_row_both_ways_round():
    """Rule: whether a method beats another is answered by a table: difference, interval, p."""
    luck = [0.55, 0.60, 0.65]
    rows = runs("a", [[x + 0.02] for x in luck]) + runs("b", [[x] for x in luck])
    rows += runs("few", [[0.9], [0.9]]) + runs("whole", [[0.95]] * 3, ipc=0)
    found = compared(table(rows))
    assert [(row.method, row.other) for row in found] == [("a", "b"), ("b", "a")]
    one, other = found
    by_hand = compare({k: x + 0.02 for k, x in enumerate(luck)}, dict(enumerate(luck)), 10000)
    assert one.n_seeds == 3 and one.difference == pytest.approx(0.02)
    assert (one.low, one.high, one.p) == pytest.approx((by_hand.low, by_hand.high, by_hand.p))
    assert one.p_holm == one.p and one.significant == other.significant == (one.p < 0.05)
    assert (other.difference, other.low) == (-one.difference, -one.high)
    text = comparisons_text(found, "a")
    assert "a against the others, accuracy: digits, 1 image a class, hard labels" in text
    assert re.search(r"b +3 +\+2\.00 +\+\S+ to \+\S+ .* better", text)
    with pytest.raises(ValueError, match="method 'few' is not compared here; compared: a, b"):
        comparisons_text(found, "few")


def test_p_values_are_corrected_within_a_cell_alone():
    rows = [r for k, m in enumerate("abc") for r in runs(m, spread(0.5 + 0.1 * k))]
    rows += runs("a", spread(0.5), ipc=10) + runs("b", spread(0.6), ipc=10)
    found = compared(table(rows))
    pairs = {(row.ipc, row.method, row.other): row for row in found}
    assert len(pairs) == 6 + 2
    assert pairs[10, "a", "b"].p_holm == pairs[10, "a", "b"].p
    smallest = min((row for row in found if row.ipc == 1), key=lambda row: row.p)
    assert smallest.p_holm == pytest.approx(3 * smallest.p)


def test_where_classes_are_imbalanced_balanced_accuracy_is_compared_too():
    """Rule: with the error of an effective number of images, 4 / (1/900 + 1/100) = 360 here."""

    def of(method, mean, balanced):
        matrix = confusion(mean, (900, 100))
        return [
            row | {"balanced_accuracy": balanced + 0.001 * row["seed"], "confusion": matrix}
            for row in runs(method, spread(mean))
        ]

    rows = table(of("a", 0.9, 0.6) + of("b", 0.8, 0.7))
    board, found = rank(rows), compared(rows)
    scores = {row.score: row for row in found if row.method == "a"}
    assert scores["accuracy"].difference == pytest.approx(0.1)
    row, by_hand = (
        scores["balanced_accuracy"],
        compare(
            {k: 0.6 + 0.001 * k for k in range(3)}, {k: 0.7 + 0.001 * k for k in range(3)}, 360
        ),
    )
    assert (row.difference, row.p) == pytest.approx((-0.1, by_hand.p))
    (first, second) = board  # ranks go by balanced accuracy, though accuracy says the contrary
    assert [(r.method, r.rank_low, r.ranked_by) for r in board] == [
        ("b", 1, "balanced_accuracy"),
        ("a", 2, "balanced_accuracy"),
    ]
    assert first.accuracy_mean < second.accuracy_mean
    text = comparisons_text(found, "a")
    assert text.index("others, balanced accuracy") < text.index("a against the others, accuracy")


# ---- transfer ------------------------------------------------------------------------------------


def judged(method, means, ipc=1):
    """Three seeds of a method, each by one or more networks of each kind."""
    return [
        row
        for network, (mean, count) in means.items()
        for row in runs(method, [[mean + 0.001 * s] * count for s in range(3)], ipc=ipc)
        for row in [row | {"network_eval": network}]
    ]


def test_the_networks_that_nothing_was_distilled_on_make_a_cell_of_their_own():
    """Rule: its score is the mean over kinds of networks, however many of each there are."""
    rows = judged("a", {"convnet": (0.9, 2), "mlp": (0.6, 1), "vgg11": (0.8, 3)})
    rows += judged("b", {"convnet": (0.9, 2), "mlp": (0.5, 1), "vgg11": (0.4, 3)})
    rows += runs("whole", [[0.99, 0.97]], ipc=0, network_eval="mlp")
    rows += runs("whole", [[0.95, 0.95]], ipc=0, network_eval="vgg11")
    board, pairs = rank(table(rows)), compared(table(rows))
    a, b = (line(board, m, network_eval=UNSEEN) for m in "ab")
    assert a.accuracy_mean == pytest.approx((0.601 + 0.801) / 2)
    assert (a.n_seeds, a.n_networks, a.lrs) == (3, 3 * 4, None)
    assert (a.rank_low, a.rank_high, b.rank_low) == (1, 1, 2)
    assert line(board, "a", network_eval="convnet").rank_high == 2
    sent = [row | {"source": "submitted", "network_distill": "unknown"} for row in rows[:18]]
    theirs = [row | {"method": "theirs"} for row in sent]
    more = rank(table(rows + theirs))
    assert {row.method for row in more if row.network_eval == UNSEEN} == {"a", "b", "whole"}
    whole = line(board, "whole", network_eval=UNSEEN)
    assert whole.accuracy_mean == pytest.approx(np.mean([0.97, 0.96]))
    assert [p.difference for p in pairs if (p.network_eval, p.method) == (UNSEEN, "a")] == [
        pytest.approx(0.25)
    ]
    assert "evaluated by the other networks (mean), protocol mtt-v1" in leaderboard_text(board)


def test_one_other_network_is_no_mean_and_what_was_distilled_on_is_not_unseen():
    rows = judged("a", {"convnet": (0.9, 1), "mlp": (0.6, 1)})
    assert not [row for row in rank(table(rows)) if row.network_eval == UNSEEN]
    rows = judged("a", {"convnet": (0.9, 1), "mlp": (0.6, 1), "vgg11": (0.8, 1)})
    other = [row | {"method": "b", "network_distill": "vgg11"} for row in rows]
    assert not [row for row in rank(table(rows + other)) if row.network_eval == UNSEEN]


def test_a_network_that_fails_with_every_method_is_named():
    """Rule: chance is one class's share of balanced accuracy, whatever the classes' shares."""

    def of(method, network, mean):
        matrix = confusion(mean, (9000, 1000))
        score = {"confusion": matrix, "balanced_accuracy": mean, **by_class(matrix)}
        return [row | score for row in runs(method, spread(mean), network_eval=network)]

    rows = of("a", "convnet", 0.9) + of("b", "convnet", 0.505)
    rows += of("a", "resnet18", 0.51) + of("b", "resnet18", 0.50)
    text = leaderboard_text(rank(table(rows)))
    assert text.count("Near chance") == 1
    assert (
        "Near chance for every method: digits, 1 image a class, hard labels, evaluated by" in text
    )
    assert "resnet18" in text[text.index("Near chance") :]


# ---- classes -------------------------------------------------------------------------------------


def test_recall_of_each_class_and_what_a_named_class_is_asked_for():
    # 100 ill, of whom 80 are found; 900 well, of whom 90 are called ill.
    matrix = [80, 20, 90, 810]
    score = {"accuracy": 0.89, "balanced_accuracy": 0.85, "confusion": matrix, **by_class(matrix)}
    rows = [row | score | {"auroc": [0.91, 0.93]} for row in runs("mtt", spread(0.5))]
    (plain,) = rank(table(rows))
    assert plain.recall == pytest.approx([0.8, 0.9])
    assert (plain.positive, plain.sensitivity_mean) == (None, None)
    assert plain.auroc == pytest.approx(0.92)  # mean over the classes
    (row,) = rank(table(rows), positive={"digits": Positive("covid", 0)})
    assert row.positive == "covid" and row.auroc == pytest.approx(0.91)
    assert (row.sensitivity_mean, row.specificity_mean) == pytest.approx((0.8, 0.9))
    ill, well = estimate([0.8] * 3, 100), estimate([0.9] * 3, 900)
    assert (row.sensitivity_low, row.sensitivity_high) == pytest.approx((ill.low, ill.high))
    assert (row.specificity_low, row.specificity_high) == pytest.approx((well.low, well.high))
    (other,) = rank(table(rows), positive={"digits": Positive("well", 1)})
    assert (other.sensitivity_mean, other.specificity_mean) == pytest.approx((0.9, 0.8))
    area = estimate_auroc([[0.91]] * 3, [(100, 900)])
    assert (row.auroc_low, row.auroc_high) == pytest.approx((area.low, area.high))
    text = leaderboard_text([row])
    assert "With 'covid' as the positive class:" in text
    ranges = (
        *(r"80\.0 +7\d\.\d to 8\d\.\d", r"90\.0 +8\d\.\d to 9\d\.\d"),
        r"0\.910 +0\.8\d+ to 0\.9\d+",
    )
    assert re.search("mtt +" + " +".join(ranges), text)
    assert re.search(r"85\.00 +8\d\.\d to 8\d\.\d +89\.0", text)
    assert "positive class" not in leaderboard_text([plain])


def test_networks_without_outputs_count_as_guesses_in_every_score_of_a_class():
    rows = runs("mtt", spread(0.9))
    guess = {"accuracy": 0.5, "balanced_accuracy": 0.5, "confusion": None, "status": "diverged"}
    rows[0] |= guess | {"recall": [0.5, 0.5], "specificity": [0.5, 0.5], "auroc": [0.5, 0.5]}
    (row,) = rank(table(rows), positive={"digits": Positive("one", 1)})
    seeds = [np.mean([0.5, 0.9]), np.mean([0.9, 0.902]), np.mean([0.898, 0.902])]
    assert row.sensitivity_mean == pytest.approx(np.mean(seeds), abs=1e-9)
    assert row.recall == pytest.approx([np.mean(seeds)] * 2, abs=1e-9)
