"""Published rows beside measured ones: never ranked with them, compared by SPEC, section 9."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from iadd.leaderboard.cells import WHOLE, Cell, cell_of
from iadd.leaderboard.published import Published, published_results, stands_in
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.statistics import Estimate, Verdict, agreement


def beside(board: Sequence[LeaderboardRow], names: Mapping[str, str]) -> list[LeaderboardRow]:
    """The leaderboard with published rows after each cell's measured ones, which tell whether they
    agree.

    Args:
        board: rows as `ranking.rank` gives them.
        names: data set of the board -> the one whose published results it is compared with.
    """
    rows: list[LeaderboardRow] = []
    for cell, grouped in groupby(board, key=cell_of):
        members = list(grouped)
        teachers = {row.network_distill for row in members}
        found = {
            p.method: p
            for p in published_results()
            if stands_in(p, cell, names.get(cell.dataset)) and p.network_distill in teachers
        }
        rows += [_judged(row, found.get(row.method)) for row in members]
        rows += [_row(p, cell) for p in sorted(found.values(), key=lambda p: -p.accuracy)]
    return rows


def _judged(row: LeaderboardRow, published: Published | None) -> LeaderboardRow:
    """A measured row, and how it stands to the published value of its method."""
    if published is None or row.source != "measured":
        return row
    if row.method != WHOLE and row.network_distill != published.network_distill:
        return row
    verdict, more = verdict_of(row, published)
    return replace(row, published=published.accuracy, agrees=verdict, more_seeds=more)


def verdict_of(row: LeaderboardRow, published: Published) -> tuple[Verdict, int | None]:
    """`statistics.agreement` of a measured row; of `whole` the units are its networks."""
    found = Estimate(row.accuracy_mean, row.accuracy_std, row.accuracy_low, row.accuracy_high)
    if row.test_images is None or row.n_seeds is None or row.n_networks is None:
        return "undecided", None
    whole = row.method == WHOLE
    units = row.n_networks if whole else row.n_seeds
    verdict, more = agreement(
        found, units, row.test_images, published.accuracy, published.std or 0.0
    )
    return verdict, None if whole else more


def _row(published: Published, cell: Cell) -> LeaderboardRow:
    return LeaderboardRow(
        **cell._asdict(),
        method=published.method,
        source="published",
        reconstruction=False,
        network_distill=published.network_distill,
        n_seeds=None,
        n_networks=None,
        accuracy_mean=published.accuracy,
        accuracy_std=published.std,
        citation=published.source,
    )
