"""How each run went, from the table of traces, which is read a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from iadd.leaderboard.results import batches
from iadd.leaderboard.rows import TRACES
from iadd.leaderboard.site.content import RunKey

ROWS = 100_000
"""Rows that are looked at together."""
POINTS = 160
"""Iterations of a run that are kept for its plots, evenly spaced, and the last."""


@dataclass(frozen=True)
class Trace:
    """What a run's trace tells. Missing values are NaN.

    columns: name -> values (n,) at `iterations` (n,), at most `POINTS` of them: loss, step_size,
    and the method's own. validation: iterations (m,) and accuracies (m,). `rollbacks`, `skipped`
    and `diverged` are iterations, `last` is the last one. paths: engines that computed.
    """

    iterations: np.ndarray
    columns: Mapping[str, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    rollbacks: np.ndarray
    skipped: np.ndarray
    diverged: np.ndarray
    last: int
    paths: tuple[str, ...]


def read_traces(path: Path) -> Iterator[tuple[RunKey, Trace]]:
    """Each run and its trace, in the order of the table, whose runs stand together."""
    parts: list[pa.RecordBatch] = []
    current: RunKey | None = None
    for batch in batches(path, TRACES, TRACES.names, ROWS):
        for key, part in _by_run(batch):
            if current is not None and key != current:
                yield current, _trace(pa.Table.from_batches(parts))
                parts = []
            current = key
            parts.append(part)
    if current is not None:
        yield current, _trace(pa.Table.from_batches(parts))


def _by_run(batch: pa.RecordBatch) -> Iterator[tuple[RunKey, pa.RecordBatch]]:
    """A batch cut where the run changes."""
    changes = np.zeros(max(len(batch) - 1, 0), dtype=bool)
    for name in RunKey._fields:
        values = (
            batch[name].dictionary_encode().indices
            if batch.schema.field(name).type == pa.string()
            else batch[name]
        )
        plain = values.to_numpy(zero_copy_only=False)
        changes |= plain[1:] != plain[:-1]
    cuts = [0, *(np.flatnonzero(changes) + 1).tolist(), len(batch)]
    for start, end in pairwise(cuts):
        if end > start:
            key = RunKey(*(batch[name][start].as_py() for name in RunKey._fields))
            yield key, batch.slice(start, end - start)


def _trace(rows: pa.Table) -> Trace:
    iterations = _numbers(rows, "iteration")
    events = np.array(rows["event"].to_pylist(), dtype=object)
    accuracy = _numbers(rows, "validation_accuracy")
    seen = np.isfinite(accuracy)
    kept = np.unique(np.r_[np.arange(0, len(rows), -(-len(rows) // POINTS)), len(rows) - 1])
    thin = rows.take(kept)
    own = [dict(pairs) for pairs in thin["extra"].to_pylist()]
    names = sorted({name for row in own for name in row})
    columns = {name: np.array([row.get(name, np.nan) for row in own]) for name in names}
    columns |= {name: _numbers(thin, name) for name in ("loss", "step_size")}
    return Trace(
        iterations[kept],
        columns,
        (iterations[seen], accuracy[seen]),
        iterations[events == "rollback"],
        iterations[events == "skipped"],
        iterations[events == "diverged"],
        int(iterations.max()),
        tuple(sorted(rows["path"].unique().to_pylist())),
    )


def _numbers(rows: Any, name: str) -> np.ndarray:
    values: np.ndarray = rows[name].to_numpy()
    return values.astype(np.float64)
