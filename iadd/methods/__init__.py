"""Methods, each one file in this folder with one class, found by looking into the folder.

Three families do the common part: selections choose real images (`_base.Method`), batch methods
match statistics of real batches (`_gradient`, `dm`), trajectory methods match the parameters that
training on real data reaches (`_trajectory`). `_outer` is the loop that drives the iterative ones.
A method sees train and validation data through its `Problem`, never test.
"""

from __future__ import annotations

import importlib
import pkgutil

from iadd.methods._base import Matching, MatchingParams, Method, MethodParams, Outer, Problem, Space
from iadd.methods._outer import Distilled, Hooks, distill

__all__ = [
    "Distilled",
    "Hooks",
    "Matching",
    "MatchingParams",
    "Method",
    "MethodParams",
    "Outer",
    "Problem",
    "Space",
    "distill",
    "find",
    "names",
]


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
        if isinstance(c, type) and issubclass(c, Method) and c.__module__ == module.__name__
    )
