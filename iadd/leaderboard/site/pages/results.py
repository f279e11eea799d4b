"""Every row of the leaderboard in one table, to sort, filter, link to and download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.measures import imbalanced
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.content import Content, RunKey
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.site.page import Page, paged
from iadd.leaderboard.text import MARK, network_words, rank_range

NAV = "All results"
MOST_LINKED = 5000
"""Rows up to which each leads to its board and its first run; of more, to its method alone."""
LEAD = """Where scripts run, a click on a heading sorts, and the lists choose which rows are shown;
the page's address keeps the choice, so that a copied link shows the same rows. Ranks compare the
methods of one data set, number of images, network, protocol, kind of labels and kind of settings,
and no others."""
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
    Column("Accuracy, %", end="mean"),
    Column("Low", hint="lower end of the 95 % interval", end="low"),
    Column("High", hint="upper end of the 95 % interval", end="high"),
    Column("Balanced, %", hint="balanced accuracy, by which these rows are ranked"),
    Column("Published, %"),
    Column("Agreement", "word", filter=True),
    Column("Seeds"),
)


def pages(content: Content) -> Iterator[Page]:
    """One page, or where there are very many rows several, in the order of the table."""
    runs = _first_runs(content) if len(content.board) <= MOST_LINKED else None
    lines = [_line(row, runs) for row in content.board]
    note = f"{len(lines)} rows"
    if any(imbalanced([row]) for row in content.board):
        note += " · ranked by balanced accuracy where it stands"
    table = Table(NAV, COLUMNS, lines, note, "results", grid=True)
    yield from paged(table, NAV, NAV, LEAD)


Runs = Mapping[tuple[str, int, str, bool], RunKey]
"""The first run of each data set, ipc, method, tuned or not."""


def _first_runs(content: Content) -> Runs:
    found: dict[tuple[str, int, str, bool], RunKey] = {}
    for key in sorted(content.runs):
        found.setdefault(key[:4], key)
        if key.method == WHOLE:  # one run stands at every ipc
            for ipc in content.ipcs(key.dataset):
                found.setdefault((key.dataset, ipc, *key[2:4]), key)
    return found


def _line(row: LeaderboardRow, runs: Runs | None) -> Line:
    """The method leads to its page; of few rows the rank to its board, seeds to the first run."""
    published = row.source == "published"
    method = "" if published else places.method(row.method)
    rank: Cell | str = html.MISSING if row.rank_low is None else rank_range(row)
    seeds: Cell | str = html.MISSING if row.n_seeds is None else str(row.n_seeds)
    if runs is not None:
        rank = Cell(rank_range(row), places.board(row.dataset, row.ipc)) if row.rank_low else rank
        run = runs.get((row.dataset, row.ipc, row.method, row.tuned))
        if run and not published:
            seeds = Cell(str(seeds), places.run(run))
    cells: list[Cell | str] = [
        Cell(row.method + MARK * row.reconstruction, method),
        rank,
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
        html.percent(row.balanced_accuracy_mean, 2) if imbalanced([row]) else html.MISSING,
        html.percent(row.published),
        row.agrees or html.MISSING,
        seeds,
    ]
    return Line(cells, "published" if published else "")
