"""From evaluations to ranks: which methods are better, and where the data cannot tell."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from iadd.leaderboard.rows import EvaluationRow, LeaderboardRow
from iadd.leaderboard.statistics import (
    Estimate,
    augmentation_robust_score,
    effective_size,
    estimate,
    label_robust_score,
    significantly_better,
)

WHOLE = "whole"  # all the real data: the ceiling of every cell, stored once with ipc = 0
RANDOM = "random"  # real images drawn at random: what distilling is measured against
MIN_SEEDS = 3
ONE_SETTING = ("benchmark", "source", "reconstruction", "network_distill", "params")
"""What must be the same in all rows of a method in a cell."""


class Cell(NamedTuple):
    """Where methods compete; those of two cells are never ranked together."""

    dataset: str
    ipc: int
    network_eval: str
    protocol: str
    label_regime: str
    tuned: bool


def cell_of(row: EvaluationRow | LeaderboardRow) -> Cell:
    """The cell that a row stands in."""
    return Cell(*(getattr(row, name) for name in Cell._fields))


def rank(evaluations: pa.Table) -> list[LeaderboardRow]:
    """The leaderboard from a table of evaluations: one row a cell and method (SPEC, section 5).

    Nothing is dropped: a diverged network counts with the accuracy of chance; one without any
    accuracy counts in n_networks and n_failed and leaves its method unranked, because the mean of
    the survivors would flatter it. Times are means over seeds.

    Returns:
        Rows sorted by dataset, protocol, network_eval, label_regime, tuned, ipc; within a cell
        best first, then the unranked, `whole` last.

    Raises:
        ValueError: naming a cell that mixes settings or holds one network twice, or a data set that
            was tested on two test sets.
    """
    networks = [EvaluationRow(**r) for r in evaluations.drop_columns("confusion").to_pylist()]
    tests = _test_counts(evaluations)
    rows: list[dict[str, Any]] = []
    for cell, methods in _cells(networks):
        counts = tests.get(cell.dataset)
        members = [_summary(cell, method, methods[method], counts) for method in sorted(methods)]
        if counts:
            _add_ranks(members, methods, sum(counts))
        rows += members
    _add_robust_scores(rows)
    return [LeaderboardRow(**row) for row in sorted(rows, key=_order)]


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    ranks = [math.inf if row[name] is None else row[name] for name in ("rank_low", "rank_high")]
    names = ("dataset", "protocol", "network_eval", "label_regime", "tuned", "ipc")
    mean = -1.0 if row["accuracy_mean"] is None else row["accuracy_mean"]
    return *(row[name] for name in names), row["method"] == WHOLE, *ranks, -mean, row["method"]


def _test_counts(evaluations: pa.Table) -> dict[str, list[int]]:
    """Images of each class in each data set's test set, from the confusion matrices."""
    found: dict[str, list[int]] = {}
    datasets = evaluations["dataset"].to_pylist()
    for dataset, matrix in zip(datasets, evaluations["confusion"], strict=True):
        if not matrix.is_valid:
            continue
        cells = matrix.values.to_numpy(zero_copy_only=False)
        classes = math.isqrt(len(cells))
        if classes**2 != len(cells):
            raise ValueError(f"{dataset}: confusion has {len(cells)} entries, no square number")
        counts = cells.reshape(classes, classes).sum(axis=1).tolist()
        if found.setdefault(dataset, counts) != counts:
            raise ValueError(
                f"{dataset}: tested on {found[dataset]} and on {counts} images a class; "
                "one data set must have one test set"
            )
    return found


def _cells(networks: Iterable[EvaluationRow]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Each cell and its networks by method, those that are compared with among them.

    `whole` stands in every cell of its data set, network and protocol. `random` has nothing to
    tune, so its default evaluations stand in a tuned cell too: without them a tuned cell would
    lack what its methods have to beat.
    """
    found: dict[Cell, dict[str, list[EvaluationRow]]] = defaultdict(lambda: defaultdict(list))
    ceilings: dict[tuple[str, ...], list[EvaluationRow]] = defaultdict(list)
    for row in networks:
        if row.method == WHOLE:
            ceilings[row.dataset, row.network_eval, row.protocol].append(row)
        else:
            found[cell_of(row)][row.method].append(row)
    inhabited = {(cell.dataset, cell.network_eval, cell.protocol) for cell in found}
    for dataset, network, protocol in ceilings.keys() - inhabited:
        found[Cell(dataset, 0, network, protocol, "hard", False)] = {}
    for cell in sorted(found):
        members = dict(found[cell])
        default = found.get(cell._replace(tuned=False), {})
        if cell.tuned and RANDOM in default:
            members.setdefault(RANDOM, default[RANDOM])
        if ceiling := ceilings.get((cell.dataset, cell.network_eval, cell.protocol)):
            members[WHOLE] = ceiling
        yield cell, members


def _summary(
    cell: Cell, method: str, networks: Sequence[EvaluationRow], counts: Sequence[int] | None
) -> dict[str, Any]:
    """One leaderboard row, not ranked or scored yet."""
    _check(cell, method, networks)
    runs = list({row.seed: row for row in networks}.values())
    sizes = [(row.image_bytes, row.label_bytes) for row in runs]
    accuracy = _estimate(networks, "accuracy", sum(counts) if counts else None)
    balanced = _estimate(networks, "balanced_accuracy", effective_size(counts) if counts else None)
    return cell._asdict() | {
        "method": method,
        "source": networks[0].source,
        "reconstruction": networks[0].reconstruction,
        "n_seeds": len(runs),
        "n_networks": len(networks),
        **{f"accuracy_{name}": value for name, value in accuracy._asdict().items()},
        "balanced_accuracy_mean": balanced.mean,
        "balanced_accuracy_low": balanced.low,
        "balanced_accuracy_high": balanced.high,
        "distill_seconds": _mean(row.distill_seconds for row in runs),
        "validation_seconds": _mean(row.validation_seconds for row in runs),
        "bytes": max((a + b for a, b in sizes if a is not None and b is not None), default=None),
        "n_diverged": sum(row.status == "diverged" for row in networks),
        "n_failed": sum(row.accuracy is None for row in networks),
        "n_diverged_runs": sum(row.distill_status == "diverged" for row in runs),
        "test_images": sum(counts) if counts else None,
        "test_imbalance": max(counts) / max(1, min(counts)) if counts else None,
        **dict.fromkeys(("rank_low", "rank_high", "lrs", "ars")),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _estimate(networks: Sequence[EvaluationRow], score: str, test_images: float | None) -> Estimate:
    """Mean and interval of a score, the units being seeds; of `whole`, whose networks are
    independent, networks."""
    means = list(_unit_means(networks, score).values())
    if test_images is None or not means:  # every network diverged: the test set is not known
        return Estimate(_mean(means))
    return estimate(means, test_images)


def _unit_means(networks: Iterable[EvaluationRow], score: str) -> dict[Any, float]:
    """Mean score of each unit's networks that have one."""
    units: dict[Any, list[float]] = defaultdict(list)
    for row in sorted(networks, key=_identity):
        if (value := getattr(row, score)) is not None:
            units[_identity(row) if row.method == WHOLE else row.seed].append(value)
    return {unit: float(np.mean(values)) for unit, values in units.items()}


def _add_ranks(
    members: Sequence[dict[str, Any]],
    methods: Mapping[str, Sequence[EvaluationRow]],
    test_images: int,
) -> None:
    """Fill rank_low and rank_high of those that can be ranked."""
    ranked = [
        row
        for row in members
        if row["method"] != WHOLE and not row["n_failed"] and row["n_seeds"] >= MIN_SEEDS
    ]
    means = {row["method"]: _unit_means(methods[row["method"]], "accuracy") for row in ranked}
    pairs = significantly_better(means, test_images)
    above = Counter(worse for _, worse in pairs)
    below = Counter(better for better, _ in pairs)
    for row in ranked:
        row["rank_low"] = 1 + above[row["method"]]
        row["rank_high"] = len(ranked) - below[row["method"]]


def _identity(row: EvaluationRow) -> tuple[int, int]:
    return row.seed, row.eval_seed


def _check(cell: Cell, method: str, networks: Sequence[EvaluationRow]) -> None:
    where = f"evaluations of {method} in {', '.join(map(str, cell))}"
    for name in ONE_SETTING:
        values = sorted({str(getattr(row, name)) for row in networks})
        if len(values) > 1:
            raise ValueError(f"{where}: {name} is {values[0]} and {values[1]}, must be one")
    (seed, eval_seed), times = Counter(map(_identity, networks)).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{where}: seed {seed}, eval_seed {eval_seed} is there {times} times")


def _add_robust_scores(rows: Sequence[dict[str, Any]]) -> None:
    """Fill lrs and ars where the cell has what they compare with; both are for hard labels."""

    def cell(row: Mapping[str, Any]) -> Cell:
        return Cell(*(row[name] for name in Cell._fields))

    means = {(*cell(row), row["method"]): row["accuracy_mean"] for row in rows}
    for row in rows:
        if row["method"] == WHOLE or row["label_regime"] != "hard":
            continue
        here = cell(row)
        bare = here._replace(protocol=f"{here.protocol}-noaug")
        synthetic, random, full = (means.get((*here, m)) for m in (row["method"], RANDOM, WHOLE))
        plain, plain_random = (means.get((*bare, m)) for m in (row["method"], RANDOM))
        if synthetic is None or random is None:
            continue
        if full is not None:
            row["lrs"] = label_robust_score(full, synthetic, random)
        if plain is not None and plain_random is not None:
            row["ars"] = augmentation_robust_score(synthetic, random, plain, plain_random)
