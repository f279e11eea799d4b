"""A page a data set and ipc: its ranked tables, the accuracies as a plot, and the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from iadd.leaderboard.cells import UNSEEN, WHOLE, Cell
from iadd.leaderboard.measures import WORDS, ranking_measure, value
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.site import places
from iadd.leaderboard.site.chart import Whisker, whiskers
from iadd.leaderboard.site.confusions import confusions
from iadd.leaderboard.site.content import Content
from iadd.leaderboard.site.html import Table
from iadd.leaderboard.site.page import Page
from iadd.leaderboard.site.pages import overview, results
from iadd.leaderboard.site.ranked import ranked_table
from iadd.leaderboard.site.saved import saved_table
from iadd.leaderboard.text import MARK, per_class, place_words
from iadd.leaderboard.training import training_lines

MOST_TABLES = 60
"""Ranked tables in a page."""


def pages(content: Content) -> Iterator[Page]:
    """One page for each data set and ipc."""
    matrices = confusions(content)
    for dataset in content.datasets:
        beside = [(per_class(ipc), places.board(dataset, ipc)) for ipc in content.ipcs(dataset)]
        for ipc in content.ipcs(dataset):
            few = len(content.board) <= results.MOST_LINKED
            context = {
                "results": places.results(dataset, ipc) if few else None,
                **_ranked(content, dataset, ipc),
                "trained": training_lines(_rows(content, dataset, ipc)),
                "measure": WORDS[ranking_measure(_rows(content, dataset, ipc))],
                "plots": list(_plots(content, dataset, ipc)),
                "pictures": list(_pictures(content, dataset, ipc)),
                "confusions": matrices.get((dataset, ipc), []),
            }
            title = f"{dataset}, {per_class(ipc)}"
            path = places.board(dataset, ipc)
            yield Page(path, title, overview.NAV, "board.html", context, beside)


def _mine(content: Content, dataset: str, ipc: int) -> dict[Cell, list[LeaderboardRow]]:
    found = content.cells.items()
    return {c: rows for c, rows in found if (c.dataset, c.ipc) == (dataset, ipc)}


def _rows(content: Content, dataset: str, ipc: int) -> list[LeaderboardRow]:
    return [row for rows in _mine(content, dataset, ipc).values() for row in rows]


def _ranked(content: Content, dataset: str, ipc: int) -> Mapping[str, Any]:
    """Tables of the network that was distilled on first, default settings before tuned ones."""
    main: list[Table] = []
    saved: list[Table] = []
    others: list[Table] = []
    for cell, rows in _mine(content, dataset, ipc).items():
        first = (cell.network_eval, cell.protocol) == content.places[dataset]
        (main if first else others).append(ranked_table(rows, content.about.budget))
        if first and (savings := saved_table(rows)):
            saved.append(savings)
    left_out = others[MOST_TABLES:]
    return {"main": main, "saved": saved, "others": others[:MOST_TABLES], "left_out": left_out}


def _plots(content: Content, dataset: str, ipc: int) -> Iterator[tuple[str, Any]]:
    """A plot for each label regime, and tuned or default, under the main protocol."""
    network, protocol = content.places[dataset]
    cells = [(c, r) for c, r in _mine(content, dataset, ipc).items() if c.protocol == protocol]
    cells = [(c, r) for c, r in cells if c.network_eval != UNSEEN]
    cells.sort(key=lambda pair: (*pair[0][4:], pair[0].network_eval != network, pair[0]))
    for _, grouped in groupby(cells, key=lambda pair: pair[0][4:]):
        members = list(grouped)
        title = f"{per_class(ipc)}, {place_words(members[0][0])}"
        yield title, _plot(title, dataset, members)


def _plot(title: str, dataset: str, members: Sequence[tuple[Cell, list[LeaderboardRow]]]) -> Any:
    measured = [[r for r in rows if r.source != "published"] for _, rows in members]
    ceiling = {r.method for rows in measured for r in rows if r.method == WHOLE}
    methods = list(dict.fromkeys(r.method for rows in measured for r in rows))
    methods = [name for name in methods if name not in ceiling] + sorted(ceiling)
    marked = {r.method for rows in measured for r in rows if r.reconstruction}
    measure = ranking_measure(row for rows in measured for row in rows)
    values = [(r.method, value(r, measure), k) for k, rows in enumerate(measured) for r in rows]
    found = [
        Whisker(methods.index(method), v.mean, v.low, v.high, k)
        for method, v, k in values
        if v.mean is not None
    ]
    found += [
        Whisker(methods.index(r.method), mean, None, None, 0, hollow=True)
        for r in members[0][1]
        if r.source == "published" and r.method in methods
        if (mean := value(r, measure).mean) is not None
    ]
    hollow = any(one.hollow for one in found)
    axis = f"test {WORDS[measure]}, %" + f" ({MARK} a reconstruction)" * bool(marked)
    axis += "; hollow: published" * hollow
    alt = f"{WORDS[measure].capitalize()} of each method with 95 % intervals, {dataset}, {title}; "
    names = [name + MARK * (name in marked) for name in methods]
    networks = [cell.network_eval for cell, _ in members]
    return whiskers(alt + "the numbers are in the tables", axis, names, networks, found)


def _pictures(content: Content, dataset: str, ipc: int) -> Iterator[tuple[str, str, str]]:
    """The first seed of each method: its name, its picture, its page."""
    for key in sorted(content.pictures):
        if (key.dataset, key.ipc, key.seed) == (dataset, ipc, 0):
            yield key.method + ", tuned" * key.tuned, places.picture(key), places.run(key)
