"""From evaluations to ranks: which methods are better, and where the data cannot tell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iadd.evaluation.scores import measure_for
from iadd.leaderboard.cells import RANDOM, UNSEEN, WHOLE, Cell, cells
from iadd.leaderboard.columns import Judged, Network, places
from iadd.leaderboard.needed import more_seeds
from iadd.leaderboard.rows import COMPARISONS, LeaderboardRow
from iadd.leaderboard.statistics import (
    Comparisons,
    Estimate,
    augmentation_robust_score,
    compare_all,
    effective_size,
    estimate,
    estimate_auroc,
    label_robust_score,
)
from iadd.leaderboard.units import unit_means

MIN_SEEDS = 3
ONE_SETTING = ("benchmark", "source", "reconstruction", "network_distill", "params")
"""What must be the same in all rows of a method in a cell."""
IDENTITY = attrgetter("network_eval", "seed", "eval_seed")
"""What tells a method's networks in a cell apart."""


class Positive(NamedTuple):
    """A class by which patients would be called ill, and its place among the classes."""

    name: str
    label: int


def rank(
    judged: Judged, positive: Mapping[str, Positive] | None = None
) -> tuple[list[LeaderboardRow], pa.Table]:
    """The leaderboard from evaluations: one row a cell and method (SPEC, section 5).

    Nothing is dropped: a diverged network counts with the accuracy of chance; one without any
    accuracy counts in n_networks and n_failed and leaves its method unranked, because the mean of
    the survivors would flatter it. Times are means over seeds.

    Args:
        positive: data set -> the class that sensitivity and specificity speak of.

    Returns:
        Rows sorted by dataset, protocol, network_eval, label_regime, tuned, ipc; within a cell
        best first, then the unranked, `whole` last. And the differences of all ranked methods of
        each cell, both ways round (COMPARISONS); of balanced accuracy, too, where classes are
        imbalanced.

    Raises:
        ValueError: naming a cell that mixes settings or holds one network twice.
    """
    rows: list[dict[str, Any]] = []
    compared: dict[tuple[Cell, str], pa.Table] = {}
    for networks in places(judged.networks, WHOLE):
        for cell, methods in cells(networks):
            counts = judged.tests.get(cell.dataset)
            named = (positive or {}).get(cell.dataset)
            means = {m: unit_means(methods[m]) for m in sorted(methods)}
            members = [_summary(cell, m, methods[m], means[m], counts, named) for m in means]
            rows += members
            if counts is None:
                continue
            ranked = [row for row in members if _can_be_ranked(row)]
            for score, size in _compared(counts):
                scores = {row["method"]: means[row["method"]][score] for row in ranked}
                pairs = compare_all(scores, size)
                more = more_seeds(pairs, size)
                compared[cell, score] = _both_ways(cell, score, list(scores), pairs, more)
                if score == measure_for(counts):
                    _add_ranks(ranked, pairs)
    _add_robust_scores(rows)
    comparisons = pa.concat_tables(
        [COMPARISONS.empty_table(), *(compared[place] for place in sorted(compared))]
    )
    return [LeaderboardRow(**row) for row in sorted(rows, key=_order)], comparisons


def _compared(counts: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Scores that methods are compared by, with the test images that each rests on."""
    yield "accuracy", sum(counts)
    if measure_for(counts) == "balanced_accuracy":
        yield "balanced_accuracy", effective_size(counts)


def _both_ways(
    cell: Cell, score: str, methods: Sequence[str], pairs: Comparisons, more: NDArray[np.int64]
) -> pa.Table:
    """Each pair of methods as two rows, sorted by them; `methods` are, and pairs are of them."""
    count = len(pairs.one)
    first, second = np.append(pairs.one, pairs.other), np.append(pairs.other, pairs.one)
    order = np.lexsort((second, first))
    names = pa.array(methods, pa.string())
    columns: dict[str, Any] = {n: np.tile(getattr(pairs, n), 2)[order] for n in ("p", "p_holm")}
    columns["n_seeds"] = np.tile(pairs.seeds, 2)[order]
    columns["significant"] = np.tile(pairs.significant, 2)[order]
    columns["more_seeds"] = pa.array(np.tile(more, 2)[order], mask=np.tile(more == 0, 2)[order])
    columns["difference"] = np.append(pairs.difference, -pairs.difference)[order]
    columns["low"] = np.append(pairs.low, -pairs.high)[order]
    columns["high"] = np.append(pairs.high, -pairs.low)[order]
    columns["method"], columns["other"] = names.take(first[order]), names.take(second[order])
    for name, value in (cell._asdict() | {"score": score}).items():
        columns[name] = pa.repeat(pa.scalar(value, COMPARISONS.field(name).type), 2 * count)
    return pa.table({name: columns[name] for name in COMPARISONS.names}, schema=COMPARISONS)


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    ranks = [math.inf if row[name] is None else row[name] for name in ("rank_low", "rank_high")]
    names = ("dataset", "protocol", "network_eval", "label_regime", "tuned", "ipc")
    score = row[f"{row['ranked_by'] or 'accuracy'}_mean"]
    mean = -1.0 if score is None else score
    return *(row[name] for name in names), row["method"] == WHOLE, *ranks, -mean, row["method"]


def _summary(
    cell: Cell,
    method: str,
    networks: Sequence[Network],
    means: Mapping[str, Mapping[Any, Any]],
    counts: Sequence[int] | None,
    positive: Positive | None,
) -> dict[str, Any]:
    """One leaderboard row, not ranked or scored yet."""
    _check(cell, method, networks)
    runs = list({row.seed: row for row in networks}.values())
    sizes = [(row.image_bytes, row.label_bytes) for row in runs]
    accuracy = _estimate(means["accuracy"], sum(counts) if counts else None)
    balanced = _estimate(means["balanced_accuracy"], effective_size(counts) if counts else None)
    return cell._asdict() | {
        "method": method,
        "source": networks[0].source,
        "reconstruction": networks[0].reconstruction,
        "network_distill": networks[0].network_distill,
        "n_seeds": len(runs),
        "n_networks": len(networks),
        **{f"accuracy_{name}": value for name, value in accuracy._asdict().items()},
        **_interval("balanced_accuracy", balanced),
        **_by_class(means, counts, positive),
        "distill_seconds": _mean(row.distill_seconds for row in runs),
        "validation_seconds": _mean(row.validation_seconds for row in runs),
        "train_seconds": _mean(row.evaluate_seconds for row in networks),
        **_costs(networks, runs),
        "bytes": max((a + b for a, b in sizes if a is not None and b is not None), default=None),
        "n_diverged": sum(row.status == "diverged" for row in networks),
        "n_failed": sum(row.accuracy is None for row in networks),
        "n_diverged_runs": sum(row.distill_status == "diverged" for row in runs),
        "test_images": sum(counts) if counts else None,
        "test_imbalance": max(counts) / max(1, min(counts)) if counts else None,
        "ranked_by": measure_for(counts) if counts else None,
        **dict.fromkeys(("rank_low", "rank_high", "lrs", "ars")),
    }


def _costs(networks: Sequence[Network], runs: Sequence[Network]) -> dict[str, Any]:
    """What judging took a seed, what both jobs took on a card, and the most memory of any."""
    judged = _mean(row.evaluate_seconds for row in networks)
    on_card = _mean(row.evaluate_gpu_seconds for row in networks)
    distilled = _mean(row.distill_gpu_seconds for row in runs)
    each = len(networks) / len(runs)
    both = None if on_card is None or distilled is None else distilled + on_card * each
    return {
        "evaluate_seconds": None if judged is None else judged * each,
        "gpu_seconds": both,
        **{
            name: max(
                (v for row in networks if (v := getattr(row, name)) is not None), default=None
            )
            for name in ("host_peak_bytes", "device_peak_bytes")
        },
    }


def _by_class(
    means: Mapping[str, Mapping[Any, Any]],
    counts: Sequence[int] | None,
    positive: Positive | None,
) -> dict[str, Any]:
    """Recall of each class; sensitivity, specificity and AUROC of the one that is named."""
    if not counts or not means["recall"]:
        return {}
    scores = ("recall", "specificity", "auroc")  # of each unit (n) and class (K)
    recall, specificity, auroc = (np.array([*means[score].values()]) for score in scores)
    found: dict[str, Any] = {"recall": recall.mean(0).tolist()}
    pairs = [(count, sum(counts) - count) for count in counts]
    if positive is None:
        return found | _auroc(estimate_auroc(auroc.tolist(), pairs))
    label, ill = positive.label, counts[positive.label]
    area = estimate_auroc(auroc[:, [label]].tolist(), [pairs[label]])
    found |= _interval("sensitivity", estimate(recall[:, label].tolist(), ill))
    found |= _interval("specificity", estimate(specificity[:, label].tolist(), sum(counts) - ill))
    return found | {"positive": positive.name} | _auroc(area)


def _auroc(found: Estimate) -> dict[str, float | None]:
    return {"auroc": found.mean, "auroc_low": found.low, "auroc_high": found.high}


def _interval(name: str, found: Estimate) -> dict[str, float | None]:
    return {f"{name}_mean": found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _estimate(means: Mapping[Any, float], test_images: float | None) -> Estimate:
    """Mean and interval of a score from its units' means (`unit_means`)."""
    if test_images is None or not means:  # every network diverged: the test set is not known
        return Estimate(_mean(means.values()))
    return estimate([*means.values()], test_images)


def _can_be_ranked(row: Mapping[str, Any]) -> bool:
    return bool(row["method"] != WHOLE and not row["n_failed"] and row["n_seeds"] >= MIN_SEEDS)


def _add_ranks(ranked: Sequence[dict[str, Any]], pairs: Comparisons) -> None:
    """Fill rank_low and rank_high."""
    ahead = np.where(pairs.difference > 0, pairs.one, pairs.other)[pairs.significant]
    behind = np.where(pairs.difference > 0, pairs.other, pairs.one)[pairs.significant]
    above, below = (np.bincount(side, minlength=len(ranked)) for side in (behind, ahead))
    for k, row in enumerate(ranked):
        row["rank_low"], row["rank_high"] = int(1 + above[k]), int(len(ranked) - below[k])


def _check(cell: Cell, method: str, networks: Sequence[Network]) -> None:
    where = f"evaluations of {method} in {', '.join(map(str, cell))}"
    for name in ONE_SETTING:
        values = sorted(map(str, {getattr(row, name) for row in networks}))
        if len(values) > 1:
            raise ValueError(f"{where}: {name} is {values[0]} and {values[1]}, must be one")
    (_, seed, eval_seed), times = Counter(map(IDENTITY, networks)).most_common(1)[0]
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
        if row["network_eval"] == UNSEEN:  # the scores are those of one network
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
