"""An entry of a benchmark's `methods`: a method by its own name, or a variant under another."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from iadd import methods
from iadd.experts import RECIPES, named_recipe
from iadd.pipeline.config.file import NAME, PATTERN, Section


class MethodConfig(Section):
    """An entry's method, its parameters, what differs by ipc, and its experts."""

    method: str | None = Field(
        None,
        description="The method, for an entry under a name of its own: one method with several "
        "settings is several rows in tables. Default: the entry's name.",
    )
    params: dict[str, Any] = Field(default_factory=dict, description="The method's parameters.")
    ipc: dict[int, dict[str, Any]] = Field(
        default_factory=dict, description="ipc -> parameters that differ there."
    )
    experts: str | None = Field(
        None, description=f"Recipe of its experts, of {', '.join(RECIPES)}; default: its own."
    )


def check_entry(name: str, entry: MethodConfig) -> None:
    """ValueError of one line for a name or a method that an entry cannot have."""
    if entry.method is None:
        kind = methods.find(name)
    else:
        where = f"methods.{name}.method: {entry.method}"
        if entry.method not in methods.names():
            raise ValueError(f"{where}: unknown method; known: {', '.join(methods.names())}")
        kind = methods.find(entry.method)
        if not re.fullmatch(NAME, name):
            raise ValueError(f"methods: name {name!r} {PATTERN}")
        if name != entry.method and name in methods.names():
            raise ValueError(f"{where}: {name} is a method itself; give the entry another name")
        if name != entry.method and not kind.Params.model_fields:
            raise ValueError(f"{where}: has no parameters, so it has no variants")
    if entry.experts and not kind.experts:
        raise ValueError(f"methods.{name}.experts: {entry.experts}: it needs no experts")
    if entry.experts:
        named_recipe(entry.experts)
