"""What the page shows of one data set: its tables, plots and pictures, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from iadd.leaderboard.cells import UNSEEN, WHOLE, cell_of
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.site.matrices import heat_map
from iadd.leaderboard.site.plot import svg
from iadd.leaderboard.text import MARK, imbalanced, per_class, place_words

Record = dict[str, Any]
Pictures = Mapping[tuple[str, str, int], Record]


def describe_dataset(
    name: str,
    rows: Sequence[LeaderboardRow],
    teachers: Sequence[str],
    runs: list[Record],
    images: Pictures,
) -> Record:
    """All that the template needs of one data set.

    The tables of the network that was distilled on come first, default settings before tuned ones,
    each label regime in a table of its own.
    """
    main = main_place(rows, teachers)
    tables = [_table(list(members)) for _, members in groupby(rows, key=cell_of)]
    shown = [table for table in tables if table["place"] == main]
    first = [table for table in shown if not table["first"].tuned] or shown
    order = {row.method: place for table in first for place, row in enumerate(table["rows"])}

    def ranking(record: Record) -> tuple[Any, ...]:
        return record["ipc"], order.get(record["method"], len(order)), record["method"]

    pictures = [
        {"method": method, "ipc": ipc, **picture}
        for (dataset, method, ipc), picture in images.items()
        if dataset == name
    ]
    crosses = _crosses(rows, main)
    panels = [cross for cross in crosses if cross["first"].protocol == main[1]]
    return {
        "name": name,
        "teachers": teachers,
        "soft": {row.method for row in rows if row.label_regime != "hard" and row.method != WHOLE},
        "reconstructions": {row.method for row in rows if row.reconstruction},
        "first": first,
        "shown": shown,
        "others": [table for table in tables if table["place"] != main],
        "crosses": [cross | {"heat": _heat(cross)} for cross in crosses if cross["networks"][1:]],
        "panels": panels,
        "plots": [(panel["title"], svg(panel)) for panel in panels],
        "pictures": sorted(pictures, key=ranking),
        "runs": sorted(runs, key=ranking),
    }


def main_place(rows: Sequence[LeaderboardRow], teachers: Sequence[str]) -> tuple[str, str]:
    """(network_eval, protocol) to show first: what was distilled on, and with augmentation."""
    places = [(row.network_eval, row.protocol) for row in rows]

    def later(place: tuple[str, str]) -> tuple[Any, ...]:
        network, protocol = place
        behind = any(word in protocol for word in ("-noaug", "best-on-test"))
        return network not in teachers, behind, -places.count(place), place

    return min(places, key=later)


def _table(members: Sequence[LeaderboardRow]) -> Record:
    """One cell: its rows with a common scale (percent) for the drawn intervals."""
    first = members[0]
    ends = [
        end
        for row in members
        for end in (row.accuracy_low, row.accuracy_mean, row.accuracy_high)
        if end is not None
    ] or [0.0, 1.0]
    low, high = 5 * (min(ends) * 20 // 1), 5 * -(-max(ends) * 20 // 1)  # whole steps of 5 %
    return {
        "first": first,
        "place": (first.network_eval, first.protocol),
        "balanced": imbalanced(members),
        "positive": next((row.positive for row in members if row.positive), None),
        "scale": (low, max(high, low + 5)),
        "rows": members,
    }


def _crosses(rows: Sequence[LeaderboardRow], main: tuple[str, str]) -> list[Record]:
    """Tables of measured methods by evaluation networks, those of the main protocol first.

    The network that was distilled on comes first; None: the method is not there. `unseen`: the
    methods' rows over the networks that were not distilled on; `published`: their published rows on
    the first network.
    """

    def group(row: LeaderboardRow) -> tuple[Any, ...]:
        protocol = (row.protocol != main[1], row.protocol)
        return *protocol, row.label_regime, row.tuned, row.ipc, row.network_eval != main[0]

    crosses = []
    for _, grouped in groupby(sorted(rows, key=group), key=lambda row: group(row)[:-1]):
        everything = list(grouped)
        members = [row for row in everything if row.source != "published"]
        first = members[0]
        networks = list(dict.fromkeys(row.network_eval for row in members))
        networks = [network for network in networks if network != UNSEEN]
        found = {(row.method, row.network_eval): row for row in members}
        methods = dict.fromkeys(row.method for row in members)
        published = (row for row in everything if row.source == "published")
        title = f"{first.dataset}, {per_class(first.ipc)}, {place_words(first)}"
        cells = [(m, [found.get((m, network)) for network in networks]) for m in methods]
        crosses.append(
            {
                **{"first": first, "title": title, "main": main[0], "networks": networks},
                "rows": cells,
                "unseen": {m: found[m, UNSEEN] for m in methods if (m, UNSEEN) in found},
                "published": {r.method: r for r in published if r.network_eval == networks[0]},
            }
        )
    return crosses


def _heat(cross: Record) -> Record:
    """The picture of a table of methods by evaluation networks."""
    columns = [*cross["networks"], *(["mean of others"] if cross["unseen"] else [])]
    values = [
        [cell.accuracy_mean if cell else None for cell in (*cells, cross["unseen"].get(method))]
        for method, cells in cross["rows"]
    ]
    names = (next(cell for cell in cells if cell) for _, cells in cross["rows"])
    marked = [row.method + MARK * row.reconstruction for row in names]
    return heat_map(marked, columns, np.array(values, dtype=np.float64)[:, : len(columns)])
