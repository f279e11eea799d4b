"""The forest plot: which pairs are in it, what is corrected for, and its words."""

import re
from typing import Any

import made_up_tables
import pytest
from made_up_tables import runs, table

from iadd.leaderboard import forest
from iadd.leaderboard.controls import OUTLYING, Pair, controls_text, panels
from iadd.leaderboard.rows import ComparisonRow
from iadd.leaderboard.statistics import holm

CONTROLS = [
    *(("learned", "frozen"), ("shuffled", "frozen"), ("absent", "frozen")),
    ("learned", "shuffled"),
]


def compared(*others: str) -> list[ComparisonRow]:
    """Ten paired seeds; the difference of learned and frozen is 2 points, give or take."""
    base = [0.80 + 0.01 * (seed % 3) for seed in range(10)]
    rows = runs("frozen", [[a] for a in base])
    rows += runs("learned", [[a + 0.02 + 0.004 * (s % 2)] for s, a in enumerate(base)])
    rows += runs("shuffled", [[a + 0.001 * (-1) ** s] for s, a in enumerate(base)])
    for other in others:
        rows += runs(other, [[0.5 + 0.02 * (s % 4)] for s in range(10)])
    return made_up_tables.compared(table(rows))


def test_only_declared_pairs_count_and_in_their_order() -> None:
    (panel,) = panels(compared("random"), CONTROLS)
    pairs = [(pair.found.method, pair.found.other) for pair in panel.pairs]
    assert pairs == [("learned", "frozen"), ("shuffled", "frozen"), ("learned", "shuffled")]
    assert list(panel.groups) == ["frozen", "shuffled"]
    assert [pair.p for pair in panel.pairs] == list(holm([pair.found.p for pair in panel.pairs]))
    assert "these 3 comparisons" in panel.note and "over 10 paired seeds" in panel.note


def test_others_in_the_benchmark_change_no_verdict() -> None:
    """A table's own correction grows with every pair of its methods, this one does not."""
    alone, crowded = (
        panels(compared(*others), CONTROLS)[0].pairs for others in ((), [f"m{k}" for k in range(6)])
    )
    assert [pair.p for pair in alone] == [pair.p for pair in crowded]
    assert crowded[0].found.p_holm > alone[0].found.p_holm


def row(**changes: Any) -> ComparisonRow:
    given: dict[str, Any] = {
        **{"dataset": "d", "ipc": 1, "network_eval": "n", "protocol": "mtt-v1"},
        **{"label_regime": "hard", "tuned": False, "score": "accuracy", "method": "a"},
        **{"other": "b", "n_seeds": 5, "difference": 0.0123, "low": 0.001, "high": 0.0236},
        **{"p": 0.04, "p_holm": 1.0, "significant": False},
    }
    return ComparisonRow(**given | changes)


@pytest.mark.parametrize(
    ("changes", "p", "words"),
    [
        ({}, 0.04, "+1.23 (+0.10 to +2.36), better"),
        ({}, 0.05, "+1.23 (+0.10 to +2.36), only before correction"),
        ({"p": 0.05}, 0.05, "+1.23 (+0.10 to +2.36), not told apart"),
        (
            {"difference": -0.0123, "low": -0.02, "high": -0.01},
            0.01,
            "-1.23 (-2.00 to -1.00), worse",
        ),
        ({"difference": -1e-9, "p": 1.0}, 1.0, "+0.00 (+0.10 to +2.36), not told apart"),
    ],
)
def test_words(changes: dict[str, Any], p: float, words: str) -> None:
    assert Pair(row(**changes), p).words == words


def test_every_cell_has_a_panel_by_the_measure_that_ranks_there() -> None:
    balanced = row(score="balanced_accuracy", ipc=50, difference=0.03)
    rows = [row(), row(ipc=10), balanced, row(ipc=50), row(method="c")]
    found = panels(rows, [("a", "b")])
    assert [panel.cell.ipc for panel in found] == [1, 10, 50]
    assert found[2].pairs[0].found == balanced
    assert found[2].axis == "points of test balanced accuracy, entry minus control"
    assert "Difference of test balanced accuracy" in found[2].note
    assert found[0].axis == "points of test accuracy, entry minus control"
    assert not panels(rows, []) and not panels(rows, [("z", "b")])


def test_the_figure_shows_each_pair_at_its_place() -> None:
    (panel,) = panels(compared(), CONTROLS)
    (axes,) = forest.draw(panel).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["against frozen", "learned", "shuffled", "against shuffled", "learned"]
    assert [text.get_text() for text in axes.texts] == [pair.words for pair in panel.pairs]
    marks = [line for line in axes.lines if line.get_marker() == "s"]
    for mark, pair, height in zip(marks, panel.pairs, (1, 2, 4), strict=True):
        assert list(mark.get_xdata()) == [100 * pair.found.difference]
        assert list(mark.get_ydata()) == [height]
        assert (mark.get_markerfacecolor() == "white") == (pair.p >= 0.05)


def test_one_failed_entry_does_not_flatten_the_others() -> None:
    rows = [row(method=f"m{k}") for k in range(4)]
    rows.append(row(method="failed", difference=-0.6, low=-0.7, high=-0.5))
    (panel,) = panels(rows, [(r.method, "b") for r in rows])
    (axes,) = forest.draw(panel).axes
    low, high = axes.get_xlim()
    assert low == -high == pytest.approx(-1.1 * OUTLYING * 2.36)
    (arrow,) = (line for line in axes.lines if line.get_marker() == "<")
    assert list(arrow.get_xdata()) == [0.97 * low] and list(arrow.get_ydata()) == [5]


def test_the_terminal_shows_a_line_a_pair() -> None:
    text = controls_text(panels(compared(), CONTROLS)).splitlines()
    assert text[0].startswith("Against controls: digits, 1 image a class") and len(text) == 5
    assert re.fullmatch(r"  learned against frozen    \+2\.20 \(.* to .*\), better", text[2])
    assert controls_text([]) == ""
