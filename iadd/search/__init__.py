"""Hyper-parameter search by Ray Tune and Optuna: the only package that imports either.

A trial is the very distillation that the stages run, judged on validation data alone. Optuna
proposes and keeps the trials, Ray Tune runs them across cards and nodes and stops the hopeless.
Because a few hundred validation images are noisy, and the best of many noisy measurements is
flattered, the best trials and the default are distilled anew under fresh seeds and judged by more
networks before one of them is named the winner: by the same measure, the winner is never worse
than the default.

A search that was killed loses no finished trial and runs none twice. With one worker it proposes
the same trials and ends with the same winner as one that was not. With several, what Optuna knows
when it proposes depends on which trial ends first: the trials may then differ from run to run.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import torch

from iadd import methods
from iadd.artifacts import canonical_json
from iadd.pipeline import stages
from iadd.pipeline.config import Config
from iadd.pipeline.demands import job_bytes
from iadd.pipeline.plan import Plan, Run
from iadd.search.cluster import cluster
from iadd.search.trial import Task
from iadd.search.winner import judge, write

__all__ = ["search"]


def search(
    plan: Plan,
    dataset: str,
    method: str,
    ipc: int,
    *,
    workers: int | None = None,
    address: str | None = None,
) -> Path:
    """Find a method's parameters; writes the winner (JSON), its trials (Parquet) and a picture.

    Args:
        plan: of a benchmark whose `search.methods` names the method.
        workers: trials side by side; default: the benchmark's. On a cluster this may be all nodes.
        address: a Ray cluster, host:port or `auto`; None: a runtime of our own.

    Raises:
        ValueError: the method is not tuned here; no experts; the address does not answer; the
            resources do not exist; ray or optuna is not installed.
    """
    config, wanted = plan.config, plan.config.search
    stages.check_run(config, Run(dataset, method, ipc, 0, tuned=True))
    _check_installed()
    workers = workers or wanted.workers
    text = canonical_json(config.model_dump(mode="json"))
    task = Task(text, str(Path.cwd()), dataset, method, ipc)
    state, space = task.state, config.space(method, ipc)
    points = config.points(method, ipc)
    plain = config.model_copy(update={"precision": Config.model_fields["precision"].default})
    problem = stages.problem(Plan(plain), dataset, method, ipc)  # what is missing shows in one line
    config.kind(method)(config.params(method, ipc), problem)
    resources = _resources(plan, problem)
    with state.lock():
        spec = plan.search_spec(dataset, method, ipc)
        state.claim({key: value for key, value in spec.items() if key != "budget"})
        share = workers * wanted.cpus, torch.cuda.device_count()
        with cluster(state.folder, *share, address) as there, state.writing():
            from iadd.search.tune import run_trials

            _check_room(resources, there)
            run_trials(task, state, space, points, resources, workers)
            finalists = judge(task, state, points[0], resources)
        return write(task, state, space, finalists)


def _check_installed() -> None:
    for needed in ("ray", "optuna"):
        if importlib.util.find_spec(needed) is None:
            raise ValueError(f"{needed} is not installed here: pip install 'iadd[search]'")


def _resources(plan: Plan, problem: methods.Problem) -> dict[str, float]:
    """What Ray counts a trial as; memory keeps trials from being packed until they run out."""
    wanted, images = plan.config.search, problem.dataset.train.images
    data = math.prod(images.shape) * images.dtype.itemsize
    peak = (wanted.memory_mb or 0) * 2**20
    peak = peak or job_bytes(data, problem.network, card=wanted.gpus > 0)
    resources = {"cpu": wanted.cpus, "memory": float(peak)}
    if wanted.gpus:
        share = wanted.gpus
        if torch.cuda.is_available() and wanted.memory_mb:
            card = torch.cuda.get_device_properties(0).total_memory
            share = max(share, min(1.0, round(peak / card, 4)))
        resources["gpu"] = share
    return resources


def _check_room(resources: dict[str, float], there: dict[str, Any]) -> None:
    """A trial that fits nowhere would wait for ever."""
    for ours, theirs in (("cpu", "CPU"), ("gpu", "GPU"), ("memory", "memory")):
        if resources.get(ours, 0) > there.get(theirs, 0):
            raise ValueError(
                f"a trial asks for {resources[ours]:g} {ours}, Ray has {there.get(theirs, 0):g}"
            )
