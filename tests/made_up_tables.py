"""Made-up rows of the tables, for the tests of the leaderboard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from iadd.artifacts import SPEC_VERSION
from iadd.leaderboard import ranking
from iadd.leaderboard.columns import judged_of
from iadd.leaderboard.results import table_of
from iadd.leaderboard.rows import (
    EVALUATIONS,
    ComparisonRow,
    EvaluationRow,
    LeaderboardRow,
    TraceRow,
)
from iadd.leaderboard.statistics import compare_all

Row = dict[str, Any]
TEST_COUNTS = (5000, 5000)  # images of each class: many, so that the test set's error is small


def confusion(accuracy: float | None, counts: Sequence[int] = TEST_COUNTS) -> list[int] | None:
    """A confusion matrix of two or more classes with about this accuracy in each class."""
    if accuracy is None:
        return None
    classes = len(counts)
    cells = [0] * classes**2
    for label, count in enumerate(counts):
        right = round(count * accuracy)
        cells[label * classes + label] = right
        cells[label * classes + (label + 1) % classes] += count - right
    return cells


def by_class(matrix: Sequence[int] | None) -> dict[str, list[float] | None]:
    """Recall and specificity of each class from a confusion matrix; AUROC is their mean."""
    if matrix is None:
        return dict.fromkeys(("recall", "specificity", "auroc"))
    classes = math.isqrt(len(matrix))
    lines = [matrix[classes * k : classes * (k + 1)] for k in range(classes)]
    recall = [line[k] / sum(line) for k, line in enumerate(lines)]
    wrong = [sum(line[k] for line in lines) - lines[k][k] for k in range(classes)]
    others = [sum(matrix) - sum(line) for line in lines]
    specificity = [1 - wrong[k] / others[k] for k in range(classes)]
    auroc = [(a + b) / 2 for a, b in zip(recall, specificity, strict=True)]
    return {"recall": recall, "specificity": specificity, "auroc": auroc}


def evaluation(
    method: str = "mtt",
    ipc: int = 1,
    seed: int = 0,
    eval_seed: int = 0,
    accuracy: float | None = 0.9,
    **changes: Any,
) -> Row:
    """One evaluation row as a dict; its confusion follows from its accuracy."""
    row = EvaluationRow(
        spec_version=SPEC_VERSION,
        protocol="mtt-v1",
        benchmark="digits",
        dataset="digits",
        ipc=ipc,
        method=method,
        source="measured",
        tuned=False,
        label_regime="hard",
        reconstruction=method in ("iadd", "ddpp"),
        network_distill="convnet",
        network_eval="convnet",
        seed=seed,
        eval_seed=eval_seed,
        accuracy=accuracy,
        balanced_accuracy=accuracy,
        confusion=confusion(accuracy),
        **by_class(confusion(accuracy)),
        train_accuracy=1.0,
        status="ok",
        distill_status="ok",
        expert_seconds=None,
        distill_seconds=10.0 + seed,
        validation_seconds=2.0,
        evaluate_seconds=2.0,
        distill_gpu_seconds=0.0,
        evaluate_gpu_seconds=0.0,
        host_peak_bytes=10**9,
        device_peak_bytes=None,
        image_bytes=2560,
        label_bytes=80,
        params=json.dumps({"lr": 0.1}),
        source_hash="feedbeef0123456789",
        git_commit=None,
        torch_version="2.15.0",
        device="cpu, 2 threads",
    )
    assert not changes.keys() - vars(row).keys()
    return vars(row) | changes


def runs(
    method: str, accuracies: Sequence[Sequence[float | None]], ipc: int = 1, **changes: Any
) -> list[Row]:
    """Rows of a method from accuracies[seed][eval_seed]."""
    return [
        evaluation(method, ipc, seed, eval_seed, accuracy, **changes)
        for seed, networks in enumerate(accuracies)
        for eval_seed, accuracy in enumerate(networks)
    ]


def spread(mean: float, step: float = 0.002) -> list[list[float]]:
    """Three seeds of two networks about a mean."""
    return [[mean - step, mean], [mean, mean + step], [mean - step, mean + step]]


def trace(iteration: int, seed: int = 0, **changes: Any) -> Row:
    """One trace row as a dict; what has no column of its own goes to `extra`."""
    row: Row = {"dataset": "digits", "ipc": 1, "method": "iadd", "tuned": False, "seed": seed}
    row |= {"iteration": iteration, "loss": 0.5, "seconds": 1.0, "event": "", "path": "reference"}
    return vars(TraceRow.of(**(row | changes)))


def trial(number: int, accuracy: float | None, seed: int = 0, status: str = "ok") -> Row:
    """One row of a search's trials as a dict."""
    row: Row = {"benchmark": "b", "dataset": "digits", "method": "mtt", "ipc": 1, "rung": 1}
    row |= {"trial": number, "config": f"c{number}", "iteration": 100, "seconds": 30.0}
    row |= {"validation_accuracy": accuracy, "device": "cpu", "status": status, "seed": seed}
    return row | {"spec_version": SPEC_VERSION}


def rank(evaluations: Any, **options: Any) -> list[LeaderboardRow]:
    """The leaderboard alone, without the comparisons."""
    return ranking.rank(judged_of([evaluations]), **options)[0]


def compared(evaluations: Any) -> list[ComparisonRow]:
    """The differences between methods."""
    return [ComparisonRow(**row) for row in ranking.rank(judged_of([evaluations]))[1].to_pylist()]


class Paired(NamedTuple):
    """What `compare_all` says of two methods alone."""

    seeds: int
    difference: float
    low: float
    high: float
    p: float


def compare(
    one: Mapping[int, float], other: Mapping[int, float], test_images: float
) -> Paired | None:
    """The first method minus the second over common seeds; None where these are fewer than two."""
    common = one.keys() & other.keys()
    alone = {name: {s: m[s] for s in common} for name, m in (("a", one), ("b", other))}
    found = compare_all(alone, test_images)
    if not len(found.seeds):
        return None
    return Paired(*(getattr(found, name)[0].item() for name in Paired._fields))


def table(rows: Sequence[Row]) -> Any:
    """Evaluation rows as the table that `rank` takes."""
    return table_of(rows, EVALUATIONS)
