"""Cuts and identity of data, from the contents of the images alone.

Whether an image is held out depends on the hash of its content: identical images stay on one side,
and removing or adding files moves no other image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
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


def cut(
    digests: Digests, labels: NDArray[np.int64], fraction: float, salt: str = ""
) -> NDArray[np.bool_]:
    """Hold out the images whose hash, as a number in [0, 1), is below `fraction`: (N,) bool.

    Where that takes none of a class of at least 2 different images, its lowest one is taken; where
    it takes all, the highest one stays.

    Args:
        digests: (N, 32). labels: (N,). fraction: 0 holds nothing out.
        salt: another salt is another cut.
    """
    if not fraction:
        return np.zeros(len(labels), dtype=bool)
    salted = (hashlib.sha256(salt.encode() + row.tobytes()).digest()[:8] for row in digests)
    keys = np.frombuffer(b"".join(salted), dtype=">u8").astype(np.uint64)
    held = keys < np.uint64(int(fraction * 2.0**64))
    for label in np.unique(labels):
        own = keys[labels == label]
        if own.min() < own.max() and not held[labels == label].any():
            held |= keys == own.min()
        elif held[labels == label].all():
            held &= keys != own.max()
    return held


def ordered(digests: Digests, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of rows by label and content, whatever the files are called."""
    words = digests.view(">u8")
    return np.lexsort((*(words[:, k] for k in (3, 2, 1, 0)), labels))


def fingerprint(
    facts: Mapping[str, Any], parts: Iterable[tuple[Digests, NDArray[np.int64]]]
) -> str:
    """The identity of data: SHA-256 (hex) of facts and each part's contents with labels."""
    state = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for digests, labels in parts:
        order = ordered(digests, labels)
        state.update(digest(digests[order], labels[order]))
    return state.hexdigest()
