"""What the program says of its own methods: their papers, settings and trace columns."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from iadd.leaderboard.paper import papers


@dataclass(frozen=True)
class Description:
    """A method as its file tells it; `settings` and `columns` map a name to a sentence."""

    title: str
    paragraphs: tuple[str, ...]
    labels: str
    experts: str | None
    settings: Mapping[str, str]
    columns: Mapping[str, str]
    bibtex: str
    """The entry of its paper; empty where there is none."""


@functools.cache
def describe(name: str) -> Description | None:
    """The description of one of the program's methods; None for what is none, as submissions."""
    from iadd import methods

    if name not in methods.names():
        return None
    kind = methods.find(name)
    first, *others = inspect.cleandoc(kind.__doc__ or name).split("\n\n")
    fields = kind.Params.model_fields
    return Description(
        title=_plain(first),
        paragraphs=tuple(map(_plain, others)),
        labels=kind.label_kind,
        experts=kind.experts,
        settings={key: _plain(found.description or "") for key, found in fields.items()},
        columns={key: _plain(said) for key, said in kind.trace_columns.items()},
        bibtex=papers().get(name, ""),
    )


def _plain(text: str) -> str:
    """On one line, without the marks of code."""
    return " ".join(text.replace("`", "").split())
