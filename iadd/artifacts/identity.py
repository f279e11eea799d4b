"""What made a file: specs as canonical JSON, their hashes, and where two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SPEC_VERSION = "2.2"


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, exact floats, NaN refused."""
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"spec: cannot be written as JSON ({error})") from error


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of a spec's canonical JSON."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()


def source_hash(paths: Iterable[str | Path]) -> str:
    """Return the SHA-256 (hex) over the names and bytes of source files, in the given order."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def first_difference(left: Any, right: Any, key: str = "") -> tuple[str, str, str] | None:
    """Return (dotted key, JSON on the left, JSON on the right) where two JSON values part.

    Lists of objects, equally long, are looked into: an item's key is its number.
    """
    lists = isinstance(left, list) and isinstance(right, list) and len(left) == len(right)
    if lists and all(isinstance(item, dict) for item in (*left, *right)):
        left, right = ({str(k): item for k, item in enumerate(side)} for side in (left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        for name in sorted({*left, *right}):
            inner = f"{key}.{name}" if key else name
            if name not in left or name not in right:
                sides = (
                    canonical_json(side[name]) if name in side else "absent"
                    for side in (left, right)
                )
                return inner, next(sides), next(sides)
            if different := first_difference(left[name], right[name], inner):
                return different
        return None
    if canonical_json(left) == canonical_json(right):
        return None
    return key, canonical_json(left), canonical_json(right)
