"""One trial: the very distillation of the stages, telling its validation accuracy at each rung."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
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
from iadd.pipeline.processes import die_after
from iadd.search.storage import RUNNING, State, Trial
from iadd.seeds import Seeds

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
    def state(self) -> State:
        state = self.plan.search_state(self.dataset, self.method, self.ipc)
        return State(Path(self.folder) / state)

    @property
    def progress_file(self) -> Path:
        """Where the search says how far it is while it runs."""
        place = f"{self.dataset}-{self.method}-ipc{self.ipc}"
        return Path(self.folder) / self.plan.progress_file("search", place)

    def params(self, settings: dict[str, Any]) -> Any:
        return self.plan.config.params(self.method, self.ipc, settings)

    def seeds(self, *stage: object) -> Seeds:
        """A trial's randomness: never that of a run of the benchmark, the same for all trials."""
        return Seeds((self.plan.config.seed, self.dataset, self.ipc, *stage))


@functools.lru_cache(maxsize=1)
def _problem(task: Task) -> methods.Problem:
    """Data and experts, once a worker process; experts are memory-mapped, so once a node."""
    os.chdir(task.folder)
    torch.set_num_threads(devices.threads())
    # Ray has made its share of the cards visible: the first of these is the trial's.
    device = devices.choose("auto" if task.plan.config.search.gpus else "cpu")
    return stages.problem(task.plan, task.dataset, task.method, task.ipc, device)


@functools.cache
def _end_with_raylet() -> None:
    """Once a worker process: it ends with Ray's server on its node, which is its parent."""
    if sys.platform == "linux":  # elsewhere it notices itself, some ten seconds later
        die_after(os.getppid())


def trainable(proposal: dict[str, Any], task: Task) -> None:
    """What Ray Tune runs: one trial; a module-level function of plain data."""
    from ray.tune import report

    _end_with_raylet()
    os.chdir(task.folder)
    here = place()
    measure(task, proposal, lambda result: report(result | here))


def place() -> dict[str, Any]:
    """Where Ray has put this process: device and node."""
    from ray import get_gpu_ids, get_runtime_context

    cards = ",".join(map(str, get_gpu_ids()))
    node = str(get_runtime_context().get_node_id())
    return {"device": f"cuda:{cards}" if cards else "cpu", "node": node}


def measure(task: Task, proposal: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    """Run a trial, or what is left of it, reporting each rung; `report` may raise to stop.

    What was measured before a kill is told again from the checkpoint, not measured again.

    Args:
        proposal: number, settings, and the seconds that earlier attempts took.
        report: hears iteration, measured and best accuracy, seconds of work so far, status.
    """
    rungs = task.plan.config.search.rungs
    params = task.params(proposal["settings"] | {"validations": rungs})
    began, best, last = time.perf_counter() - proposal["seconds"], 0.0, 1

    def tell(iteration: int, accuracy: float | None, status: str) -> None:
        measured = {"iteration": iteration, "measured": accuracy, "accuracy": best}
        report(measured | {"seconds": time.perf_counter() - began, "status": status})

    def rung(iteration: int, accuracy: float) -> None:
        nonlocal best, last
        best, last = max(best, accuracy), iteration
        tell(iteration, accuracy, "ok" if iteration >= params.updates else RUNNING)

    result = _distill(task, params, "search", task.state.checkpoint(proposal["number"]), rung)
    if result.status != "ok":
        tell(last, None, result.status)


def confirm(task: Task, trial: Trial) -> Trial:
    """Distill a finalist's settings anew, judge the result by many validation networks."""
    _end_with_raylet()
    config, began, stage = task.plan.config, time.perf_counter(), f"confirm{trial.seed}"
    params = task.params(trial.settings)
    result = _distill(task, params, stage, task.state.checkpoint(trial.key), None)
    validation = stages.validation_of(config)
    judging = dataclasses.replace(validation, networks=config.search.confirm_networks)
    judge = probe(_problem(task), judging, task.seeds(stage, "judge"))
    accuracy = judge(*result.decoded(), result.step_size)
    status = CONFIRMED if result.status == "ok" else result.status
    rungs = [[result.trace[-1]["iteration"], accuracy, time.perf_counter() - began]]
    return dataclasses.replace(trial, rungs=rungs, status=status, **place())


def _distill(
    task: Task,
    params: Any,
    stage: str,
    checkpoint: Path,
    report: Callable[[int, float], None] | None,
) -> methods.Distilled:
    spec = task.plan.search_spec(task.dataset, task.method, task.ipc)
    spec = {key: value for key, value in spec.items() if key not in ("budget", "points", "search")}
    return run_distillation(
        _problem(task),
        task.plan.config.method(task.method),
        params,
        task.seeds(stage),
        stages.validation_of(task.plan.config),
        spec=spec | {"params": params.model_dump(mode="json"), "stage": stage},
        checkpoint=checkpoint,
        report=report,
    )
