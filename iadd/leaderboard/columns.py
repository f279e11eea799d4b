"""Evaluations by their columns: what ranking needs of a network, without a row's whole record.

Ranking looks at a part of the columns only, and at the confusion matrices, which are the largest,
only for the sizes of the test sets. So collecting keeps no more than that of what it joins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iadd.leaderboard.gathering import Block, gather
from iadd.leaderboard.results import writing_table
from iadd.leaderboard.rows import EVALUATIONS


class Network(NamedTuple):
    """One evaluation network; fields as of `rows.EvaluationRow`, entries a class as arrays (K,)."""

    dataset: str
    ipc: int
    network_eval: str
    protocol: str
    label_regime: str
    tuned: bool
    method: str
    source: str
    reconstruction: bool
    network_distill: str
    benchmark: str
    params: str
    seed: int
    eval_seed: int
    accuracy: float | None
    balanced_accuracy: float | None
    recall: Any
    specificity: Any
    auroc: Any
    status: str
    distill_status: str
    distill_seconds: float | None
    validation_seconds: float | None
    evaluate_seconds: float | None
    distill_gpu_seconds: float | None
    evaluate_gpu_seconds: float | None
    host_peak_bytes: int | None
    device_peak_bytes: int | None
    image_bytes: int | None
    label_bytes: int | None


class Judged(NamedTuple):
    """What ranking needs of evaluations."""

    networks: pa.Table
    """The columns of `Network`."""
    tests: dict[str, list[int]]
    """Images of each class in each data set's test set."""


def collect_evaluations(blocks: Sequence[Block], out: Path) -> Judged:
    """Join the evaluation files of all runs (`gathering.gather`) into their table; returns what
    ranking needs of them."""

    def written() -> Iterator[pa.Table]:
        for part in gather(blocks, out, EVALUATIONS):
            append(part)
            yield part

    with writing_table(out, EVALUATIONS, {"files": sum(map(len, blocks))}) as append:
        return judged_of(written())


def judged_of(evaluations: Iterable[pa.Table]) -> Judged:
    """What ranking needs of a table of evaluations in parts.

    Raises:
        ValueError: naming a data set that was tested on two test sets.
    """
    kept = [EVALUATIONS.empty_table().select(Network._fields)]
    tests: dict[str, list[int]] = {}
    for part in evaluations:
        _add_tests(part, tests)
        kept.append(part.select(Network._fields))
    return Judged(pa.concat_tables(kept), tests)


def places(networks: pa.Table, whole: str) -> Iterator[list[Network]]:
    """The networks of one data set and ipc after another: all that a cell can hold.

    Those of `whole`, which has no ipc, are there in every place that has other networks of their
    kind and protocol, and once more by themselves where there is no such place.
    """
    for dataset in sorted(pc.unique(networks["dataset"]).to_pylist()):
        own = networks.filter(pc.equal(networks["dataset"], dataset))
        ceilings = networks_of(own.filter(pc.equal(own["method"], whole)))
        own = own.filter(pc.not_equal(own["method"], whole))
        alone = {(row.network_eval, row.protocol) for row in ceilings}
        for ipc in sorted(pc.unique(own["ipc"]).to_pylist()):
            rows = networks_of(own.filter(pc.equal(own["ipc"], ipc)))
            here = {(row.network_eval, row.protocol) for row in rows}
            alone -= here
            yield rows + [c for c in ceilings if (c.network_eval, c.protocol) in here]
        yield [row for row in ceilings if (row.network_eval, row.protocol) in alone]


def networks_of(networks: pa.Table) -> list[Network]:
    """The table's rows, by network, seed and seed of the network."""
    order = [(name, "ascending") for name in ("network_eval", "seed", "eval_seed")]
    ordered = networks.sort_by(order)
    return list(map(Network._make, zip(*map(_values, ordered.columns), strict=True)))


def _add_tests(evaluations: pa.Table, known: dict[str, list[int]]) -> None:
    """Images of each class in the data sets' test sets, from the confusion matrices."""
    for dataset, entries, length in _confusions(evaluations):
        classes = math.isqrt(length)
        if classes**2 != length:
            raise ValueError(f"{dataset}: confusion has {length} entries, no square number")
        counts = entries.reshape(-1, classes, classes).sum(axis=2)
        expected = known.setdefault(dataset, counts[0].tolist())
        different = counts[(counts != expected).any(axis=1)] if len(expected) == classes else counts
        if len(different):
            raise ValueError(
                f"{dataset}: tested on {expected} and on {different[0].tolist()} images a class; "
                "one data set must have one test set"
            )


def _confusions(evaluations: pa.Table) -> Iterator[tuple[str, Any, int]]:
    """The matrices of each data set that have one length: their entries in one array."""
    known = evaluations.select(["dataset", "confusion"]).filter(pc.field("confusion").is_valid())
    lengths = pc.list_value_length(known["confusion"])
    known = known.append_column("length", lengths)
    for part in known.group_by(["dataset", "length"]).aggregate([]).sort_by("dataset").to_pylist():
        same = (pc.field("dataset") == part["dataset"]) & (pc.field("length") == part["length"])
        matrices = known.filter(same)["confusion"].combine_chunks()
        yield part["dataset"], matrices.flatten().to_numpy(), part["length"]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python's values, as `to_pylist` gives them, and several times as fast."""
    found = column.combine_chunks()
    if pa.types.is_string(found.type):
        coded = found.dictionary_encode()
        words = coded.dictionary.to_pylist()
        return [words[k] for k in coded.indices.to_numpy()]
    if pa.types.is_list(found.type):
        flat, lengths = found.flatten().to_numpy(), pc.list_value_length(found).fill_null(0)
        ends = np.cumsum(lengths)
        places = zip(
            (ends - lengths).tolist(), ends.tolist(), found.is_valid().to_pylist(), strict=True
        )
        return [flat[start:end] if known else None for start, end, known in places]
    return list(
        found.to_pylist() if found.null_count else found.to_numpy(zero_copy_only=False).tolist()
    )
