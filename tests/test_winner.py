"""A winner is what its search wrote: what was changed, damaged or is another's is not taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iadd.pipeline.winner import read_winner, sealed

SPEC = {"kind": "search", "seed": 0}
WINNER = {"spec": SPEC, "settings": {"lr": 2.0}, "params": {"lr": 2.0, "n": 1}, "trial": 3}


def read(path: Path) -> dict[str, Any]:
    return read_winner(path, SPEC, lambda settings: {"n": 1, **settings}, "run: iadd search")


def test_a_winner_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text(json.dumps(sealed(WINNER)))
    assert read(path) == sealed(WINNER)
    assert sealed(sealed(WINNER)) == sealed(WINNER)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w | {"params": {"lr": 9.0, "n": 1}}, "was changed after the search"),
        (lambda w: w | {"trial": 4}, "was changed after the search"),
        (lambda w: sealed(w | {"params": {"lr": 9.0, "n": 1}}), "do not follow from its settings"),
        (lambda w: sealed(w | {"settings": 7}), "is no readable winner of a search"),
        (lambda w: sealed(w | {"spec": {"kind": "search", "seed": 1}}), "under other settings"),
        (lambda w: [], "is no readable winner of a search"),
    ],
)
def test_any_other_is_refused_with_the_command_that_finds_one(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    path = tmp_path / "w.json"
    path.write_text(json.dumps(change(sealed(WINNER))))
    with pytest.raises(ValueError, match=rf"w\.json: .*{said}.*; run: iadd search"):
        read(path)
