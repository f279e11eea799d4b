"""The table of importance weights: what trajectory methods learned to count, and its collapses.

A run's trace file holds, beside what all traces have, statistics of the weights that the method
gave its parameters (`iadd.methods._importance`), a few times in its course. Collecting them makes
the flat table `weights.parquet`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iadd.leaderboard.gathering import Block, gather
from iadd.leaderboard.results import writing_table
from iadd.leaderboard.rows import TRACES, Fraction, LeaderboardRow, Row, schema_of

COLLAPSED_EFFECTIVE = 0.1
"""Weights have collapsed where their effective share is below this,"""
COLLAPSED_LOW = 0.5
"""or where more than this share of them lies below 0.1. A mask is what its method says."""
WHOLE_NETWORK = 0
"""The `tensor` of a row about all parameters."""


@dataclass(frozen=True, kw_only=True)
class WeightRow(Row):
    """The weights |w| of one parameter tensor, or of all, at one iteration of a distillation."""

    table = "weights"
    key = ("dataset", "ipc", "method", "tuned", "seed", "iteration", "tensor")

    dataset: str
    ipc: int
    method: str
    tuned: bool
    seed: int
    iteration: int
    tensor: int  # from 1 on, in the network's order; 0: the whole network
    name: str  # of the tensor; "all" of the whole network
    parameters: int  # in the tensor
    mask: bool  # 0 or 1 by rule, not learned
    mean: float | None
    std: float | None
    low_share: Fraction | None  # of weights below 0.1
    effective_share: float | None  # effective number (sum w)^2 / sum w^2, as a share
    residual_correlation: float | None  # rank correlation with (student - target)^2
    movement_correlation: float | None  # with how far the expert moved; None: a side is constant
    histogram: list[int]  # counts in the bins that begin at `_importance.EDGES`
    collapsed: bool  # few weights count: see `COLLAPSED_EFFECTIVE`, `COLLAPSED_LOW`


WEIGHTS = schema_of(WeightRow)
_TOLD = [field for field in WEIGHTS if field.name not in (*WeightRow.key[:-1], "collapsed")]
TRACE_FILE = TRACES.append(
    pa.field("weights", pa.list_(pa.struct([field.remove_metadata() for field in _TOLD])))
)
"""Of a run's own file where its method weighs parameters: a trace some of whose rows hold
statistics of the weights. Those of other methods are plain `TRACES`."""


def weights_of(traces: pa.Table) -> pa.Table:
    """The flat table of weights from traces that were read as `TRACE_FILE`."""
    lists = traces["weights"].combine_chunks()
    runs = traces.select(WeightRow.key[:-1]).take(pc.list_parent_indices(lists))
    told = pc.list_flatten(lists)
    columns = {name: runs[name] for name in runs.column_names}
    columns |= {field.name: told.field(field.name) for field in _TOLD}
    few = pc.less(columns["effective_share"], COLLAPSED_EFFECTIVE)
    low = pc.greater(columns["low_share"], COLLAPSED_LOW)
    found = pc.and_(pc.invert(columns["mask"]), pc.or_(few, low))
    columns["collapsed"] = pc.fill_null(found, False)
    return pa.table([columns[name] for name in WEIGHTS.names], schema=WEIGHTS)


def collect_traces(blocks: Sequence[Block], traces: Path, weights: Path) -> pa.Table:
    """Join the trace files of all runs (`results.gather`) into the table of traces and that of
    weights; returns the rows about whole networks, for `with_collapses`."""
    files, whole = {"files": sum(map(len, blocks))}, [WEIGHTS.empty_table()]
    with (
        writing_table(traces, TRACES, files) as append_history,
        writing_table(weights, WEIGHTS, files) as append_weights,
    ):
        for part in gather(blocks, traces, TRACE_FILE, TRACES):
            told = weights_of(part)
            append_history(part.drop_columns("weights"))
            append_weights(told)
            whole.append(told.filter(pc.equal(told["tensor"], WHOLE_NETWORK)))
    return pa.concat_tables(whole)


def with_collapses(
    leaderboard: Sequence[LeaderboardRow], weights: pa.Table
) -> list[LeaderboardRow]:
    """Leaderboard rows that say how many of their runs ended with collapsed weights."""
    ends: dict[tuple[Any, ...], bool] = {}
    names = ["dataset", "ipc", "method", "tuned", "seed"]
    whole = weights.filter(pc.equal(weights["tensor"], WHOLE_NETWORK))
    for row in whole.select([*names, "collapsed"]).to_pylist():  # the last iteration stays
        ends[tuple(row[name] for name in names)] = row["collapsed"]
    count = Counter(run[:-1] for run, collapsed in ends.items() if collapsed)
    return [
        replace(row, n_collapsed_runs=count[row.dataset, row.ipc, row.method, row.tuned])
        if row.source == "measured"
        else row
        for row in leaderboard
    ]
