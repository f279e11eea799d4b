"""What a distilled set saves: by hand, measured before forecast, and in words."""

import pytest
from made_up_tables import Row, rank, runs, spread, table

from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.savings import (
    Data,
    data_of,
    savings_words,
    transmission,
    with_savings,
)
from iadd.leaderboard.training import Training

DATA = {"digits": Data(1000, 10, 2_000_000)}
EPOCHS = {"mtt-v1": Training(epochs=300, whole_epochs=20, batch=256, step_size=0.01)}


def saved(rows: list[Row]) -> dict[tuple[str, int], LeaderboardRow]:
    board = with_savings(rank(table(rows)), DATA, EPOCHS)
    return {(row.method, row.ipc): row for row in board}


@pytest.mark.parametrize(
    ("values", "depth"),
    [((0, 16), 1), ((0, 255), 1), ((0, 4095), 2), ((0, 65535), 2), ((0.0, 1.0), 4)],
)
def test_the_whole_data_count_in_the_depth_that_they_came_in(
    values: tuple[float, float], depth: int
) -> None:
    found = data_of([60, 40], 3, 32, values)
    assert found == Data(100, 2, 100 * (3 * 32 * 32 * depth + 8))


def test_storage_and_transmission_by_hand() -> None:
    row = saved(runs("mtt", spread(0.9)))["mtt", 1]
    assert (row.bytes, row.whole_bytes) == (2640, 2_000_000)
    assert row.bytes_share == 2640 / 2_000_000
    assert row.transmission_seconds == 2640 * 8 / 100e6 == transmission(2640)
    assert row.whole_transmission_seconds == 0.16


def test_training_on_the_whole_data_is_measured_where_the_benchmark_does_it() -> None:
    rows = runs("mtt", spread(0.9), evaluate_seconds=3.0)
    rows += runs("whole", [[0.99]], ipc=0, evaluate_seconds=40.0)
    found = saved(rows)
    mtt, whole = found["mtt", 1], found["whole", 1]
    assert (mtt.train_seconds, mtt.whole_train_seconds) == (3.0, 40.0)
    assert mtt.whole_train_source == whole.whole_train_source == "measured"
    assert whole.bytes_share == 1.0 and whole.whole_train_seconds == whole.train_seconds


def test_a_forecast_goes_by_the_largest_sets_and_the_fastest_of_them() -> None:
    """300 epochs of 100 images are 90,000 passes and 10,000 for the test, in 2 s: 20 us a pass."""
    rows = runs("mtt", spread(0.9), ipc=1, evaluate_seconds=9.0)
    rows += runs("mtt", spread(0.9), ipc=10, evaluate_seconds=2.0)
    rows += runs("dc", spread(0.8), ipc=10, evaluate_seconds=5.0)
    found = saved(rows)
    expected = 20e-6 * (3 * 20 * 1000 + 10_000)
    for row in found.values():
        assert row.whole_train_seconds == pytest.approx(expected)
        assert row.whole_train_source == "forecast"


def test_what_is_not_known_stays_empty() -> None:
    row = saved(runs("mtt", spread(0.9), image_bytes=None, evaluate_seconds=None))["mtt", 1]
    assert row.bytes_share is None and row.transmission_seconds is None
    assert row.whole_train_seconds is None and row.whole_train_source is None
    assert not savings_words([row]) and not savings_words([])


def test_words() -> None:
    rows = runs("mtt", spread(0.9), evaluate_seconds=3.0)
    rows += runs("datm", spread(0.9), label_bytes=8000, evaluate_seconds=4.0)
    words = savings_words(list(saved(rows).values()))
    assert words == (
        "Saved: 2.6 kB to 11 kB instead of 2 MB, sent in 0.21 ms to 0.84 ms instead of 160 ms at "
        "100 Mbit/s, trained on in 3 s to 4 s instead of 11 s (forecast)."
    )
