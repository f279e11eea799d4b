"""What the searches of hyper-parameters cost and found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.content import Content, Search
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.site.page import Page
from iadd.leaderboard.text import per_class

NAV = "Searches"
COLUMNS = (
    Column("Method", "head"),
    Column("Data set", "word"),
    Column("Images a class"),
    Column("Trials"),
    Column("Ran to the end"),
    Column("Failed"),
    Column("Iterations"),
    Column("Time"),
    Column("Default, validation %"),
    Column("Winner, validation %"),
)


def pages(content: Content) -> Iterator[Page]:
    """One page, where anything was searched for."""
    if not content.searches:
        return
    by_search = dict(iter(content.trials.groupby(["dataset", "method", "ipc"])))
    lines = [_line(s, by_search[s]) for s in sorted(content.searches) if s in by_search]
    note = "accuracy on validation data, balanced where classes are unequal; "
    note += "one budget for all methods" + f": {content.about.budget}" * bool(content.about.budget)
    table = Table("Searches on validation data", COLUMNS, lines, note, "searches")
    pictures = [
        (f"{s.method}, {s.dataset}, {per_class(s.ipc)}", places.search_picture(s))
        for s in sorted(content.searches)
    ]
    context = {"searches": table, "pictures": pictures}
    yield Page("searches.html", NAV, NAV, "searches.html", context)


def _line(search: Search, rows: pd.DataFrame) -> Line:
    """The default is trial 0, the first tried.

    Of the finalists, whose further distillations have seeds from 1 on, only those that could be
    distilled every time may win; one that diverged counts with what it reached.
    """
    searched = rows[rows["seed"] == 0].groupby("trial").last()
    again = rows[rows["seed"] > 0]
    every_time = again["status"].ne("failed").groupby(again["config"]).all()
    judged = again.groupby("config")["validation_accuracy"].mean()[every_time]
    default = rows.sort_values(["trial", "seed", "rung"])["config"].head(1)
    seconds = float(searched["seconds"].sum())
    return Line(
        [
            Cell(search.method, places.method(search.method)),
            search.dataset,
            str(search.ipc),
            str(len(searched)),
            str(int((searched["status"] == "ok").sum())),
            str(int((searched["status"] == "failed").sum())),
            str(int(searched["iteration"].sum())),
            Cell(html.duration(seconds), order=seconds),
            html.percent(_known(judged[judged.index.isin(default)].mean())),
            html.percent(_known(judged.max())),
        ]
    )


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
