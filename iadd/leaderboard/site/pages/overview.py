"""The first page: who is best where, and how all the others are to be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from iadd.evaluation.scores import IMBALANCED
from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.measures import imbalanced
from iadd.leaderboard.site import places
from iadd.leaderboard.site.content import Content
from iadd.leaderboard.site.page import Page
from iadd.leaderboard.site.ranked import Answer, answer
from iadd.leaderboard.text import near_chance, protocol_words
from iadd.leaderboard.training import training_lines

NAV = "Overview"
LISTED = 4
"""Values of a fact that are told before the rest is left out."""


def pages(content: Content) -> Iterator[Page]:
    """One page."""
    warnings = content.about.warnings
    datasets = [(n, _answers(content, n), warnings.get(n, ())) for n in content.datasets]
    context = {"datasets": datasets, "facts": _facts(content), "experts": content.about.experts}
    context["about"] = content.about.data
    yield Page("index.html", content.about.title, NAV, "overview.html", context)


def _answers(content: Content, dataset: str) -> list[tuple[Answer, str]]:
    """An answer for each of a data set's main cells, and the page of its table."""
    network, protocol = content.places[dataset]
    cells = [
        (cell, rows)
        for cell, rows in content.cells.items()
        if (cell.dataset, cell.network_eval, cell.protocol) == (dataset, network, protocol)
    ]
    shown = [pair for pair in cells if not pair[0].tuned] or cells
    shown.sort(key=lambda pair: pair[0].ipc)
    return [(answer(rows), places.board(dataset, cell.ipc)) for cell, rows in shown]


def _facts(content: Content) -> dict[str, Any]:
    """What the notes and the foot of the page tell of the evaluations."""
    networks, board = content.networks, content.board

    def several(column: str, width: int | None = None) -> str:
        found = sorted({str(value)[:width] for value in networks[column].dropna().unique()})
        more = ", ..." * (len(found) > LISTED)
        return ", ".join(found[:LISTED]) + more or "not recorded"

    methods = networks[networks["method"] != WHOLE]
    run = ["dataset", "ipc", "method", "tuned"]
    seeds = methods.groupby(run)["seed"].nunique()
    each = networks.groupby([*run, "network_eval", "protocol", "seed"]).size()
    wrong = networks[networks["status"] != "ok"]
    runs = networks[networks["distill_status"] != "ok"].drop_duplicates([*run, "seed"])
    return {
        "seeds": (seeds.min(), seeds.max()) if len(seeds) else (0, 0),
        "networks": (each.min(), each.max()),
        "evaluated": len(networks),
        "trained": training_lines(board),
        "limit": IMBALANCED,
        "unequal": [
            name
            for name in content.datasets
            if imbalanced(row for row in board if row.dataset == name)
        ],
        "runs": len(content.runs),
        "reconstructions": sorted({row.method for row in board if row.reconstruction}),
        "tuned": any(row.tuned for row in board),
        "published": any(row.source == "published" for row in board),
        "submitted": any(row.source == "submitted" for row in board),
        "near_chance": list(near_chance(board)),
        "regimes": sorted({row.label_regime for row in board}),
        "trouble": _counted(wrong, ["dataset", "ipc", "method", "network_eval", "status"]),
        "diverged_runs": _counted(runs, ["dataset", "ipc", "method"]),
        "protocols": [protocol_words(name) for name in sorted(set(networks["protocol"]))],
        "machine": [
            ("device", several("device")),
            ("torch", several("torch_version")),
            ("commit", several("git_commit", 10)),
            ("hashes of the code that ran", several("source_hash", 10)),
            ("spec version", several("spec_version")),
        ],
        "peak": max(networks["host_peak_bytes"].dropna(), default=None),
    }


def _counted(rows: pd.DataFrame, columns: Sequence[str]) -> list[list[Any]]:
    """Each combination of the columns' values and how many rows have it."""
    return rows.value_counts(list(columns)).sort_index().reset_index().to_numpy().tolist()
