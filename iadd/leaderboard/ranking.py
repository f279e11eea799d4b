"""From evaluations to ranks: which methods are better, and where the data cannot tell.

Plain records in and out; `results.rank` puts tables round it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from iadd.leaderboard.statistics import (
    Estimate,
    augmentation_robust_score,
    estimate,
    label_robust_score,
)
from iadd.seeds import seed_for

Record = Mapping[str, Any]
CELL = ("dataset", "ipc", "network_eval", "protocol")
Cell = tuple[str, int, str, str]
WHOLE = "whole"  # all the real data: the ceiling of every cell, stored once with ipc = 0
TUNED = "+tuned"  # end of a protocol's name: parameters that a search found
RANDOM = "random"  # real images drawn at random: what distilling is measured against
ONE_SETTING = ("benchmark", "label_kind", "network_distill", "params")  # in a cell, of a method


def ranked_rows(
    evaluations: Sequence[Record], min_seeds: int = 3, resamples: int = 2000
) -> list[dict[str, Any]]:
    """The leaderboard's rows (`results.LEADERBOARD`), one a cell and method, null as None.

    rank_low is 1 + the number of methods surely better, rank_high is n - the number surely worse,
    where "surely" means that the 95 % interval of the difference leaves out 0 (pairwise, not
    corrected for the number of pairs), among methods of one label kind. accuracy_std is over the
    seeds' means. Nothing is dropped: a diverged network counts with the accuracy that it reached;
    one without any accuracy counts in n_networks and n_failed and leaves its method unranked,
    because the mean of the survivors would flatter it. Also unranked: fewer than `min_seeds` seeds
    (or than two), and `whole`, repeated in every cell as the ceiling; its networks are independent,
    so each is a unit of its interval. distill_seconds is the mean over seeds. Raises ValueError
    naming a cell that mixes settings or holds one network twice.
    """
    rows = []
    for cell, methods in _cells(evaluations):
        members: dict[str, list[tuple[dict[str, Any], Estimate]]] = defaultdict(list)
        for method in sorted(methods):
            row, found = _summary(cell, method, methods[method], resamples)
            rows.append(row)
            enough = row["n_seeds"] >= min_seeds and not row["n_failed"] and method != WHOLE
            if found and found.degrees and enough:
                members[row["label_kind"]].append((row, found))
        for group in members.values():
            for row, mine in group:
                better = sum(other.surely_above(mine) for _, other in group)
                worse = sum(mine.surely_above(other) for _, other in group)
                row.update(rank_low=1 + better, rank_high=len(group) - worse)
    _add_robust_scores(rows)
    return rows


def remark(row: Record) -> str:
    """What a reader must know about a leaderboard row beside its numbers, in a few words."""
    words = []
    if row["source"] != "measured":
        words.append(str(row["source"]))
    if row["method"] == WHOLE:
        words.append("ceiling")
    elif not row["n_failed"] and is_null(row["rank_low"]):
        words.append("few seeds")
    if row["label_kind"] == "soft":
        words.append("soft labels")
    words += [f"{row[n]} {n[2:]}" for n in ("n_diverged", "n_failed") if row[n]]
    return ", ".join(words)


def rank_range(row: Record) -> str:
    """A leaderboard row's rank as people write it: "1", "2-5", or "-" for unranked."""
    low, high = row["rank_low"], row["rank_high"]
    if is_null(low):
        return "-"
    return f"{low}" if low == high else f"{low}-{high}"


def is_null(value: Any) -> bool:
    """Whether a table's value is missing: None, pandas' NA or NaN."""
    return value is None or str(value) in ("nan", "<NA>")


def _cells(evaluations: Sequence[Record]) -> Iterator[tuple[Cell, dict[str, list[Record]]]]:
    """Each cell and its records by method, those of `whole` among them."""
    places: dict[tuple[str, str, str], dict[int, dict[str, list[Record]]]] = defaultdict(dict)
    for row in evaluations:
        place = places[row["dataset"], row["network_eval"], row["protocol"]]
        ipc = 0 if row["method"] == WHOLE else row["ipc"]
        place.setdefault(ipc, {}).setdefault(row["method"], []).append(row)
    for (dataset, network, protocol), by_ipc in sorted(places.items()):
        ceiling = by_ipc.get(0, {})
        for ipc in sorted(ipc for ipc in by_ipc if ipc) or [0]:
            members = by_ipc.get(ipc, {}) | ceiling
            if protocol.endswith(TUNED):
                members = _references(places, dataset, network, protocol, ipc) | members
            yield (dataset, ipc, network, protocol), members


def _references(
    places: Mapping[tuple[str, str, str], dict[int, dict[str, list[Record]]]],
    dataset: str,
    network: str,
    protocol: str,
    ipc: int,
) -> dict[str, list[Record]]:
    """`whole` and `random` for a cell of tuned methods.

    Neither has anything to tune, so their evaluations by the plain protocol are those of the tuned
    one: without them a tuned cell would lack its ceiling and what its methods have to beat.
    """
    plain = places.get((dataset, network, protocol.removesuffix(TUNED)), {})
    found = {**plain.get(ipc, {}), **plain.get(0, {})}
    return {method: found[method] for method in (WHOLE, RANDOM) if method in found}


def _summary(
    cell: Cell, method: str, networks: Sequence[Record], resamples: int
) -> tuple[dict[str, Any], Estimate | None]:
    """One leaderboard row, not ranked or scored yet, and its estimate if it has an accuracy."""
    _check(cell, method, networks)
    found = _estimate(cell, method, networks, resamples)
    low, high = found.interval() if found else (None, None)
    seeds = list({row["seed"]: row for row in networks}.values())
    seconds = [row["distill_seconds"] for row in seeds if not is_null(row["distill_seconds"])]
    sizes = [[row["image_bytes"], row["label_bytes"]] for row in seeds]
    row = dict(zip(CELL, cell, strict=True)) | {
        "method": method,
        "n_seeds": len(seeds),
        "n_networks": len(networks),
        "accuracy_mean": found and found.mean,
        "accuracy_std": found and found.std,
        "accuracy_low": low,
        "accuracy_high": high,
        "distill_seconds": float(np.mean(seconds)) if seconds else None,
        "bytes": max((sum(s) for s in sizes if not any(map(is_null, s))), default=None),
        "source": "measured",
        "label_kind": networks[0]["label_kind"],
        "n_diverged": sum(row["status"] == "diverged" for row in networks),
        "n_failed": sum(is_null(row["accuracy"]) for row in networks),
    }
    return row | dict.fromkeys(("rank_low", "rank_high", "lrs", "ars")), found


def _estimate(
    cell: Cell, method: str, networks: Sequence[Record], resamples: int
) -> Estimate | None:
    units: dict[Any, list[float]] = defaultdict(list)
    for row in sorted(networks, key=_identity):
        if not is_null(row["accuracy"]):
            units[_identity(row) if method == WHOLE else row["seed"]].append(row["accuracy"])
    if not units:
        return None
    dataset, ipc, network, protocol = cell
    # Seeded by its own names: no other method in the table changes this one's interval.
    plain = protocol.removesuffix(TUNED) if method in (WHOLE, RANDOM) else protocol
    names = (dataset, 0 if method == WHOLE else ipc, network, plain, method, "bootstrap")
    groups = [np.array(unit, dtype=np.float64) for unit in units.values()]
    return estimate(groups, np.random.default_rng(seed_for(*names)), resamples)


def _identity(row: Record) -> tuple[int, int]:
    return row["seed"], row["eval_seed"]


def _check(cell: Cell, method: str, networks: Sequence[Record]) -> None:
    where = f"evaluations of {method} in {', '.join(map(str, cell))}"
    for name in ONE_SETTING:
        values = sorted({str(row[name]) for row in networks})
        if len(values) > 1:
            raise ValueError(f"{where}: {name} is {values[0]} and {values[1]}, must be one")
    (seed, eval_seed), times = Counter(map(_identity, networks)).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{where}: seed {seed}, eval_seed {eval_seed} is there {times} times")
    for row in networks:
        if not is_null(row["accuracy"]) and not 0 <= row["accuracy"] <= 1:
            raise ValueError(f"{where}: accuracy {row['accuracy']} must be a fraction in [0, 1]")


def _add_robust_scores(rows: Sequence[dict[str, Any]]) -> None:
    """Fill lrs and ars where the cell has what they compare with; both are for hard labels."""
    means: dict[tuple[Any, ...], Any] = {
        (*(row[name] for name in CELL), row["method"]): row["accuracy_mean"] for row in rows
    }
    for row in rows:
        *place, protocol = (row[name] for name in CELL)
        if row["method"] == WHOLE or row["label_kind"] != "hard":
            continue
        synthetic = means[*place, protocol, row["method"]]
        random = means.get((*place, protocol, RANDOM), math.nan)
        full = means.get((*place, protocol, WHOLE), math.nan)
        if not any(map(is_null, (full, synthetic, random))):
            row["lrs"] = label_robust_score(full, synthetic, random)
        tuned = TUNED * protocol.endswith(TUNED)
        plain = (*place, f"{protocol.removesuffix(TUNED)}-noaug{tuned}")
        bare, bare_random = (means.get((*plain, m), math.nan) for m in (row["method"], RANDOM))
        if not any(map(is_null, (synthetic, random, bare, bare_random))):
            row["ars"] = augmentation_robust_score(synthetic, random, bare, bare_random)
