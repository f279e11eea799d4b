"""Which images are held out depends on their contents alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from iadd.data.cuts import cut, digests_of, fingerprint, ordered


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


@pytest.mark.parametrize("other", [(1, 8, 8, np.uint8), (3, 4, 4, np.uint8), (1, 4, 4, np.int16)])
def test_a_digest_sees_shape_and_type(other: tuple[int, int, int, type]) -> None:
    *shape, kind = other
    plain = digests_of(np.zeros((1, 1, 4, 4), dtype=np.uint8))
    assert not np.array_equal(plain, digests_of(np.zeros((1, *shape), dtype=kind)))
