"""Cuts and identity of data, from the contents of the images alone.

Whether an image is held out depends on the hash of its content, or of its group (a patient):
identical images and images of one group stay on one side, and removing or adding files moves no
other image. A class of n images has n times the fraction held out, give or take the square root of
that. Exact shares would tie each image's side to all others of its class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint8]


def digest(*arrays: NDArray[Any]) -> bytes:
    """SHA-256 of arrays: dtypes, shapes and values."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.digest()


def digests_of(images: NDArray[Any]) -> Digests:
    """The digest of each image of an array (N, C, H, W): (N, 32)."""
    joined = b"".join(digest(image) for image in images)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(images), 32)


def digests_of_names(names: Iterable[str]) -> Digests:
    """The digest of each name: (N, 32)."""
    joined = b"".join(hashlib.sha256(name.encode()).digest() for name in names)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)


def united(digests: Digests, groups: Digests) -> Digests:
    """What each image is cut by where images have groups: (N, 32).

    It is the group's, and one and the same for groups that share an image, directly or by others.

    Args:
        digests: (N, 32) of the contents. groups: (N, 32) of the groups' names.
    """
    names, keys = np.unique(groups, axis=0, return_inverse=True)
    _, contents = np.unique(digests, axis=0, return_inverse=True)
    keys = keys.ravel()
    least = np.arange(len(names))  # of the groups known to belong to each one
    while True:
        shared = np.full(len(keys), len(names))
        np.minimum.at(shared, contents.ravel(), least[keys])
        before = least.copy()
        np.minimum.at(least, keys, shared[contents.ravel()])
        if np.array_equal(least, before):
            return names[least[keys]]


def cut(
    digests: Digests, labels: NDArray[np.int64], fraction: float, salt: str = "", least: int = 1
) -> NDArray[np.bool_]:
    """Hold out the images whose hash, as a number in [0, 1), is below `fraction`: (N,) bool.

    Where that takes none of a class of at least 2 different hashes, its lowest one is taken; where
    it leaves fewer than `least`, its highest ones stay, as far as one is taken all the same. The
    classes with the fewest have their way first: a hash may stand in several.

    Args:
        digests: (N, 32), of contents or of groups. labels: (N,). fraction: 0 holds nothing out.
        salt: another salt is another cut.
        least: different hashes of each class that are to stay.
    """
    if not fraction:
        return np.zeros(len(labels), dtype=bool)
    salted = (hashlib.sha256(salt.encode() + row.tobytes()).digest()[:8] for row in digests)
    keys = np.frombuffer(b"".join(salted), dtype=">u8").astype(np.uint64)
    held = keys < np.uint64(int(fraction * 2.0**64))
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    different = [(np.unique(keys[rows]), rows) for rows in classes]
    for own, rows in sorted(different, key=lambda pair: -len(pair[0])):  # the last has its way
        stay = max(1, min(least, len(own) - 1))
        held &= ~np.isin(keys, own[-stay:])
        if len(own) > 1 and not held[rows].any():
            held |= keys == own[0]
    return held


def ordered(digests: Digests, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of rows by label and content, whatever the files are called."""
    words = digests.view(">u8")
    return np.lexsort((*(words[:, k] for k in (3, 2, 1, 0)), labels))


def fingerprint(facts: Mapping[str, Any], parts: Iterable[Sequence[NDArray[Any]]]) -> str:
    """The identity of data: SHA-256 (hex) of facts and of each part.

    Args:
        parts: digests (N, 32) of contents, labels (N,), and digests of groups if there are any.
    """
    state = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for part in parts:
        order = ordered(part[0], part[1])
        state.update(digest(*(rows[order] for rows in part)))
    return state.hexdigest()
