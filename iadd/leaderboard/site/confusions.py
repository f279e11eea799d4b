"""What classes are taken for: confusion matrices by method, summed over a streamed table."""

from __future__ import annotations

import base64
import io
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.results import batches
from iadd.leaderboard.rows import EVALUATIONS
from iadd.leaderboard.site import html
from iadd.leaderboard.site.content import Content
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.text import REGIMES, per_class

SPELT_OUT = 20
"""Classes up to which a matrix has names and numbers; of more it is a picture."""
ROWS = 2048
"""Rows of evaluations that are looked at together: with 100 classes they take 80 MB."""
KEYS = ("dataset", "network_eval", "protocol", "label_regime", "tuned", "ipc", "method")
Key = tuple[str, str, bool, int, str]
"""Data set, label regime, tuned, ipc, method."""


class Matrices(NamedTuple):
    """Confusion matrices that belong together: as tables, or as pictures (data address, method)."""

    title: str
    tables: Sequence[Table]
    pictures: Sequence[tuple[str, str]]


def confusions(content: Content) -> dict[tuple[str, int], list[Matrices]]:
    """By data set and ipc: a group for each label regime, tuned or default, a matrix a method.

    A matrix is the share of each true class's images, over all networks of the main place; a
    network that diverged has none. Data sets whose classes have no names here are left out.
    """
    sums = _sums(content)
    found: dict[tuple[str, int], list[Matrices]] = defaultdict(list)
    groups = sorted({key[:4] for key in sums if key[4] != WHOLE})
    for dataset, regime, tuned, ipc in groups:
        names = content.about.classes.get(dataset, ())
        mine = (dataset, regime, tuned, ipc)
        members = {k[4]: _shares(sums[k]) for k in sorted(sums) if k[:4] == mine and k[4] != WHOLE}
        for key in sums:
            if (key[0], key[4]) == (dataset, WHOLE):
                members[WHOLE] = _shares(sums[key])
        title = f"{per_class(ipc)}, {REGIMES[regime]}{', tuned' * tuned}"
        spelt = len(names) <= SPELT_OUT
        found[dataset, ipc].append(
            Matrices(
                title,
                [_table(method, shares, names) for method, shares in members.items() if spelt],
                [(_picture(shares), method) for method, shares in members.items() if not spelt],
            )
        )
    return found


def _sums(content: Content) -> dict[Key, np.ndarray]:
    """Confusion counts (K, K) over all networks of each data set's main place."""
    sums: dict[Key, np.ndarray] = {}
    for batch in batches(content.tables["evaluations"], EVALUATIONS, (*KEYS, "confusion"), ROWS):
        keys = batch.select(KEYS).to_pandas()
        known = batch["confusion"].is_valid().to_numpy(zero_copy_only=False)
        places = pd.Series(list(zip(keys["network_eval"], keys["protocol"], strict=True)))
        main = places == keys["dataset"].map(content.places)
        named = keys["dataset"].isin([d for d, names in content.about.classes.items() if names])
        keys = keys[known & main.to_numpy() & named.to_numpy()]
        for values, rows in keys.groupby(
            ["dataset", "label_regime", "tuned", "ipc", "method"]
        ).indices.items():
            matrices = batch["confusion"].take(keys.index[rows].to_numpy()).flatten()
            counts = (
                matrices.to_numpy(zero_copy_only=False)
                .reshape(len(rows), -1)
                .sum(0, dtype=np.int64)
            )
            classes = math.isqrt(len(counts))
            sums[values] = sums.get(values, 0) + counts.reshape(classes, classes)
    return sums


def _shares(counts: np.ndarray) -> np.ndarray:
    """Of each true class's images (a row); a class without images has none."""
    shares: np.ndarray = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def _table(method: str, shares: np.ndarray, names: Sequence[str]) -> Table:
    digits = 0 if len(names) > 5 else 1
    lines = [
        Line(
            [name, *(Cell(html.percent(share, digits), order=share, shade=share) for share in row)]
        )
        for name, row in zip(names, shares.tolist(), strict=True)
    ]
    return Table(
        method,
        [Column("True class", "head"), *map(Column, names)],
        lines,
        "share of the true class that networks called so, %",
    )


def _picture(shares: np.ndarray) -> str:
    """A dot a pair of classes, dark where many are taken for it, as the address of a PNG."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray((255 * (1 - shares)).round().astype(np.uint8)).save(content, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
