"""A page a method: what it is, its paper, its settings, all its cells and runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from iadd.leaderboard.cells import UNSEEN, WHOLE
from iadd.leaderboard.measures import imbalanced
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.content import Content, RunKey
from iadd.leaderboard.site.describe import Description, describe
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.site.page import Page
from iadd.leaderboard.site.ranked import interval_words, method_cell, published_cell, rank_cell
from iadd.leaderboard.text import network_words, per_class

NAV = "Methods"
MOST_CELLS = 2000
"""Cells in a method's table."""
UNKNOWN = "Not a method of this program: what is known of it is what its sets reached."


def pages(content: Content) -> Iterator[Page]:
    """The list, then a page for each method that was measured or submitted."""
    rows: dict[str, list[LeaderboardRow]] = defaultdict(list)
    for row in content.board:
        if row.source != "published":
            rows[row.method].append(row)
    keys: dict[str, list[RunKey]] = defaultdict(list)
    for key in content.runs:
        keys[key.method].append(key)
    told = {name: _told(content, name, rows[name]) for name in content.methods}
    yield Page("methods.html", NAV, NAV, context={"tables": [_list(rows, told)], "lead": ""})
    for name in content.methods:
        yield _page(content, name, rows[name], keys[name], told[name])


def _told(content: Content, name: str, rows: list[LeaderboardRow]) -> Description | None:
    """What the program knows of a method: nothing of a submission, whatever it calls itself."""
    if any(row.source == "submitted" for row in rows):
        return None
    return describe(content.about.methods.get(name, name))


def _list(
    rows: Mapping[str, list[LeaderboardRow]], told: Mapping[str, Description | None]
) -> Table:
    columns = (
        Column("Method", "head"),
        Column("What it is", "text"),
        Column("Labels", "word"),
        Column("Tables", hint="in which it stands: one of each network, protocol and so on"),
        Column("First or tied", hint="tables in which no other method is significantly better"),
    )
    lines = []
    for name, description in told.items():
        ranked = [row for row in rows[name] if row.rank_low is not None]
        labels = ", ".join(sorted({row.label_regime for row in rows[name] if name != WHOLE}))
        what = description.title.split(". ")[0] if description else UNKNOWN
        first = sum(row.rank_low == 1 for row in ranked)
        tied = f"{first} of {len(ranked)}" if ranked else html.MISSING
        cells: list[Cell | str]
        cells = [method_cell(rows[name][0]), what, labels or html.MISSING, str(len(rows[name]))]
        lines.append(Line([*cells, Cell(tied, order=first if ranked else "")]))
    return Table("Methods", columns, lines, f"{len(lines)} measured or submitted here")


def _page(
    content: Content,
    name: str,
    rows: list[LeaderboardRow],
    keys: list[RunKey],
    told: Description | None,
) -> Page:
    base = content.about.methods.get(name, name)
    context = {
        "told": told,
        "base": base if base != name and told else None,
        "reconstruction": any(row.reconstruction for row in rows),
        "submitted": any(row.source == "submitted" for row in rows),
        "unknown": UNKNOWN,
        "settings": _settings(content, keys, told),
        "cells": _cells(rows),
        "runs": _runs(keys),
    }
    return Page(places.method(name), name, NAV, "method.html", context)


def _settings(content: Content, keys: list[RunKey], told: Description | None) -> Table | None:
    """Each setting with its value, or its values and where they hold, and what it is."""
    values: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for where, group in groupby(sorted(keys), key=lambda key: key[:4]):
        first = next(group)
        dataset, ipc, _, tuned = where
        place = f"{dataset}, {per_class(ipc)}{', tuned' * tuned}"
        for setting, value in _params(content.runs[first]["params"]).items():
            values[setting][html.setting(value)].append(place)
    lines = []
    for setting, found in sorted(values.items()):
        several = [f"{value} ({_some(where)})" for value, where in found.items()]
        text = "; ".join(several) if len(found) > 1 else next(iter(found))
        lines.append(Line([setting, text, told.settings.get(setting, "") if told else ""]))
    columns = Column("Setting", "head"), Column("Value", "text"), Column("What it is", "text")
    return Table("Settings", columns, lines) if lines else None


def _some(names: list[str]) -> str:
    return "; ".join(names[:6]) + f" and {len(names) - 6} more" * (len(names) > 6)


def _params(text: str) -> dict[str, Any]:
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


def _cells(rows: list[LeaderboardRow]) -> Table:
    unequal = imbalanced(rows)
    columns = (
        Column("Data set", "head"),
        Column("Images a class"),
        Column("Network", "word", filter=True),
        Column("Protocol", "word", filter=True),
        Column("Labels", "word", filter=True),
        Column("Settings", "word", filter=True),
        Column("Rank", "word"),
        Column("Accuracy, %"),
        Column("95 % interval"),
        *[Column("Balanced, %", hint="balanced accuracy: ranks there")] * unequal,
        Column("Published, %"),
    )
    ordered = sorted(rows, key=lambda r: (r.dataset, r.ipc, r.network_eval == UNSEEN))
    lines = [
        Line(
            [
                Cell(row.dataset, places.board(row.dataset, row.ipc)),
                str(row.ipc),
                network_words(row.network_eval),
                row.protocol,
                row.label_regime,
                "tuned" if row.tuned else "default",
                rank_cell(row),
                html.percent(row.accuracy_mean, 2),
                interval_words(row),
                *[_balanced(row)] * unequal,
                published_cell(row),
            ]
        )
        for row in ordered[:MOST_CELLS]
    ]
    note = f"the first {MOST_CELLS} of {len(rows)}" if len(rows) > MOST_CELLS else f"{len(rows)}"
    note += " · ranked by balanced accuracy where it stands" * unequal
    return Table("All its results", columns, lines, note)


def _balanced(row: LeaderboardRow) -> str:
    return html.percent(row.balanced_accuracy_mean, 2) if imbalanced([row]) else html.MISSING


def _runs(keys: list[RunKey]) -> list[tuple[str, list[tuple[int, str]]]]:
    """Its runs: what was distilled, and each seed with its page."""
    return [
        (
            f"{where[0]}, {per_class(where[1])}{', tuned' * where[3]}",
            [(key.seed, places.run(key)) for key in group],
        )
        for where, group in groupby(sorted(keys), key=lambda key: key[:4])
    ]
