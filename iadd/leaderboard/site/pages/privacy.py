"""What distilled sets give away of real images: nearest pairs, and an attack on membership."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from iadd.leaderboard.exposure import Exposure, Interval, PrivacyRow, summaries
from iadd.leaderboard.exposure_text import explained
from iadd.leaderboard.results import read_rows
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.content import Content, RunKey
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.site.page import Page
from iadd.leaderboard.text import per_class

NAV = "Privacy"
COLUMNS = (
    Column("Method", "head"),
    Column("Seeds"),
    Column("Copies, %", hint="Images that are training images"),
    Column("Near in pixels, %", hint="Nearer to a training image than 95 % of held-out images"),
    Column("Near in features, %", hint="The same in the features of a network"),
    Column("Data: AUC", hint="Who was in the data that were distilled; 0.5 finds nothing"),
    Column("Data: TPR, %", hint="True positives at 1 % false positives; 1 finds nothing"),
    Column("Chosen: AUC", hint="Whose image stands in the set as it is"),
    Column("Chosen: TPR, %"),
)
PAIRS = (
    Column("Pair", "head", hint="From left to right"),
    Column("Distance in pixels", hint="Root mean square over pixels in [0, 1]"),
    Column("Held-out as near, %", hint="Held-out images that lie as near to a training image"),
    Column("Distance in features"),
    Column("Held-out as near, % "),
)


def pages(content: Content) -> Iterator[Page]:
    """A page a data set whose sets were asked what they give away."""
    path = content.tables.get("privacy")
    rows = read_rows(path, PrivacyRow) if path else []
    found = {name: list(mine) for name, mine in groupby(rows, key=lambda row: row.dataset)}
    beside = places.by_dataset("privacy", list(found))
    for name, place in beside:
        mine = found[name]
        tables = [
            _table(list(lines), mine)
            for _, lines in groupby(summaries(mine), key=lambda line: line.ipc)
        ]
        context = {"tables": tables, "explained": explained(mine), "pairs": _pairs(content, mine)}
        yield Page(place, f"Privacy, {name}", NAV, "privacy.html", context, beside)


def _table(lines: Sequence[Exposure], rows: Sequence[PrivacyRow]) -> Table:
    first = lines[0]
    note = f"{rows[0].members} training and {rows[0].held_out} held-out images"
    body = [Line(_cells(line)) for line in lines]
    return Table(f"{first.dataset}, {per_class(first.ipc)}", COLUMNS, body, note)


def _cells(line: Exposure) -> list[Cell | str]:
    named = "tuned" * line.tuned or "reconstruction" * line.reconstruction
    shares = (line.copies, line.pixel_near, line.feature_near)
    return [
        Cell(line.method, places.method(line.method), named),
        str(line.seeds),
        *(html.percent(share) for share in shares),
        _interval(line.data_auc, 1, 3),
        _interval(line.data_tpr, 100, 1),
        _interval(line.chosen_auc, 1, 3),
        _interval(line.chosen_tpr, 100, 1),
    ]


def _interval(found: Interval | None, factor: float, digits: int) -> Cell:
    if found is None:
        return Cell()
    value, low, high = (f"{factor * part:.{digits}f}" for part in found)
    return Cell(value, note=f"{low}–{high}", order=found.value)


def _pairs(content: Content, rows: Sequence[PrivacyRow]) -> list[dict[str, Any]]:
    """The nearest pairs of each method's first seed that has a picture of them."""
    found: list[dict[str, Any]] = []
    for row in rows:
        key = RunKey(row.dataset, row.ipc, row.method, row.tuned, row.seed)
        if key in content.pairs and row.shown:
            title = f"{row.method}{', tuned' * row.tuned}, {per_class(row.ipc)}, seed {row.seed}"
            lines = [_pair(row, place, image) for place, image in enumerate(row.shown, 1)]
            pixels, features = _usual(row.pixel_usual), _usual(row.feature_usual)
            note = f"5 % of held-out images lie within {pixels} in pixels, {features} in features"
            table = Table(title, PAIRS, lines, note)
            found.append({"title": title, "picture": places.pairs(key), "table": table})
    return found


def _usual(found: Sequence[float]) -> str:
    """A quantile with its interval."""
    value, low, high = found
    return f"{value:.3g} ({max(low, 0):.3g}–{high:.3g})"


def _pair(row: PrivacyRow, place: int, image: int) -> Line:
    return Line(
        [
            f"pair {place}",
            f"{row.pixel_distance[image]:.3g}",
            html.percent(row.pixel_share[image]),
            f"{row.feature_distance[image]:.3g}",
            html.percent(row.feature_share[image]),
        ]
    )
