"""Paired differences of methods as matrices: a list of data sets and ipcs, and a page for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from iadd.leaderboard.cells import Cell
from iadd.leaderboard.measures import ranking_measure
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.content import Content, Difference
from iadd.leaderboard.site.html import Column, Line, Table
from iadd.leaderboard.site.page import Navigation, Page
from iadd.leaderboard.text import network_words, per_class, place_words, protocol_words

NAV = "Differences"
MOST_PAIRS = 12_000
"""Differences in a page: they keep it below 2 MB."""
LEAD = """How much better the method of a row is than that of a column, in points, seed by seed.
Each table says of which measure; the one that ranks comes first. What is marked better or worse is
so at 5 %, corrected for all pairs of its table. Beside the others stands how many more seeds would
settle it if mean and spread stay; where nothing stands, no number of seeds would on this test
set."""


def pages(content: Content) -> Iterator[Page]:
    """The list, then the matrices of each data set and ipc, where any methods are compared."""
    cells = sorted(content.differences, key=lambda cell: (*_what(cell), _rank(content, cell)))
    groups = {key: list(found) for key, found in groupby(cells, key=_what)}
    if not groups:
        return
    lines = []
    for (dataset, ipc), members in groups.items():
        rows = next(found for _, found in _by_measure(content, members[0]))
        told = sum(row.significant for row in rows) // 2
        where = html.Cell(f"{dataset}, {per_class(ipc)}", places.differences(dataset, ipc))
        words = f"{_words(members[0])}: {told} of {len(rows) // 2}"
        lines.append(Line([where, words, str(len(members))]))
    columns = (
        Column("Data set", "head"),
        Column("Pairs told apart in the first table", "text"),
        Column("Tables"),
    )
    table = Table("Paired differences of methods", columns, lines)
    yield Page("differences.html", NAV, NAV, context={"tables": [table], "lead": LEAD})
    for (dataset, ipc), members in groups.items():
        alike = [(per_class(k), places.differences(d, k)) for d, k in groups if d == dataset]
        yield _page(content, (dataset, ipc), members, alike)


def _what(cell: Cell) -> tuple[str, int]:
    return cell.dataset, cell.ipc


def _rank(content: Content, cell: Cell) -> tuple[bool, bool, Cell]:
    """The place that its data set shows first comes first, default settings before tuned ones."""
    main = (cell.network_eval, cell.protocol) == content.places[cell.dataset]
    return not main, cell.tuned, cell


def _by_measure(content: Content, cell: Cell) -> list[tuple[str, list[Difference]]]:
    """A cell's differences by measure, the one that ranks its methods first."""
    groups = groupby(content.differences[cell], key=lambda row: row.score)
    found = [(score, list(rows)) for score, rows in groups]
    first = ranking_measure(content.cells[cell])
    return sorted(found, key=lambda group: group[0] != first)


def _words(cell: Cell) -> str:
    judge, protocol = network_words(cell.network_eval), protocol_words(cell.protocol)
    return f"{place_words(cell)}, evaluated by {judge}, protocol {protocol}"


def _page(
    content: Content, what: tuple[str, int], cells: Sequence[Cell], beside: Navigation
) -> Page:
    tables: list[Table] = []
    pairs = left_out = 0
    for cell in cells:
        for score, rows in _by_measure(content, cell):
            pairs += len(rows)
            if pairs > MOST_PAIRS:
                left_out += 1
            else:
                order = [row.method for row in content.cells[cell]]
                tables.append(_matrix(cell, score.replace("_", " "), rows, order))
    context = {"tables": tables, "left_out": left_out, "lead": LEAD}
    title = f"Differences, {what[0]}, {per_class(what[1])}"
    return Page(places.differences(*what), title, NAV, "differences.html", context, beside)


def _matrix(cell: Cell, score: str, rows: Sequence[Difference], order: Sequence[str]) -> Table:
    """Methods by methods, in the order of their ranks."""
    found = {(row.method, row.other): row for row in rows}
    compared = {row.method for row in rows}
    methods = [name for name in dict.fromkeys(order) if name in compared]
    lines = [Line([a, *(_cell(found.get((a, b))) for b in methods)]) for a in methods]
    return Table(
        f"{cell.dataset}, {per_class(cell.ipc)}, {score}",
        [Column("Better by, points", "head"), *map(Column, methods)],
        lines,
        _words(cell),
        places.table(score.replace(" ", "-"), cell),
    )


def _cell(row: Difference | None) -> html.Cell:
    if row is None:
        return html.Cell("")
    difference = round(100 * row.difference, 2) + 0.0  # no minus before zero
    text = f"{difference:+.2f}"
    if row.significant:
        better = row.difference > 0
        words, tone = ("better", "good") if better else ("worse", "bad")
        return html.Cell(text, note=words, order=difference, tone=tone)  # type: ignore[arg-type]
    more = row.more_seeds
    note = "" if more is None else f"{more} more seed{'s' * (more != 1)}"
    return html.Cell(text, note=note, order=difference)
