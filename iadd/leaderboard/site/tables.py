"""What the page shows of one data set: its tables, plots and pictures, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from iadd.leaderboard.ranking import WHOLE
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.site.plot import svg
from iadd.leaderboard.text import cell_of, imbalanced, per_class, place_words, rank_range, remark

Record = dict[str, Any]
Pictures = Mapping[tuple[str, str, int], Record]
LAST = 10**6  # place of a method that the main table does not have


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
    main = _main_place(rows, teachers)
    tables = [_table(list(members)) for _, members in groupby(rows, key=cell_of)]
    shown = [table for table in tables if table["place"] == main]
    first = [table for table in shown if not table["tuned"]] or shown
    order = {row["method"]: place for table in first for place, row in enumerate(table["rows"])}
    crosses = _crosses(rows, main)
    panels = [
        {"title": f"{name}, {cross['images']}, {cross['group']}", "main": main[0], **cross}
        for cross in crosses
        if cross["protocol"] == main[1]
    ]
    grids = _grids({key[1:]: p for key, p in images.items() if key[0] == name}, order)
    return {
        "name": name,
        "teachers": teachers,
        "reconstructions": {row.method for row in rows if row.reconstruction},
        "first": first,
        "shown": shown,
        "others": [table for table in tables if table["place"] != main],
        "crosses": [cross for cross in crosses if len(cross["networks"]) > 1],
        "panels": panels,
        "plots": [(panel["title"], svg(panel)) for panel in panels],
        "pictures": grids,
        "runs": sorted(runs, key=lambda run: (run["ipc"], order.get(run["method"], LAST))),
    }


def _main_place(rows: Sequence[LeaderboardRow], teachers: Sequence[str]) -> tuple[str, str]:
    """(network_eval, protocol) to show first: what was distilled on, and with augmentation."""
    places = [(row.network_eval, row.protocol) for row in rows]

    def later(place: tuple[str, str]) -> tuple[Any, ...]:
        network, protocol = place
        return network not in teachers, "-noaug" in protocol, -places.count(place), place

    return min(places, key=later)


def _grids(
    pictures: Mapping[tuple[str, int], Record], order: Mapping[str, int]
) -> list[tuple[int, list[tuple[str, Record]]]]:
    """(ipc, [(method, picture), ...]), the methods in the ranking's order."""
    shown = sorted(pictures, key=lambda key: (key[1], order.get(key[0], LAST), key[0]))
    return [
        (ipc, [(key[0], pictures[key]) for key in keys])
        for ipc, keys in groupby(shown, key=lambda key: key[1])
    ]


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
    rows = [
        vars(row) | {"rank": rank_range(row), "remark": remark(row), "whole": row.method == WHOLE}
        for row in members
    ]
    return {
        "dataset": first.dataset,
        "images": per_class(first.ipc),
        "place": (first.network_eval, first.protocol),
        "group": place_words(first),
        "tuned": first.tuned,
        "balanced": imbalanced(members),
        "scale": (low, max(high, low + 5)),
        "rows": rows,
        "ranked": sum(row.rank_low is not None for row in members),
        "best": [row for row in rows if row["rank_low"] == 1],
        "ceiling": next((row.accuracy_mean for row in members if row.method == WHOLE), None),
    }


def _crosses(rows: Sequence[LeaderboardRow], main: tuple[str, str]) -> list[Record]:
    """Tables of methods by evaluation networks, those of the main protocol first."""

    def group(row: LeaderboardRow) -> tuple[Any, ...]:
        protocol = (row.protocol != main[1], row.protocol)
        return *protocol, row.label_regime, row.tuned, row.ipc

    return [
        _cross(list(members), main[0]) for _, members in groupby(sorted(rows, key=group), key=group)
    ]


def _cross(members: Sequence[LeaderboardRow], main: str) -> Record:
    """Methods by evaluation networks, the network that was distilled on first; None: not there."""
    networks = sorted({row.network_eval for row in members}, key=lambda n: (n != main, n))
    methods = dict.fromkeys(
        row.method for n in networks for row in members if row.network_eval == n
    )
    found = {
        (row.method, row.network_eval): {
            "mean": row.accuracy_mean,
            "low": row.accuracy_low,
            "high": row.accuracy_high,
        }
        for row in members
    }
    first = members[0]
    return {
        "protocol": first.protocol,
        "group": place_words(first),
        "images": per_class(first.ipc),
        "networks": networks,
        "reconstructions": {row.method for row in members if row.reconstruction},
        "rows": [(m, [found.get((m, network)) for network in networks]) for m in methods],
    }
