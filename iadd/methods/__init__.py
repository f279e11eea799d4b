"""Methods, each one file in this folder with one class, found by looking into the folder.

A selection chooses real images (`Selection`); an iterative method gives the gradients of its
variables (`Iterative`), and `_loop` moves them, validates, rolls back, keeps checkpoints and the
trace. `_selection`, `_gradient` and `_trajectory` hold what families share. A method sees train and
validation data through its `Problem`, never test.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

from iadd.experts import RECIPES
from iadd.methods._base import (
    RANGES,
    Gradients,
    Iterative,
    IterativeParams,
    Method,
    MethodParams,
    Problem,
    Selection,
    Skip,
    Space,
    Workload,
)
from iadd.methods._loop import Hooks, distill
from iadd.methods._state import Distilled
from iadd.methods._variables import SGD, Adam, Variable


def names() -> list[str]:
    """All methods, by looking into the folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str) -> type[Method]:
    """The class of the named method.

    Raises:
        ValueError: no such method (lists those known), or one whose file or declarations are wrong.
    """
    found = _found.get(name)
    if found is None or getattr(sys.modules.get(found.__module__), found.__name__, None) != found:
        found = _found[name] = _load(name)
    return found


_found: dict[str, type[Method]] = {}
"""Methods that were looked for before, thousands of times in a large benchmark's plan."""


def _load(name: str) -> type[Method]:
    if name not in names():
        raise ValueError(f"unknown method {name!r}; known: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        c
        for c in vars(module).values()
        if isinstance(c, type)
        and issubclass(c, Method)
        and c.__module__ == module.__name__
        and not c.__name__.startswith("_")
    ]
    if len(found) != 1:
        named = ", ".join(c.__name__ for c in found) or "none"
        raise ValueError(f"methods/{name}.py: holds {named}, allowed is one public Method class")
    _check(name, found[0])
    return found[0]


def _check(name: str, kind: type[Method]) -> None:
    """What a class declares, so that a slip in a plug-in is told as one and not as the user's."""
    wrong = None
    if kind.experts not in (None, *RECIPES):
        wrong = f"experts is {kind.experts!r}, allowed are None, {', '.join(RECIPES)}"
    if kind.label_kind not in ("hard", "soft"):
        wrong = f"label_kind is {kind.label_kind!r}, allowed are hard, soft"
    if not isinstance(kind.trace_columns, dict):
        wrong = "trace_columns: allowed is a dictionary of column and sentence"
    for key, over in kind.space.items():
        if key not in kind.Params.model_fields:
            wrong = f"space: {key!r} is no parameter"
        elif not _is_range(over):
            wrong = (
                f"space: {key}: {over!r}, allowed are ('log'|'uniform'|'int', low, high), a list"
            )
    if wrong:
        raise ValueError(f"methods/{name}.py: {wrong}")


def _is_range(over: object) -> bool:
    if isinstance(over, list):
        return len(over) >= 2
    if not isinstance(over, tuple) or len(over) != 3 or over[0] not in RANGES:
        return False
    return bool(over[1] < over[2] and (over[0] != "log" or over[1] > 0))
