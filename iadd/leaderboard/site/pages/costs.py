"""What accuracy costs: plots of accuracy over seconds, memory and bytes, with the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from iadd.leaderboard.cells import WHOLE, Cell
from iadd.leaderboard.measures import WORDS, ranking_measure, value
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.savings import stored_bytes
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.chart import Axis, Dot, scatter
from iadd.leaderboard.site.content import Content
from iadd.leaderboard.site.html import Column, Line, Table
from iadd.leaderboard.site.page import Page
from iadd.leaderboard.site.ranked import heading, method_cell
from iadd.leaderboard.text import MARK, per_class, place_words

NAV = "Costs"
LEAD = """Each point is a method at one number of images a class, judged by the network and protocol
that come first in the tables. Filled points on the broken line are those that no cheaper method
reaches. Vertical lines are 95 % intervals. Where points crowd, some have no name. The time of the
experts, which methods share, is not in the seconds."""


class Cost(NamedTuple):
    """A kind of cost: what it is called, its axis, its unit there, how a table writes it."""

    name: str
    axis: str
    unit: float
    words: Callable[[float | None], str]


COSTS = (
    Cost("Distilling", "seconds of distilling a set", 1, html.duration),
    Cost("Time on cards", "seconds on cards, judging included", 1, html.duration),
    Cost("Peak memory", "peak memory of a job, MB", 1e6, html.size),
    Cost("Peak device memory", "peak memory of a card, MB", 1e6, html.size),
    Cost("Size", "size of a set, kB", 1e3, html.size),
)
Priced = tuple[LeaderboardRow, tuple[float | None, ...]]
"""A row and its costs, in the order of `COSTS`."""


def pages(content: Content) -> Iterator[Page]:
    """A page for each data set."""
    beside = places.by_dataset("costs", content.datasets)
    for dataset, path in beside:
        groups: dict[str, list[Priced]] = {}
        for cell in sorted(content.cells, key=lambda cell: (cell[4:], cell.ipc)):
            if _shown(content, cell, dataset):
                found = groups.setdefault(place_words(cell), [])
                rows = [row for row in content.cells[cell] if _counts(row)]
                found += [(row, _costs(row)) for row in rows]
        shown = [
            (place, list(_plots(rows)), _table(dataset, place, rows))
            for place, rows in groups.items()
            if rows
        ]
        context = {"groups": shown, "lead": LEAD}
        yield Page(path, f"Costs, {dataset}", NAV, "costs.html", context, beside)


def _shown(content: Content, cell: Cell, dataset: str) -> bool:
    place = cell.network_eval, cell.protocol
    return cell.dataset == dataset and place == content.places[dataset]


def _counts(row: LeaderboardRow) -> bool:
    judged = row.source != "published" and row.accuracy_mean is not None
    return judged and row.method != WHOLE


def _costs(row: LeaderboardRow) -> tuple[float | None, ...]:
    memory = row.host_peak_bytes, row.device_peak_bytes
    known = row.distill_seconds, row.gpu_seconds, *memory, stored_bytes(row)
    return tuple(value if value and value > 0 else None for value in known)


def _plots(rows: Sequence[Priced]) -> Iterator[tuple[str, Markup]]:
    """A plot of each kind of cost for each ipc; one for all where it tells only these apart."""
    ipcs = sorted({row.ipc for row, _ in rows})
    words = WORDS[ranking_measure(row for row, _ in rows)].capitalize()
    for place, cost in enumerate(COSTS):
        found = [(row, costs[place]) for row, costs in rows]
        known = [(row, value / cost.unit) for row, value in found if value is not None]
        parts = [[(row, value) for row, value in known if row.ipc == ipc] for ipc in ipcs]
        title = f"{words} and {cost.name.lower()}"
        if any(map(_differ, parts)):
            for ipc, part in zip(ipcs, parts, strict=True):
                if _differ(part):
                    yield f"{title}, {per_class(ipc)}", _plot(cost, part)
        elif _differ(known):
            yield title, _plot(cost, known)


def _differ(known: Sequence[tuple[LeaderboardRow, float]]) -> bool:
    """Whether costs differ by more than a tenth."""
    values = [value for _, value in known]
    return len(values) > 1 and max(values) > 1.1 * min(values)


def _plot(cost: Cost, known: Sequence[tuple[LeaderboardRow, float]]) -> Markup:
    ipcs = sorted({row.ipc for row, _ in known})
    measure = ranking_measure(row for row, _ in known)
    dots = []
    for row, cost_of in known:
        mean, *ends = value(row, measure)
        low, high = (None if end is None else 100 * end for end in ends)
        rivals = [
            (v, value(r, measure).mean or 0) for r, v in known if r.ipc == row.ipc and r is not row
        ]
        front = not any(v <= cost_of and found > (mean or 0) for v, found in rivals)
        name = row.method + MARK * row.reconstruction
        dots.append(Dot(name, cost_of, 100 * (mean or 0), low, high, ipcs.index(row.ipc), front))
    reached = [end for dot in dots for end in (dot.low, dot.y, dot.high) if end is not None]
    return scatter(
        f"{WORDS[measure].capitalize()} over {cost.axis}; the numbers are in the table",
        Axis.over(cost.axis, [dot.x for dot in dots], log=True),
        Axis.over(f"test {WORDS[measure]}, %", reached, most=100.0),
        dots,
        [per_class(ipc) for ipc in ipcs],
    )


def _table(dataset: str, place: str, rows: Sequence[Priced]) -> Table:
    measure = ranking_measure(row for row, _ in rows)
    columns = [Column("Method", "head"), Column("Images a class"), Column(heading(measure))]
    kept = [k for k in range(len(COSTS)) if any(costs[k] for _, costs in rows)]
    columns += [Column(COSTS[k].name) for k in kept]
    lines = []
    for row, costs in rows:
        cells: list[Any] = [
            method_cell(row),
            str(row.ipc),
            html.percent(value(row, measure).mean, 2),
        ]
        cells += [html.Cell(COSTS[k].words(costs[k]), order=costs[k]) for k in kept]
        lines.append(Line(cells))
    note = "seconds are means over seeds, memory is the largest of its jobs"
    name = html.slug(f"costs-{dataset}-{place}".replace(" ", "-"))
    return Table(f"{dataset}, {place}", columns, lines, note, name)
