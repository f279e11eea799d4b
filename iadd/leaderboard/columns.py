"""Evaluations by their columns: what ranking needs of a network, without a row's whole record."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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


UNRANKED = tuple(n for n in EVALUATIONS.names if n not in (*Network._fields, "confusion"))
"""Columns that ranking does not look at."""


def places(evaluations: pa.Table, whole: str) -> Iterator[list[Network]]:
    """The networks of one data set and ipc after another: all that a cell can hold.

    Those of `whole`, which has no ipc, are there in every place that has other networks of their
    kind and protocol, and once more by themselves where there is no such place.
    """
    needed = evaluations.select(Network._fields)
    for dataset in sorted(pc.unique(needed["dataset"]).to_pylist()):
        own = needed.filter(pc.field("dataset") == dataset)
        ceilings = networks_of(own.filter(pc.field("method") == whole))
        own = own.filter(pc.field("method") != whole)
        alone = {(row.network_eval, row.protocol) for row in ceilings}
        for ipc in sorted(pc.unique(own["ipc"]).to_pylist()):
            networks = networks_of(own.filter(pc.field("ipc") == ipc))
            here = {(row.network_eval, row.protocol) for row in networks}
            alone -= here
            yield networks + [c for c in ceilings if (c.network_eval, c.protocol) in here]
        yield [row for row in ceilings if (row.network_eval, row.protocol) in alone]


def networks_of(evaluations: pa.Table) -> list[Network]:
    """The table's rows, by network, seed and seed of the network."""
    order = [(name, "ascending") for name in ("network_eval", "seed", "eval_seed")]
    ordered = evaluations.select(Network._fields).sort_by(order)
    return [Network(*row) for row in zip(*map(_values, ordered.columns), strict=True)]


def tested_on(evaluations: pa.Table) -> dict[str, list[int]]:
    """Images of each class in each data set's test set, from the confusion matrices.

    Raises:
        ValueError: naming a data set that was tested on two test sets.
    """
    found: dict[str, list[int]] = {}
    for dataset, entries, length in _confusions(evaluations):
        classes = math.isqrt(length)
        if classes**2 != length:
            raise ValueError(f"{dataset}: confusion has {length} entries, no square number")
        for counts in np.unique(entries.reshape(-1, classes, classes).sum(axis=2), axis=0).tolist():
            if found.setdefault(dataset, counts) != counts:
                raise ValueError(
                    f"{dataset}: tested on {found[dataset]} and on {counts} images a class; "
                    "one data set must have one test set"
                )
    return found


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
        flat, ends = found.flatten().to_numpy(), np.cumsum(pc.list_value_length(found).fill_null(0))
        cut = np.split(flat, ends[:-1]) if len(found) else []
        return [
            part if known else None
            for part, known in zip(cut, found.is_valid().to_pylist(), strict=True)
        ]
    return list(
        found.to_pylist() if found.null_count else found.to_numpy(zero_copy_only=False).tolist()
    )
