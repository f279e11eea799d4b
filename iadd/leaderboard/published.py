"""Published results, as data with their sources.

`published.csv` holds one value a method, network, protocol and label regime: the method's own paper
where it could be read, else the table named in `source`. `protocols` are ours that come nearest to
how the value was made; what still differs in the set-up is told by `iadd reproduce`. Values whose
label regime or protocol is not known to us, and those of networks that are not here, are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

from iadd.leaderboard.cells import WHOLE, Cell, cell_of
from iadd.leaderboard.rows import LabelRegime, LeaderboardRow

SIDES = {"cifar10": 32, "cifar100": 32, "tinyimagenet": 64, "pathmnist": 32, "covid19": 112}
"""Pixels a side of the images that values are of: for the latter two, arXiv 2509.24177."""


@dataclass(frozen=True)
class Published:
    """One published accuracy (a fraction) and its standard deviation, where one was given."""

    dataset: str
    ipc: int
    method: str
    network_distill: str
    network_eval: str
    protocols: tuple[str, ...]
    label_regime: LabelRegime
    accuracy: float
    std: float | None
    source: str


@cache
def published_results() -> tuple[Published, ...]:
    """All that `published.csv` holds."""
    path = Path(__file__).with_name("published.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(_read(row) for row in csv.DictReader(file))


def _read(row: Mapping[str, str]) -> Published:
    (regime,) = (known for known in get_args(LabelRegime) if known == row["label_regime"])
    return Published(
        row["dataset"],
        int(row["ipc"]),
        row["method"],
        row["network_distill"],
        row["network_eval"],
        tuple(row["protocols"].split()),
        regime,
        float(row["accuracy"]),
        float(row["std"]) if row["std"] else None,
        row["source"],
    )


def same_side(dataset: str, side: int) -> bool:
    """Whether a data set's published values are of images of this side."""
    return SIDES.get(dataset, side) == side


def whole_accuracy(dataset: str, network: str) -> float | None:
    """What a network trained on all of a data set reaches, as published; None: not known."""
    for row in published_results():
        if (row.dataset, row.method, row.network_eval) == (dataset, WHOLE, network):
            return row.accuracy
    return None


def counterpart(row: LeaderboardRow, dataset: str) -> Published | None:
    """The published value nearest to a measured row: of its method, data, ipc, protocol and label
    regime, on networks of the same architecture, in the same width and depth if there is one."""

    def pair(p: Published | LeaderboardRow) -> tuple[str, ...]:
        networks = (p.network_eval,) if row.method == WHOLE else (p.network_eval, p.network_distill)
        return tuple(networks)

    def architectures(p: Published | LeaderboardRow) -> list[str]:
        return [network.partition("-")[0] for network in pair(p)]

    cell = cell_of(row)
    near = [
        p
        for p in published_results()
        if p.method == row.method
        and stands_in(p, cell._replace(network_eval=p.network_eval), dataset)
        and architectures(p) == architectures(row)
    ]
    return min(near, key=lambda p: pair(p) != pair(row), default=None)


def stands_in(p: Published, cell: Cell, dataset: str | None) -> bool:
    """Whether a published value belongs beside the measured ones of a cell of that data set."""
    place = (p.dataset, p.network_eval) == (dataset, cell.network_eval) and not cell.tuned
    same = (p.ipc, p.label_regime) == (cell.ipc, cell.label_regime)
    return place and cell.protocol in p.protocols and (same or p.method == WHOLE)
