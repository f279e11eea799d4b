"""Functions of wildcards whose parameters Snakemake need not find out again for every job."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TypeVar

KNOWN = "_overwrite_params"
"""Where `snakemake.common.get_function_params` looks first. It inspects a function several times a
job, which was a fifth of what drawing a graph takes; under another name it would do so again."""

T = TypeVar("T")


def inspected(kind: type[T]) -> type[T]:
    """Class decorator: notes the parameters of each public method, without the instance."""
    for name, function in vars(kind).items():
        if isinstance(function, FunctionType) and not name.startswith("_"):
            _, *parameters = inspect.signature(function).parameters.items()
            setattr(function, KNOWN, dict(parameters))
    return kind
