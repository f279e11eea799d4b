"""Where methods compete: networks in cells, and the cell of the networks nobody distilled on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from iadd.leaderboard.columns import Network
from iadd.leaderboard.rows import ComparisonRow, LeaderboardRow

WHOLE = "whole"  # all the real data: the ceiling of every cell, stored once with ipc = 0
RANDOM = "random"  # real images drawn at random: what distilling is measured against
UNSEEN = "unseen"
"""In place of a network: the mean of all networks but those distilled on, where there are two."""


class Cell(NamedTuple):
    """Where methods compete; those of two cells are never ranked together (`rows.CELL`)."""

    dataset: str
    ipc: int
    network_eval: str
    protocol: str
    label_regime: str
    tuned: bool


_PLACE = attrgetter(*Cell._fields)


def cell_of(row: Network | LeaderboardRow | ComparisonRow) -> Cell:
    """The cell that a row stands in."""
    return Cell._make(_PLACE(row))


def cells(networks: Iterable[Network]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Each cell and its networks by method, those that are compared with among them.

    `whole` stands in every cell of its data set, network and protocol. `random` has nothing to
    tune, so its default evaluations stand in a tuned cell too: without them a tuned cell would
    lack what its methods have to beat.
    """
    found: dict[Cell, dict[str, list[Network]]] = defaultdict(lambda: defaultdict(list))
    ceilings: dict[tuple[str, ...], list[Network]] = defaultdict(list)
    for row in networks:
        if row.method == WHOLE:
            ceilings[row.dataset, row.network_eval, row.protocol].append(row)
        else:
            found[cell_of(row)][row.method].append(row)
    inhabited = {(cell.dataset, cell.network_eval, cell.protocol) for cell in found}
    for dataset, network, protocol in ceilings.keys() - inhabited:
        found[Cell(dataset, 0, network, protocol, "hard", False)] = {}
    members: dict[Cell, dict[str, list[Network]]] = {}
    for cell in sorted(found):
        members[cell] = dict(found[cell])
        default = found.get(cell._replace(tuned=False), {})
        if cell.tuned and RANDOM in default:
            members[cell].setdefault(RANDOM, default[RANDOM])
        if ceiling := ceilings.get((cell.dataset, cell.network_eval, cell.protocol)):
            members[cell][WHOLE] = ceiling
    yield from members.items()
    yield from _unseen(members)


def _unseen(
    members: Mapping[Cell, Mapping[str, list[Network]]],
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """A cell of the networks that no method was distilled on, where there are two or more: how
    methods transfer. Those that were not judged on all of them are not in it, nor is a submission,
    of which nobody knows what it was distilled on."""
    groups: dict[Cell, dict[str, dict[str, list[Network]]]] = defaultdict(dict)
    for cell, methods in members.items():
        known = {m: rows for m, rows in methods.items() if rows[0].source != "submitted"}
        groups[cell._replace(network_eval=UNSEEN)][cell.network_eval] = known
    for cell, by_network in groups.items():
        competing = [rows[0] for ms in by_network.values() for m, rows in ms.items() if m != WHOLE]
        seen = {row.network_distill for row in competing}
        others = [methods for network, methods in by_network.items() if network not in seen]
        if len(others) > 1 and competing:
            common = set.intersection(*(set(methods) for methods in others))
            yield cell, {m: [row for methods in others for row in methods[m]] for m in common}
