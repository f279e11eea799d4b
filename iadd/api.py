"""The pipeline in Python, for notebooks and scripts, and the one way in which a distillation runs.

The pipeline's stages and the search call `run_distillation` too, so nothing is done twice or
differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from iadd import methods
from iadd.artifacts import counted, source_hash
from iadd.data import Dataset
from iadd.devices import threads
from iadd.evaluation import Teacher, Validation, validation_accuracy
from iadd.evaluation import evaluate as judge
from iadd.experts import Experts, expert_spec, named_recipe, record_shard
from iadd.methods import Distilled, Hooks, MethodParams, Problem
from iadd.networks import Network, build_network
from iadd.progress import Progress
from iadd.seeds import Seeds
from iadd.synthetic import SyntheticSet

Hearer = Callable[[int, int, str], None]
"""Hears (done, in all, a note) as work goes on."""


@contextmanager
def _working(title: str, given: Hearer | Literal[False] | None) -> Iterator[Hearer | None]:
    """Compute with as many threads as a job, and give who hears of progress: the given one; nobody
    (False); or the terminal (None)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    try:
        if given is None:
            with Progress(title) as shown:
                yield shown
        else:
            yield given or None
    finally:
        torch.set_num_threads(before)


def probe(
    problem: Problem, validation: Validation, seeds: Seeds
) -> Callable[[Any, Any, float | None], float]:
    """(images, labels, step size) -> accuracy on validation data, as the loop calls it."""
    return partial(
        validation_accuracy,
        dataset=problem.dataset,
        network=problem.network,
        validation=validation,
        seeds=seeds,
    )


def run_distillation(
    problem: Problem,
    method_name: str,
    params: MethodParams | Mapping[str, Any],
    seeds: Seeds,
    validation: Validation | None,
    *,
    spec: Mapping[str, Any],
    checkpoint: Path | None = None,
    progress: Hearer | None = None,
    report: Callable[[int, float], None] | None = None,
    observe: Callable[[Mapping[str, Any]], None] | None = None,
    keep_states: bool = False,
) -> Distilled:
    """Run one distillation; with a checkpoint, on from where it was killed.

    Args:
        params: the method's, as its `Params` or as plain data.
        seeds: the run's, named without its method.
        validation: the probe; without it, or without validation images, the last sound images are
            kept, unmeasured.
        spec: all that the result depends on: a checkpoint of any other spec is ignored.
        progress: hears (updates done, in all, a note); report: (updates, validation accuracy);
            observe: each row of the trace.
        keep_states: keep the state of every validation measurement too.
    """
    kind = methods.find(method_name)
    settings = params if isinstance(params, MethodParams) else kind.Params(**params)
    measuring = validation if len(problem.dataset.validation) else None
    hooks = Hooks(
        validate=probe(problem, measuring, seeds) if measuring else None,
        progress=progress,
        report=report,
        observe=observe,
        checkpoint=checkpoint,
        identity=spec,
        keep_states=keep_states,
    )
    return methods.distill(kind(settings, problem), seeds, hooks)


def network_for(dataset: Dataset, name: str) -> Network:
    """The named network for a data set's images."""
    return build_network(name, dataset.channels, dataset.resolution, dataset.classes)


def record_experts(
    dataset: Dataset,
    network: str,
    path: str | Path,
    *,
    count: int = 10,
    epochs: int = 20,
    seed: int = 0,
    recipe: str = "standard",
    progress: Hearer | Literal[False] | None = None,
    **settings: Any,
) -> Experts:
    """Train `count` expert trajectories into one file, or open the file if it is these already.

    Args:
        dataset: from `load_dataset`.
        network: a network's name, e.g. `convnet-d2-w32`.
        path: the safetensors file.
        count, epochs, seed: trajectories, epochs kept of each, base seed.
        recipe: one of `experts.RECIPES`; a method's `experts` says which one it wants.
        progress: hears (experts trained, in all, ""); None: it is shown on stderr, False: nowhere.
        settings: fields of `experts.Recipe` that differ (step_size, momentum, batch, ...).

    Raises:
        ValueError: the file holds other experts.
    """
    architecture, chosen = network_for(dataset, network), named_recipe(recipe, settings)
    path = Path(path)
    if not path.exists():
        with _working(f"experts {dataset.title}", progress) as heard:
            record_shard(
                dataset,
                architecture,
                chosen,
                epochs=epochs,
                experts=range(count),
                seed=seed,
                path=path,
                progress=heard,
            )
    found = Experts([path], expert_spec(dataset, architecture, chosen, epochs, seed))
    if found.count != count:
        raise ValueError(f"{path}: holds {counted(found.count, 'expert{s}')}, count is {count}")
    return found


def distill(
    method: str,
    dataset: Dataset,
    network: str,
    ipc: int,
    *,
    experts: Experts | None = None,
    seed: int = 0,
    validation: Validation | None = Validation(epochs=150),  # noqa: B008 (immutable)
    checkpoint: str | Path | None = None,
    progress: Hearer | Literal[False] | None = None,
    **params: Any,
) -> SyntheticSet:
    """Distill a data set by a named method; `params` are the method's own (see its `Params`).

    The images kept are those best on validation data. `experts` are needed by the methods that say
    so (`experts`). With a `checkpoint` file, a run that was killed goes on where it was. `progress`
    hears (updates done, in all, a note); None: it is shown on stderr, False: nowhere.
    """
    problem = Problem(dataset, network_for(dataset, network), ipc, experts)
    settings = methods.find(method).Params(**params)
    spec = {
        "kind": "distilled",
        "source": source_hash(sorted(Path(__file__).parent.rglob("*.py")))[:16],
        "fingerprint": dataset.fingerprint,
        "method": method,
        "params": settings.model_dump(mode="json"),
        "network": network,
        "ipc": ipc,
        "seed": seed,
        "experts": experts.identity if experts else None,
        "validation": vars(validation) if validation else None,
    }
    with _working(f"distill {method} {dataset.title} ipc {ipc}", progress) as heard:
        result = run_distillation(
            problem,
            method,
            settings,
            Seeds((0, dataset.name, ipc, seed)),
            validation,
            spec=spec,
            checkpoint=Path(checkpoint) if checkpoint else None,
            progress=heard,
        )
    return synthetic_set(problem, result, spec)


def synthetic_set(
    problem: Problem,
    result: Distilled,
    spec: Mapping[str, Any],
    run: Mapping[str, Any] | None = None,
    by_reference: bool = False,
) -> SyntheticSet:
    """The artifact of a run; `by_reference` keeps a selection's rows instead of its images."""
    costs = {
        "distill_seconds": result.seconds,
        "validation_seconds": result.validation_seconds,
        "iteration": result.iteration,
    }
    rows = result.rows if by_reference else None
    found = SyntheticSet(
        result.images[: None if rows is None else 0].cpu(),
        result.labels.cpu(),
        problem.dataset.transform,
        problem.dataset.class_names,
        result.step_size,
        dict(spec),
        result.status,
        costs | dict(run or {}),
        rows,
        None if rows is None else problem.dataset.fingerprint,
        result.decoding,
    )
    states = (
        replace(found, images=images.cpu(), labels=labels.cpu(), step_size=step_size)
        for images, labels, step_size in result.states
    )
    return replace(found, states=tuple(states))


def evaluate(
    synthetic: SyntheticSet,
    dataset: Dataset,
    networks: dict[str, int],
    *,
    protocol: str = "mtt-v1",
    epochs: int = 300,
    seed: int = 0,
    teacher: Teacher | None = None,
    progress: Hearer | Literal[False] | None = None,
) -> list[dict[str, Any]]:
    """Train and test fresh networks (name -> how many) on a distilled set; one dict a network.

    teacher: for a protocol that has one; `iadd.evaluation.teacher_of` makes one of an expert.
    progress: hears (networks judged, in all, a note); None: it is shown on stderr, False: nowhere.
    """
    seeds = Seeds((dataset.name, seed))
    how: Any = {"epochs": epochs, "seeds": seeds, "teacher": teacher}
    with _working(f"evaluate {dataset.title}", progress) as heard:
        return list(judge(synthetic, dataset, protocol, networks, progress=heard, **how))
