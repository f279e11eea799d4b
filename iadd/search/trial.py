"""One trial: the very distillation of the stages, telling its validation accuracy at each rung."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from iadd import devices, methods
from iadd.api import probe, run_distillation
from iadd.pipeline import stages
from iadd.pipeline.config import parse_config
from iadd.pipeline.plan import Plan
from iadd.search.journal import Entry, Journal
from iadd.seeds import Seeds

Report = Callable[[int, float], None]
CONFIRMED = "confirmed"


class Task(NamedTuple):
    """What all trials of a search share, as plain text that travels to any node."""

    config: str
    """The benchmark as JSON."""
    folder: str
    """The folder that the plan's paths are relative to; absolute, on storage all nodes share."""
    dataset: str
    method: str
    ipc: int

    @property
    def plan(self) -> Plan:
        return Plan(parse_config(json.loads(self.config), "search"))

    @property
    def journal(self) -> Journal:
        state = self.plan.search_state(self.dataset, self.method, self.ipc)
        return Journal(Path(self.folder) / state)

    def names(self, stage: str) -> tuple[object, ...]:
        """What a trial's randomness is made from; never that of a run of the benchmark."""
        return self.plan.config.seed, self.dataset, self.method, self.ipc, stage


@functools.lru_cache(maxsize=1)
def _problem(task: Task) -> methods.Problem:
    """Data and experts, once a worker process; experts are memory-mapped, so once a node."""
    os.chdir(task.folder)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    # Ray has made its share of the cards visible: the first of these is the trial's.
    device = devices.choose("auto" if task.plan.config.search.gpus else "cpu")
    return stages.problem(task.plan, task.dataset, task.method, task.ipc, device)


def settings_of(task: Task, point: dict[str, Any]) -> dict[str, Any]:
    """A point as it is used: floats cut to four digits, but for the default's own values."""
    default = task.plan.config.params(task.method, task.ipc)
    return {
        name: float(f"{value:.4g}")
        if isinstance(value, float) and value != getattr(default, name)
        else value
        for name, value in sorted(point.items())
    }


def attempt(task: Task, entry: Entry, report: Report) -> None:
    """Run a trial, or what is left of it; `report` hears (iteration, best accuracy so far).

    What was measured before a kill is told again, not measured again. `report` may raise to stop.
    """
    journal, search = task.journal, task.plan.config.search
    for row in [*entry.rows]:
        before = (r["accuracy"] for r in entry.rows if r["iteration"] <= row["iteration"])
        report(row["iteration"], max(before))
    if entry.finished:
        if not entry.rows:
            report(1, 0.0)
        return
    entry.start()
    journal.write(entry)
    began, spent = time.perf_counter(), entry.seconds
    params = task.plan.config.params(
        task.method, task.ipc, entry.settings | {"validations": search.rungs}
    )
    total: int = params.updates  # type: ignore[attr-defined]

    def rung(iteration: int, accuracy: float) -> None:
        if iteration <= entry.iteration:
            return
        entry.add(iteration, accuracy, spent + time.perf_counter() - began)
        entry.status = "ok" if iteration >= total else entry.status
        journal.write(entry)
        report(iteration, entry.best)

    result = _distill(task, entry, params, "search", rung)
    if entry.status != "ok":
        entry.status = result.status
        journal.write(entry)
        report(max(entry.iteration, 1), entry.best)


class _Reached(Exception):
    """A member is where the others are waited for."""


def advance(task: Task, entry: Entry, rung: int) -> Entry:
    """Take a member of a population to a rung, from wherever its checkpoint is."""
    entry = task.journal.read(entry.key) or entry  # a lost attempt came further than we know

    def tell(iteration: int, accuracy: float) -> None:
        if iteration >= rung:
            raise _Reached

    place(entry)
    with contextlib.suppress(_Reached):
        attempt(task, entry, tell)
    entry.rested = True
    task.journal.write(entry)
    return entry


def place(entry: Entry) -> None:
    """Note where Ray has put a trial."""
    from ray import get_gpu_ids, get_runtime_context

    cards = ",".join(map(str, get_gpu_ids()))
    entry.device = f"cuda:{cards}" if cards else "cpu"
    entry.node = str(get_runtime_context().get_node_id())


def confirm(task: Task, entry: Entry) -> Entry:
    """Distill a finalist's settings anew, judge the result by many validation networks."""
    journal, config = task.journal, task.plan.config
    entry = journal.read(entry.key) or entry
    if entry.finished:
        return entry
    entry.start()
    journal.write(entry)
    began = time.perf_counter()
    params = config.params(task.method, task.ipc, entry.settings)
    stage = f"confirm{entry.seed}"
    result = _distill(task, entry, params, stage, None)
    more = config.validation.model_copy(update={"networks": config.search.confirm_networks})
    judging = config.model_copy(update={"validation": more})
    seeds = Seeds(task.names(f"{stage} judge"))
    judge = probe(_problem(task), stages.validation_of(judging), seeds)
    accuracy = judge(result.images, result.labels, result.step_size)
    entry.add(result.trace[-1]["iteration"], accuracy, time.perf_counter() - began)
    entry.status = CONFIRMED if result.status == "ok" else result.status
    journal.close(entry, entry.status)
    journal.write(entry)
    return entry


def _distill(
    task: Task, entry: Entry, params: Any, stage: str, rung: Report | None
) -> methods.Distilled:
    plan = task.plan
    spec = plan.search_spec(task.dataset, task.method, task.ipc)
    spec = {key: value for key, value in spec.items() if key not in ("budget", "points", "search")}
    return run_distillation(
        _problem(task),
        task.method,
        params,
        Seeds(task.names(stage)),
        stages.validation_of(plan.config),
        spec=spec | {"params": params.model_dump(mode="json"), "stage": stage},
        checkpoint=task.journal.checkpoint(entry.key),
        report=rung,
    )
