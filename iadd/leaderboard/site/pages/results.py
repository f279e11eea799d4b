"""Every row of the leaderboard in one table, to sort, filter, link to and download."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.site import html
from iadd.leaderboard.site.content import Content
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.site.page import Page, paged
from iadd.leaderboard.text import network_words, rank_range

NAV = "All results"
MOST_ROWS = 10_000
"""Rows in a page: they keep it below 2 MB."""
LEAD = """Where scripts run, headings sort and lists choose what is seen; the address keeps it, to
be sent to others. Ranks compare the methods of one data set, number of images, network,
protocol, kind of labels and kind of settings, and no others."""
COLUMNS = (
    Column("Method", "head", filter=True),
    Column("Rank"),
    Column("Data set", "word", filter=True),
    Column("Images a class", filter=True),
    Column("Network", "word", filter=True),
    Column("Protocol", "word", filter=True),
    Column("Labels", "word", filter=True),
    Column("Settings", "word", filter=True),
    Column("Status", "word", filter=True),
    Column("Accuracy, %"),
    Column("Low"),
    Column("High"),
    Column("Published, %"),
    Column("Agreement", "word", filter=True),
    Column("Seeds"),
)


def pages(content: Content) -> Iterator[Page]:
    """One page, or where there are very many rows several, in the order of the table."""
    parts = paged(len(content.board), MOST_ROWS, "results")
    beside = [(f"Part {k}", path) for k, (_, path) in enumerate(parts, 1)]
    for part, path in parts:
        tables = [_table(content.board[part])]
        yield Page(path, NAV, NAV, context={"tables": tables, "lead": LEAD}, beside=beside)


def _table(rows: Sequence[LeaderboardRow]) -> Table:
    lines = [Line(_cells(row), "published" if row.source == "published" else "") for row in rows]
    return Table("All results", COLUMNS, lines, f"{len(rows)} rows", "results", grid=True)


def _cells(row: LeaderboardRow) -> list[Cell | str]:
    return [
        row.method + "*" * row.reconstruction,
        html.MISSING if row.rank_low is None else rank_range(row),
        row.dataset,
        str(row.ipc),
        network_words(row.network_eval),
        row.protocol,
        row.label_regime,
        "tuned" if row.tuned else "default",
        row.source,
        html.percent(row.accuracy_mean, 2),
        html.percent(row.accuracy_low),
        html.percent(row.accuracy_high),
        html.percent(row.published),
        row.agrees or html.MISSING,
        html.MISSING if row.n_seeds is None else str(row.n_seeds),
    ]
