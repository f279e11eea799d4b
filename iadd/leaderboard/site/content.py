"""What the pages are made from: the tables of a benchmark, read once, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from iadd.leaderboard.cells import WHOLE, Cell, cell_of
from iadd.leaderboard.results import read_arrow, read_metadata, read_rows, read_table
from iadd.leaderboard.rows import (
    COMPARISONS,
    EVALUATIONS,
    TRIALS,
    ComparisonRow,
    LeaderboardRow,
)

LISTS = ("confusion", "recall", "specificity", "auroc")
"""Columns of evaluations that grow with the classes: read by the page that shows them, alone."""


class RunKey(NamedTuple):
    """One distillation."""

    dataset: str
    ipc: int
    method: str
    tuned: bool
    seed: int


class Search(NamedTuple):
    """One search of hyper-parameters."""

    dataset: str
    method: str
    ipc: int


class Difference(NamedTuple):
    """What pages show of a `ComparisonRow`."""

    score: str
    method: str
    other: str
    difference: float
    significant: bool
    more_seeds: int | None


@dataclass(frozen=True)
class About:
    """What the leaderboard's table tells of its benchmark beside its rows (its footer)."""

    title: str = "benchmark"
    budget: str = ""
    """Of each search, in words."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of each data set's classes."""
    data: Mapping[str, str] = field(default_factory=dict)
    """What each data set holds, in a sentence."""
    experts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Lines on each data set's experts."""
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Lines on each data set's test part."""
    methods: Mapping[str, str] = field(default_factory=dict)
    """The program's method behind each name of the tables, where there is one."""
    controls: Sequence[Sequence[str]] = ()
    """Entries that are held against another one, with that: (entry, control)."""


@dataclass(frozen=True)
class Content:
    """The tables, read, and where those lie that are read a part at a time."""

    tables: Mapping[str, Path]
    pictures: Mapping[RunKey, Path]
    searches: Mapping[Search, Path]
    pairs: Mapping[RunKey, Path]
    about: About
    board: Sequence[LeaderboardRow]
    networks: pd.DataFrame
    """Evaluations without the columns of `LISTS`."""

    @classmethod
    def read(
        cls,
        tables: Mapping[str, Path],
        pictures: Mapping[RunKey, Path],
        searches: Mapping[Search, Path],
        pairs: Mapping[RunKey, Path],
    ) -> Content:
        """Raises ValueError naming the file that is missing, of the wrong kind, or empty."""
        board = read_rows(tables["leaderboard"], LeaderboardRow)
        if not board:
            raise ValueError(f"{tables['leaderboard']}: has no rows, so there is nothing to show")
        about = About(**read_metadata(tables["leaderboard"]).get("about", {}))
        networks = read_table(tables["evaluations"], EVALUATIONS, without=LISTS)
        return cls(tables, pictures, searches, pairs, about, board, networks)

    @cached_property
    def datasets(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(row.dataset for row in self.board))

    @cached_property
    def cells(self) -> dict[Cell, list[LeaderboardRow]]:
        """Each cell's rows, best first."""
        return {cell: list(rows) for cell, rows in groupby(self.board, key=cell_of)}

    @cached_property
    def methods(self) -> list[str]:
        """All that were measured or submitted, by name."""
        return sorted({row.method for row in self.board if row.source != "published"})

    @cached_property
    def differences(self) -> dict[Cell, list[Difference]]:
        """Of all pairs of each cell, both ways round."""
        table = read_arrow(self.tables["comparisons"], COMPARISONS)
        found: dict[Cell, list[Difference]] = {}
        cells, rows = (
            zip(*(table[name].to_pylist() for name in kind._fields), strict=True)
            for kind in (Cell, Difference)
        )
        for cell, row in zip(cells, map(Difference._make, rows), strict=True):
            found.setdefault(Cell._make(cell), []).append(row)
        return found

    @cached_property
    def comparisons(self) -> dict[Cell, list[ComparisonRow]]:
        """Differences of all pairs of each cell."""
        rows = read_rows(self.tables["comparisons"], ComparisonRow)
        return {cell: list(found) for cell, found in groupby(rows, key=cell_of)}

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Of all searches."""
        return read_table(self.tables["trials"], TRIALS)

    @cached_property
    def runs(self) -> dict[RunKey, dict[str, Any]]:
        """The first evaluation of each run: what all its evaluations share."""
        first = self.networks.drop_duplicates(list(RunKey._fields)).to_dict("records")
        rows = [{str(name): value for name, value in row.items()} for row in first]
        return {RunKey(*(row[name] for name in RunKey._fields)): row for row in rows}

    def ipcs(self, dataset: str) -> list[int]:
        """Images a class of a data set's tables."""
        return sorted({row.ipc for row in self.board if row.dataset == dataset})

    @cached_property
    def places(self) -> dict[str, tuple[str, str]]:
        """(network_eval, protocol) that a data set shows first."""
        found = {}
        for name in self.datasets:
            rows = [row for row in self.board if row.dataset == name]
            found[name] = main_place(rows, self.teachers(name))
        return found

    def teachers(self, dataset: str) -> list[str]:
        """Networks that the methods distilled on, the most frequent first."""
        mine = self.networks[self.networks["dataset"] == dataset]
        counts = mine[mine["method"] != WHOLE]["network_distill"].value_counts()
        return [str(name) for name in counts.index]


def main_place(rows: Sequence[LeaderboardRow], teachers: Sequence[str]) -> tuple[str, str]:
    """(network_eval, protocol) to show first: what was distilled on, and with augmentation."""
    places = [(row.network_eval, row.protocol) for row in rows]

    def later(place: tuple[str, str]) -> tuple[Any, ...]:
        network, protocol = place
        behind = any(word in protocol for word in ("-noaug", "best-on-test"))
        return network not in teachers, behind, -places.count(place), place

    return min(places, key=later)
