"""Where each page and picture of the site lies, relative to its folder."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from iadd.leaderboard.cells import Cell
from iadd.leaderboard.site.content import RunKey, Search
from iadd.leaderboard.site.html import slug


def method(name: str) -> str:
    """The page of a method, by its name in the tables."""
    return f"methods/{slug(name)}.html"


def board(dataset: str, ipc: int) -> str:
    """The page of a data set's ranked tables."""
    return f"data/{slug(dataset)}/ipc{ipc}.html"


def results(dataset: str, ipc: int) -> str:
    """The table of all results, showing those of a data set and ipc where scripts run."""
    return "results.html#" + urlencode({"Data set": dataset, "Images a class": ipc})


def differences(dataset: str, ipc: int) -> str:
    """The page of a data set's paired differences."""
    return f"differences/{slug(dataset)}-ipc{ipc}.html"


def by_dataset(kind: str, datasets: Sequence[str]) -> list[tuple[str, str]]:
    """(data set, page) of a kind of page that each of these data sets has one of."""
    others = [(name, f"{kind}/{slug(name)}.html") for name in datasets[1:]]
    return [*((name, f"{kind}.html") for name in datasets[:1]), *others]


def _run(key: RunKey) -> str:
    tuned = "-tuned" * key.tuned
    return f"{slug(key.dataset)}/{slug(key.method)}-ipc{key.ipc}{tuned}-seed{key.seed}"


def run(key: RunKey) -> str:
    """The page of a run."""
    return f"runs/{_run(key)}.html"


def table(kind: str, cell: Cell) -> str:
    """The name of a cell's table: where a link in its page leads, and the file name of its CSV."""
    tuned = ["tuned"] * cell.tuned
    place = cell.dataset, f"ipc{cell.ipc}", cell.network_eval, cell.protocol, cell.label_regime
    return slug("-".join([kind, *place, *tuned]))


def picture(key: RunKey) -> str:
    """The picture of a run's images."""
    return f"pictures/{_run(key)}.png"


def pairs(key: RunKey) -> str:
    """The picture of a run's images beside the nearest real ones."""
    return f"pictures/{_run(key)}-pairs.png"


def search_picture(search: Search) -> str:
    """The picture of a search."""
    name = f"{slug(search.dataset)}/search-{slug(search.method)}-ipc{search.ipc}.png"
    return f"pictures/{name}"
