"""Which jobs of a benchmark are left: their file is missing or was made under another spec."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from iadd.artifacts import TensorFile, canonical_json, counted
from iadd.leaderboard.results import read_metadata
from iadd.pipeline import privacy_plan
from iadd.pipeline.plan import Plan, Run
from iadd.pipeline.tables import current

Stage = tuple[str, str]
"""Data set and stage, as `iadd plan` names them."""


@dataclass(frozen=True)
class Job:
    """One job of the workflow: its rule, which of them (`place`), its file, and what raises
    ValueError where that is another's."""

    rule: str
    place: str
    stage: Stage
    path: Path
    check: Callable[[], Any]
    wildcards: dict[str, str]

    @property
    def done(self) -> bool:
        """Whether its file is there and was made under the present spec."""
        return self.path.exists() and _passes(self.check)


def remaining(plan: Plan) -> tuple[Counter[Stage], int]:
    """How many jobs of each kind are left, and how many will replace what other settings made."""
    left: Counter[Stage] = Counter((key, "data") for key in plan.stale_data())
    replaced = 0
    for job, done in looked_at(plan):
        if not done:
            left[job.stage] += 1
            replaced += job.path.exists()
    if left.total() or not tables_done(plan):
        left["all", "collect and site"] = 2
    return left, replaced


def replacing(benchmark: str, replaced: int) -> str:
    """One line on results that a run of a benchmark will replace."""
    return (
        f"{counted(replaced, 'result{s}')} of other settings, data or code will be replaced; under "
        f"another name than `benchmark: {benchmark}` nothing would be lost"
    )


def tables_done(plan: Plan) -> bool:
    """Whether the tables are those of the present settings and data."""
    return _passes(lambda: current(plan))


def looked_at(plan: Plan) -> list[tuple[Job, bool]]:
    """Every job between the data and the tables, and whether it is done.

    Experts whose file was deleted are not left where nothing is left that would read it.
    """
    found = [(job, job.done) for job in jobs(plan)]
    reading = {job.stage[0] for job, done in found if not done and job.rule != "experts"}

    def unread(job: Job) -> bool:
        return job.rule == "experts" and job.stage[0] not in reading and not job.path.exists()

    return [(job, done or unread(job)) for job, done in found]


def jobs(plan: Plan) -> Iterator[Job]:
    """Every job between the data and the tables."""
    for dataset in plan.config.datasets:
        for recipe in plan.recipes:
            if plan.config.experts.named(recipe).imported:  # no job makes them
                continue
            code, stage = {"source": plan.experts_source()}, (dataset.key, f"experts {recipe}")
            for k, shard in enumerate(plan.shards(dataset.key, recipe)):
                wildcards = {"folder": shard.parent.name, "shard": str(k)}
                place = f"{shard.parent.name}/{shard.stem}"
                made = partial(TensorFile, shard, code)
                yield Job("experts", place, stage, shard, made, wildcards)
    for search in plan.searches():
        found = plan.winner(*search)
        wildcards = dict(zip(("dataset", "method", "ipc"), map(str, search), strict=True))
        stage, read = (search[0], f"search {search[1]}"), partial(plan.read_winner, *search)
        yield Job("search", found.stem, stage, found, read, wildcards)
    for run in plan.runs():
        paths, name = plan.paths(run), run.method + ", tuned" * run.tuned
        for rule, path, of in (
            ("distill", paths.distilled, _check_distilled),
            ("evaluate", paths.evaluation, _check_evaluation),
        ):
            stage = run.dataset, f"{rule} {name}"
            yield Job(rule, run.place, stage, path, partial(of, plan, run), _wildcards(run))
    yield from _privacy_jobs(plan)


def _privacy_jobs(plan: Plan) -> Iterator[Job]:
    for key, ipc in privacy_plan.yardsticks(plan):
        path, wildcards = plan.yardstick(key, ipc), {"dataset": key, "ipc": str(ipc)}
        check = partial(_check_yardstick, plan, key, ipc)
        yield Job("yardstick", f"{key}/ipc{ipc}", (key, "yardstick"), path, check, wildcards)
    for run in privacy_plan.exposed(plan):
        stage, path = (run.dataset, "privacy"), plan.paths(run).privacy
        check = partial(_check_privacy, plan, run)
        yield Job("privacy", run.place, stage, path, check, _wildcards(run))


def _wildcards(run: Run) -> dict[str, str]:
    names = {"dataset": run.dataset, "method": run.method, "ipc": str(run.ipc)}
    return names | {"seed": str(run.seed), "tuned": "-tuned" if run.tuned else ""}


def _check_distilled(plan: Plan, run: Run) -> None:
    TensorFile(plan.paths(run).distilled, plan.spec(run))


def _check_evaluation(plan: Plan, run: Run) -> None:
    _check_table(plan.paths(run).evaluation, plan.judged_spec(run))


def _check_yardstick(plan: Plan, key: str, ipc: int) -> None:
    TensorFile(plan.yardstick(key, ipc), privacy_plan.yardstick_spec(plan, key, ipc))


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
