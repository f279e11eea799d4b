"""How sets distilled on one network do on others: a heat map a data set, ipc and protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from iadd.leaderboard.cells import UNSEEN, WHOLE, Cell, cell_of
from iadd.leaderboard.measures import WORDS, Measure, ranking_measure, value
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.content import Content
from iadd.leaderboard.site.html import Column, Line, Table
from iadd.leaderboard.site.page import Page
from iadd.leaderboard.site.ranked import method_cell
from iadd.leaderboard.text import near_chance, per_class, place_words, protocol_words, rank_range

NAV = "Transfer"


def pages(content: Content) -> Iterator[Page]:
    """A page a data set that several networks judged."""
    found = {name: tables for name in content.datasets if (tables := _tables(content, name))}
    beside = places.by_dataset("transfer", list(found))
    for name, path in beside:
        context = {
            "tables": found[name],
            "teachers": [known for known in content.teachers(name) if known != "unknown"],
            "near_chance": list(near_chance([r for r in content.board if r.dataset == name])),
        }
        yield Page(path, f"Transfer, {name}", NAV, "transfer.html", context, beside)


def _tables(content: Content, dataset: str) -> list[Table]:
    """Methods by evaluation networks; the protocol shown first comes first."""
    network, protocol = content.places[dataset]
    groups: dict[tuple[bool, str, str, bool, int], dict[str, list[LeaderboardRow]]] = defaultdict(
        dict
    )
    for cell, rows in content.cells.items():
        if cell.dataset == dataset:
            key = cell.protocol != protocol, cell.protocol, *_rest(cell)
            groups[key][cell.network_eval] = [r for r in rows if r.source != "published"]
    several = [groups[key] for key in sorted(groups) if len(groups[key].keys() - {UNSEEN}) > 1]
    return [_table(by_network, network) for by_network in several]


def _rest(cell: Cell) -> tuple[str, bool, int]:
    return cell.label_regime, cell.tuned, cell.ipc


def _table(by_network: dict[str, list[LeaderboardRow]], main: str) -> Table:
    """The network that was distilled on first; shades go from a column's lowest to its highest."""
    networks = sorted(by_network, key=lambda name: (name == UNSEEN, name != main, name))
    found = {(r.method, name): r for name in networks for r in by_network[name]}
    methods = list(dict.fromkeys(r.method for name in networks for r in by_network[name]))
    methods.sort(key=lambda method: method == WHOLE)
    first = by_network[networks[0]][0]
    measure = ranking_measure(row for rows in by_network.values() for row in rows)
    ends = {name: _ends(by_network[name], measure) for name in networks}
    heads = ["mean of the others" if name == UNSEEN else name for name in networks]
    columns = [Column("Method", "head"), *map(Column, heads)]
    if UNSEEN in by_network:
        columns.append(Column("Rank by that mean", "word"))
    lines = []
    for method in methods:
        rows = [found.get((method, name)) for name in networks]
        cells = [
            _shaded(row, measure, ends[name]) for row, name in zip(rows, networks, strict=True)
        ]
        named = method_cell(next(row for row in rows if row))
        unseen = found.get((method, UNSEEN))
        ranks = [rank_range(unseen).replace("-", "–") if unseen else html.MISSING]
        ranks = ranks if UNSEEN in by_network else []
        lines.append(Line([named, *cells, *ranks], "whole" if method == WHOLE else ""))
    note = f"{place_words(first)} · protocol {protocol_words(first.protocol)} · {WORDS[measure]}, %"
    name = places.table("transfer", cell_of(first)._replace(network_eval="all"))
    return Table(f"{first.dataset}, {per_class(first.ipc)}", columns, lines, note, name)


def _ends(rows: Sequence[LeaderboardRow], measure: Measure) -> tuple[float, float]:
    """The lowest and the highest mean of the methods; the ceiling does not count."""
    found = [value(row, measure).mean for row in rows if row.method != WHOLE]
    means = [mean for mean in found if mean is not None]
    return (min(means), max(means)) if means else (0.0, 1.0)


def _shaded(row: LeaderboardRow | None, measure: Measure, ends: tuple[float, float]) -> html.Cell:
    if row is None or (found := value(row, measure)).mean is None:
        return html.Cell()
    low, high = ends
    shade = (found.mean - low) / max(high - low, 1e-9)
    return html.Cell(
        html.percent(found.mean),
        note=html.half_width(found.low, found.high),
        order=found.mean,
        shade=None if row.method == WHOLE else 0.85 * shade,
    )
