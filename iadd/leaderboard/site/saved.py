"""What the sets of a cell save against the whole data, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.savings import BANDWIDTH, stored_bytes, time_words
from iadd.leaderboard.site import html
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.site.ranked import method_cell
from iadd.leaderboard.text import network_words


def saved_table(rows: Sequence[LeaderboardRow]) -> Table | None:
    """Storage, transmission and training time of a cell's sets; None where nothing is known."""
    known = [row for row in rows if row.source != "published" and row.bytes_share is not None]
    if not known:
        return None
    first = known[0]
    how = first.whole_train_source or "not measured"
    columns = (
        Column("Method", "head"),
        Column("Size"),
        Column("Of all the data, %", hint="pixels in the depth that they came in"),
        Column(f"Sent at {BANDWIDTH / 1e6:.0f} Mbit/s"),
        Column("Training", hint="of one network, its test included: measured"),
        Column(f"Training on all ({how})"),
    )
    lines = [
        Line([method_cell(row), *map(_cell, *_values(row))], "whole" if row.method == WHOLE else "")
        for row in known
    ]
    note = f"networks {network_words(first.network_eval)}, protocol {first.protocol}"
    return Table("What is saved", columns, lines, note)


def _values(row: LeaderboardRow) -> tuple[list[str], list[float | None]]:
    """The cells' words and what they are sorted by."""
    size = stored_bytes(row)
    times = row.transmission_seconds, row.train_seconds, row.whole_train_seconds
    sent, own, whole = (html.MISSING if time is None else time_words(time) for time in times)
    share = html.number(None if row.bytes_share is None else 100 * row.bytes_share)
    return [html.size(size), share, sent, own, whole], [size, row.bytes_share, *times]


def _cell(text: str, order: float | None) -> Cell:
    return Cell(text, order=order)
