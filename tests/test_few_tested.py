"""A class of which few images are tested is named before anything runs, with what that means."""

from iadd.data import About
from iadd.leaderboard.statistics import estimate
from iadd.pipeline.few_tested import few_tested


def about(tested: dict[str, int], positive: str | None = None) -> About:
    counts = tuple(tested.values())
    return About(
        name="xrays",
        fingerprint="f",
        class_names=tuple(tested),
        counts={"train": counts, "validation": counts, "test": counts},
        channels=1,
        resolution=8,
        transform="standard",
        augmentation=(),
        values=(0, 255),
        positive=positive,
    )


def test_the_rarest_class_and_the_positive_one_are_named_with_their_intervals() -> None:
    found = few_tested(about({"covid": 41, "flu": 9, "cold": 12, "none": 200}, "covid"))
    assert found == [
        "WARNING: xrays: class 'covid' has 41 test images, so a sensitivity of 90 % is known to "
        "+-10 points at best (95 %)",
        "WARNING: xrays: class 'flu' has 9 test images, so a recall of 90 % is known to +-23 "
        "points at best (95 %); classes with fewer than 30: 2",
    ]
    nine = estimate([0.9] * 3, 9)
    assert nine.low is not None and round(100 * (0.9 - nine.low)) == 23  # as in the tables


def test_enough_images_are_no_warning() -> None:
    assert few_tested(about({"a": 30, "b": 99})) == []
    assert few_tested(about({"a": 100, "b": 30}, "a")) == []
    (line,) = few_tested(about({"a": 1, "b": 30}))
    assert "class 'a' has 1 test image, so a recall" in line
