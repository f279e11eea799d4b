"""The search itself, by Ray Tune: proposing points, running trials, stopping the hopeless."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

from iadd.methods import Space
from iadd.pipeline.search_space import SearchConfig
from iadd.progress import Progress
from iadd.search.journal import RUNNING, Entry
from iadd.search.stopping import scheduler_of
from iadd.search.trial import Task, attempt, place, settings_of
from iadd.seeds import seed_for

METRIC = "accuracy"


def trainable(proposal: dict[str, Any], task: Task) -> None:
    """What Ray runs: one trial; a module-level function of plain data."""
    from ray.tune import report

    os.chdir(task.folder)
    entry = entry_of(task, proposal)
    entry = task.journal.read(entry.key) or entry
    if not entry.finished:
        place(entry)

    def tell(iteration: int, accuracy: float) -> None:
        spent = {"seconds": entry.seconds, "iteration": iteration}
        report({METRIC: accuracy, **spent})

    attempt(task, entry, tell)


def entry_of(task: Task, proposal: dict[str, Any]) -> Entry:
    """The blank trial of a proposal: its number and its point."""
    point = proposal["point"]
    return Entry(proposal["number"], point, settings_of(task, point))


def first_points(task: Task, space: Space, search: SearchConfig) -> list[dict[str, Any]]:
    """What is tried before the searcher proposes: the default, given recipes, the grid's points."""
    default = task.plan.config.params(task.method, task.ipc)
    base = {name: getattr(default, name) for name in space}
    points = [base]
    for recipe in search.points.get(task.method, []):
        for name in recipe:
            if name not in space:
                known = ", ".join(space)
                raise ValueError(
                    f"search.points.{task.method}: {name!r} is not searched; allowed: {known}"
                )
        points.append(base | recipe)
    if search.searcher == "grid":
        axes = [_grid(over, search.grid) for over in space.values()]
        count = math.prod(map(len, axes))
        if count > search.trials:
            raise ValueError(
                f"search.trials: the grid of {task.method} has {count} points, "
                f"{search.trials} trials are allowed; fewer parameters, choices or more trials"
            )
        points += [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]
    return points


def _grid(over: tuple[str, Any, Any] | list[Any], count: int) -> list[Any]:
    if isinstance(over, list):
        return over
    kind, low, high = over
    if kind == "log":
        ratio = math.log(high / low) / (count - 1)
        return [low, *(low * math.exp(ratio * k) for k in range(1, count - 1)), high]
    values = [low + (high - low) * k / (count - 1) for k in range(count)]
    return sorted({round(v) for v in values}) if kind == "int" else values


def distributions(space: Space) -> dict[str, Any]:
    """The space in Optuna's words."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    def one(over: tuple[str, Any, Any] | list[Any]) -> Any:
        if isinstance(over, list):
            return CategoricalDistribution(over)
        kind, low, high = over
        if kind == "int":
            return IntDistribution(low, high)
        return FloatDistribution(low, high, log=kind == "log")

    return {name: one(over) for name, over in space.items()}


def run_trials(task: Task, space: Space, resources: dict[str, float], workers: int) -> None:
    """All trials of a search, those of an earlier, killed one first: they only tell their rungs."""
    from ray import tune

    search, journal = task.plan.config.search, task.journal
    known = journal.entries()
    points = [entry.point for entry in known]
    new = [p for p in first_points(task, space, search) if p not in points]
    trials = len(points + new) if search.searcher == "grid" else search.trials
    points = (points + new)[:trials]
    spent = sum(entry.seconds for entry in known)
    over = search.seconds is not None and spent / workers >= search.seconds
    if over or (trials == len(known) and all(entry.finished for entry in known)):
        return
    storage = journal.folder / "ray"  # never read again: what counts is in the journal
    shutil.rmtree(storage, ignore_errors=True)
    with Progress(f"search {task.method} {task.dataset} ipc {task.ipc}") as progress:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, task=task), resources),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=_searcher(task, space, points, known),
                scheduler=scheduler_of(task),
                num_samples=trials,
                max_concurrent_trials=workers,
                reuse_actors=True,  # a worker imports torch and opens the data once
                time_budget_s=search.seconds and max(1.0, search.seconds - spent / workers),
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(storage),
                failure_config=tune.FailureConfig(max_failures=search.retries),
                stop=_budget(search, resources.get("gpu", 0.0)),
                callbacks=[_follow(task, trials, progress)],
                verbose=0,
            ),
        )
        tuner.fit()
    for entry in journal.entries():
        if entry.status == RUNNING:
            journal.close(entry, "stopped")  # by the budget
    shutil.rmtree(storage, ignore_errors=True)


def _searcher(task: Task, space: Space, points: list[dict[str, Any]], known: list[Entry]) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    class Numbered(OptunaSearch):
        """Gives each proposal its number; known trials come first and keep theirs."""

        numbers: Iterator[int]

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            point = super().suggest(trial_id)
            return point and {"number": next(self.numbers), "point": point}

    search = task.plan.config.search
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # A resumed search has a seed of its own, or it would propose again what it has proposed.
    seed = seed_for(*task.names("search"), len(known)) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler: Any = optuna.samplers.RandomSampler(seed=seed)
        if search.searcher == "tpe":
            startup = min(10, max(4, search.trials // 4))
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup, constant_liar=True
            )
        searcher = Numbered(
            distributions(space),
            metric=METRIC,
            mode="max",
            points_to_evaluate=points,
            sampler=sampler,
        )
    numbers = [entry.number for entry in known]
    searcher.numbers = itertools.chain(numbers, itertools.count(max(numbers, default=-1) + 1))
    return searcher


def _budget(search: SearchConfig, gpus: float) -> Any:
    """Stops everything once the trials have had their hours of card."""
    from ray.tune import Stopper

    class Hours(Stopper):
        def __init__(self) -> None:
            self.seconds: dict[str, float] = {}

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            self.seconds[trial_id] = result["seconds"]
            return False

        def stop_all(self) -> bool:
            hours = gpus * sum(self.seconds.values()) / 3600
            return search.gpu_hours is not None and hours >= search.gpu_hours

    return Hours()


def _follow(task: Task, trials: int, progress: Progress) -> Any:
    """Keeps the journal's statuses and the progress line as trials end."""
    from ray.tune import Callback

    journal = task.journal

    class Follow(Callback):
        done, best = 0, 0.0

        def on_trial_complete(self, trial: Any, **info: Any) -> None:  # type: ignore[override]
            self.end(trial, "stopped")

        def on_trial_error(self, trial: Any, **info: Any) -> None:  # type: ignore[override]
            reason = str(trial.get_error() or "").strip().splitlines()
            self.end(trial, "failed", reason[-1] if reason else "lost")

        def end(self, trial: Any, status: str, reason: str = "") -> None:
            blank = entry_of(task, trial.config)
            entry = journal.read(blank.key) or blank
            journal.close(entry, status, reason)
            self.best = max(self.best, entry.best)
            self.done += 1
            progress(self.done, trials, f"best {100 * self.best:.1f} % on validation")

    return Follow()
