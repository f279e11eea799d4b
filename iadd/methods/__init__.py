"""Methods, each one file in this folder with one class, found by looking into the folder.

A selection chooses real images (`Selection`); an iterative method gives the gradients of its
variables (`Iterative`), and `_loop` moves them, validates, rolls back, keeps checkpoints and the
trace. `_selection`, `_gradient` and `_trajectory` hold what families share. A method sees train and
validation data through its `Problem`, never test.
"""

from __future__ import annotations

import importlib
import pkgutil

from iadd.methods._base import (
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
from iadd.methods._loop import Distilled, Hooks, distill
from iadd.methods._variables import SGD, Adam, Variable


def names() -> list[str]:
    """All methods, by looking into the folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str) -> type[Method]:
    """The class of the named method.

    Raises:
        ValueError: no such method; lists those known.
    """
    if name not in names():
        raise ValueError(f"unknown method {name!r}; known: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        c
        for c in vars(module).values()
        if isinstance(c, type)
        and issubclass(c, Method)
        and c.__module__ == module.__name__
        and not c.__name__.startswith("_")
    )
