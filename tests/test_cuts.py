"""Which images are held out depends on their contents alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from iadd.data.cuts import cut, digests_of, digests_of_names, fingerprint, ordered, united


def digests(count: int, first: int = 0) -> NDArray[np.uint8]:
    joined = b"".join(hashlib.sha256(bytes(f"{k}", "ascii")).digest() for k in range(count))
    return np.frombuffer(joined, dtype=np.uint8).reshape(count, 32)[first:]


@settings(max_examples=100)
@given(st.lists(st.integers(0, 4), min_size=10, max_size=80), st.floats(0.01, 0.5), st.text())
def test_every_class_of_two_has_images_on_both_sides(
    drawn: list[int], share: float, salt: str
) -> None:
    labels = np.array(drawn)
    held = cut(digests(len(labels)), labels, share, salt)
    for label, count in enumerate(np.bincount(labels)):
        taken = held[labels == label].sum()
        assert 1 <= taken < count if count > 1 else taken == 0
    assert np.array_equal(held, cut(digests(len(labels)), labels, share, salt))


def test_the_share_is_about_what_is_asked_for() -> None:
    labels = np.arange(10_000) % 10
    for share in (0.1, 0.2, 0.5):
        assert abs(cut(digests(10_000), labels, share).mean() - share) < 0.015
    assert not cut(digests(10_000), labels, 0).any()


def test_removing_or_adding_images_moves_no_other() -> None:
    contents, labels = digests(2000), np.arange(2000) % 4
    whole = cut(contents, labels, 0.2)
    assert np.array_equal(cut(contents[:1000], labels[:1000], 0.2), whole[:1000])
    rest = np.random.default_rng(0).permutation(2000)[:1500]
    assert np.array_equal(cut(contents[rest], labels[rest], 0.2), whole[rest])


def test_identical_images_stay_on_one_side() -> None:
    contents, labels = np.repeat(digests(100), 3, 0), np.arange(300) % 5
    held = cut(contents, labels, 0.3).reshape(100, 3)
    assert (held.all(1) | ~held.any(1)).all()
    same = np.repeat(digests(1), 4, 0)
    assert not cut(same, np.zeros(4, dtype=np.int64), 0.5).any()


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 14)), min_size=20, max_size=80),
    st.floats(0.01, 0.5),
)
def test_two_hashes_of_a_class_can_be_left_for_train_and_validation(
    drawn: list[tuple[int, int]], share: float
) -> None:
    """Also where one hash, say of a patient, stands in several classes: as far as it can be."""
    labels = np.array([label for label, _ in drawn])
    hashes = digests(15)[[number for _, number in drawn]]
    alone = labels + 4 * np.array([number for _, number in drawn])  # no hash in two classes
    for keys, each in ((hashes, False), (digests(64)[alone], True)):
        held = cut(keys, labels, share, least=2)
        sides: dict[bytes, bool] = {}
        for row, side in zip(keys, held.tolist(), strict=True):
            assert sides.setdefault(row.tobytes(), side) == side
        for label in np.unique(labels):
            own = {row.tobytes() for row in keys[labels == label]}
            taken = sum(sides[key] for key in own)
            if each and len(own) > 1:
                assert 1 <= taken <= max(1, len(own) - 2)


def test_a_rare_class_has_its_way_first() -> None:
    """A patient with images of two classes: the rare one would have no test image otherwise."""
    numbers = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 1])
    labels = np.array([0] * 8 + [1] * 2)
    held = cut(digests(8)[numbers], labels, 0.01)
    assert held[labels == 1].sum() == 1
    assert held[labels == 0].any()
    assert held[8] == held[0] and held[9] == held[1]


def test_the_share_of_a_class_is_as_far_off_as_a_draw() -> None:
    labels = np.arange(20_000) % 100  # 200 each, 40 held out: standard deviation 5.7
    counts = np.bincount(labels[cut(digests(20_000), labels, 0.2)])
    assert abs(counts.mean() - 40) < 2
    assert 4 < counts.std() < 8


def test_groups_that_share_an_image_are_one() -> None:
    contents = digests(6)[[0, 1, 1, 2, 3, 3, 4, 5]]
    groups = digests_of_names(["a", "a", "b", "b", "b", "c", "d", "e"])
    keys = united(contents, groups)
    rows = [row.tobytes() for row in keys]
    assert len(set(rows[:6])) == 1  # a and b by image 1, b and c by image 3
    assert len({*rows}) == 3
    assert set(rows) < {row.tobytes() for row in groups}
    shuffle = np.random.default_rng(0).permutation(8)
    assert np.array_equal(united(contents[shuffle], groups[shuffle]), keys[shuffle])


def test_another_salt_is_another_cut() -> None:
    contents, labels = digests(200), np.zeros(200, dtype=np.int64)
    cuts = [cut(contents, labels, 0.3, salt) for salt in ("", "a", "b")]
    assert not np.array_equal(cuts[0], cuts[1])
    assert not np.array_equal(cuts[1], cuts[2])


def test_the_order_of_rows_is_by_label_and_content() -> None:
    contents, labels = digests(50), np.arange(50) % 3
    order = ordered(contents, labels)
    assert labels[order].tolist() == sorted(labels.tolist())
    shuffle = np.random.default_rng(1).permutation(50)
    again = ordered(contents[shuffle], labels[shuffle])
    assert np.array_equal(contents[order], contents[shuffle][again])


def test_the_fingerprint_sees_contents_labels_parts_and_facts_and_no_order() -> None:
    contents, labels = digests(20), np.arange(20) % 2
    parts = [(contents[:10], labels[:10]), (contents[10:], labels[10:])]
    first = fingerprint({"zca": False}, parts)
    assert fingerprint({"zca": False}, [(c[::-1], n[::-1]) for c, n in parts]) == first
    others = (
        fingerprint({"zca": True}, parts),
        fingerprint({"zca": False}, parts[::-1]),
        fingerprint({"zca": False}, [(contents[:10], 1 - labels[:10]), parts[1]]),
        fingerprint({"zca": False}, [(digests(30, 20), labels[:10]), parts[1]]),
    )
    assert len({first, *others}) == 5
    names = digests_of_names("abcdefghij")
    grouped = [
        fingerprint({"zca": False}, [(*parts[0], g), parts[1]]) for g in (names, names[::-1])
    ]
    assert len({first, *grouped}) == 3


@pytest.mark.parametrize("other", [(1, 8, 8, np.uint8), (3, 4, 4, np.uint8), (1, 4, 4, np.int16)])
def test_a_digest_sees_shape_and_type(other: tuple[int, int, int, type]) -> None:
    *shape, kind = other
    plain = digests_of(np.zeros((1, 1, 4, 4), dtype=np.uint8))
    assert not np.array_equal(plain, digests_of(np.zeros((1, *shape), dtype=kind)))
