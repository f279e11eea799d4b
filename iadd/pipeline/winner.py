"""What a search found, as a file: sealed when it is written, checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from iadd.artifacts import canonical_json, parsing, read_json, spec_hash

SEAL = "sha256"


def sealed(winner: Mapping[str, Any]) -> dict[str, Any]:
    """A winner with the hash of all else in it: parameters changed by hand are not a search's."""
    plain = {key: value for key, value in winner.items() if key != SEAL}
    return plain | {SEAL: spec_hash(plain)}


def read_winner(
    path: Path, spec: Mapping[str, Any], params: Callable[[Any], Any], again: str
) -> dict[str, Any]:
    """A winner that a search of this spec wrote.

    Args:
        params: the method's parameters (plain data) that follow from a winner's settings.
        again: how to find it anew.

    Raises:
        ValueError: one line naming the file: missing, damaged, of another spec, or changed since.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file; {again}")
    found = read_json(path, "winner of a search", f"; {again}")
    with parsing(path, "winner of a search", f"; {again}"):
        if found.get("spec") != json.loads(canonical_json(spec)):
            raise ValueError(f"{path}: was found under other settings; {again}")
        if found != sealed(found):
            raise ValueError(f"{path}: was changed after the search had written it; {again}")
        if found["params"] != params(found["settings"]):
            raise ValueError("its parameters do not follow from its settings")
        return dict(found)
