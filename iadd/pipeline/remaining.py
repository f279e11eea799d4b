"""Which jobs of a benchmark are left: their file is missing or was made under another spec."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from iadd.artifacts import TensorFile, canonical_json
from iadd.leaderboard.results import read_metadata
from iadd.pipeline import privacy_plan
from iadd.pipeline.plan import Plan, Run
from iadd.pipeline.tables import current

Job = tuple[str, str]
"""Data set and stage, as `iadd plan` names them."""


def remaining(plan: Plan) -> Counter[Job]:
    """How many jobs of each kind are left."""
    left: Counter[Job] = Counter((key, "data") for key in plan.stale_data())
    for job, path, check in _jobs(plan):
        left[job] += not (path.exists() and _passes(check))
    if left.total() or not _passes(lambda: current(plan)):
        left["all", "collect and site"] = 2
    return left


def _jobs(plan: Plan) -> Iterator[tuple[Job, Path, Callable[[], Any]]]:
    """Each job, its file, and what raises ValueError where that is another's."""
    for dataset in plan.config.datasets:
        for recipe in plan.recipes:
            if plan.config.experts.named(recipe).imported:  # no job makes them
                continue
            code = {"source": plan.experts_source()}
            for shard in plan.shards(dataset.key, recipe):
                yield (dataset.key, f"experts {recipe}"), shard, partial(TensorFile, shard, code)
    for search in plan.searches():
        found = plan.winner(*search)
        yield (search[0], f"search {search[1]}"), found, partial(plan.read_winner, *search)
    for run in plan.runs():
        paths, name = plan.paths(run), run.method + ", tuned" * run.tuned
        job = run.dataset, f"distill {name}"
        yield job, paths.distilled, partial(_check_distilled, plan, run)
        job = run.dataset, f"evaluate {name}"
        yield job, paths.evaluation, partial(_check_evaluation, plan, run)

    for key, ipc in privacy_plan.yardsticks(plan):
        check = partial(
            TensorFile, plan.yardstick(key, ipc), privacy_plan.yardstick_spec(plan, key, ipc)
        )
        yield (key, "yardstick"), plan.yardstick(key, ipc), check
    for run in privacy_plan.exposed(plan):
        job = run.dataset, "privacy"
        yield job, plan.paths(run).privacy, partial(_check_privacy, plan, run)


def _check_distilled(plan: Plan, run: Run) -> None:
    TensorFile(plan.paths(run).distilled, plan.spec(run))


def _check_evaluation(plan: Plan, run: Run) -> None:
    _check_table(plan.paths(run).evaluation, plan.judged_spec(run))


def _check_privacy(plan: Plan, run: Run) -> None:
    _check_table(plan.paths(run).privacy, privacy_plan.privacy_spec(plan, run))


def _check_table(path: Path, spec: dict[str, Any]) -> None:
    if read_metadata(path) != json.loads(canonical_json(spec)):
        raise ValueError(f"{path}: was made under another spec")


def _passes(check: Callable[[], Any]) -> bool:
    try:
        check()
    except ValueError:
        return False
    return True
