"""Ray Tune runs the trials that Optuna proposes, on whatever cards and nodes there are."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule
from ray.tune.search import Searcher

from iadd.methods import Space
from iadd.progress import Progress
from iadd.search.proposals import propose
from iadd.search.storage import FULL, RUNNING, State, Trial, trial_of
from iadd.search.trial import Task, confirm, trainable

METRIC = "accuracy"


def run_trials(
    task: Task,
    state: State,
    space: Space,
    points: list[dict[str, Any]],
    resources: dict[str, float],
    workers: int,
    rounds: int | None = None,
) -> None:
    """Run all trials of a search that have not ended; those that were cut off go on first.

    `rounds`: how often Ray's mistakes are made good; default: as often as a trial is tried again.
    """
    search, known = task.plan.config.search, state.trials()
    ended = [trial for trial in known if trial.status != RUNNING]
    spent = sum(trial.seconds for trial in known) / workers
    if len(ended) >= search.trials or (search.seconds is not None and spent >= search.seconds):
        return
    storage = state.folder / "ray"  # never read again: what counts is in Optuna's storage
    shutil.rmtree(storage, ignore_errors=True)  # a killed search left it
    rounds = search.retries if rounds is None else rounds
    with Progress(
        f"search {task.method} {task.dataset} ipc {task.ipc}", task.progress_file
    ) as progress:
        recorder = _Recorder(state, search.trials, progress)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, task=task), resources),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(task, state, space, points),
                scheduler=scheduler_of(task, ended),
                num_samples=search.trials - len(ended),
                max_concurrent_trials=workers,
                reuse_actors=True,  # a worker imports torch and opens the data once
                time_budget_s=search.seconds and max(1.0, search.seconds - spent),
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(storage),
                failure_config=tune.FailureConfig(max_failures=search.retries),
                stop=_CardHours(search.gpu_hours, resources.get("gpu", 0.0), known),
                callbacks=[recorder],
                verbose=0,
            ),
        )
        tuner.fit()
    shutil.rmtree(storage, ignore_errors=True)
    if recorder.given_up and rounds:
        run_trials(task, state, space, points, resources, workers, rounds - 1)


class _Proposals(Searcher):
    """Gives Ray the trials that were cut off, then what Optuna proposes."""

    def __init__(
        self, task: Task, state: State, space: Space, points: list[dict[str, Any]]
    ) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.study, self.kind = state.study, task.plan.config.search.searcher
        self.names = (*task.seeds("search").names, task.plan.config.method(task.method))
        self.space, self.points = space, points
        self.cut_off = [t.number for t in state.study.trials if not t.state.is_finished()]

    def suggest(self, trial_id: str) -> dict[str, Any]:
        trials = self.study.trials
        if not self.cut_off:
            next_one = propose(self.names, self.kind, self.space, self.points, trials)
            self.study.add_trial(next_one)
            self.cut_off.append(len(trials))
        trial = trial_of(self.study.trials[self.cut_off.pop(0)])
        return {"number": trial.number, "settings": trial.settings, "seconds": trial.seconds}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The recorder keeps what Optuna learns from."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: all is in Optuna's storage."""

    restore = save


class _Recorder(tune.Callback):
    """Writes what Ray's trials report into Optuna's storage, and the progress line."""

    def __init__(self, state: State, count: int, progress: Progress) -> None:
        self.state, self.count, self.progress = state, count, progress
        self.given_up: list[int] = []
        """Trials that Ray did not try again though it should have: they are cut off, not failed."""

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        self.state.note(trial.config["number"], result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        status = (trial.last_result or {}).get("status", RUNNING)
        self.end(trial, "stopped" if status == RUNNING else status)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        if trial.should_recover():  # the death of a worker reached Ray twice
            self.given_up.append(trial.config["number"])
            return
        reason = (str(trial.get_error() or "").strip().splitlines() or ["lost"])[-1]
        if any(os.strerror(full) in reason for full in FULL):  # no fault of the trial's
            raise ValueError(reason.removeprefix("ValueError: "))
        print(f"trial {trial.config['number']} failed: {reason}", file=sys.stderr)
        self.end(trial, "failed")

    def end(self, trial: Any, status: str) -> None:
        self.state.end(trial.config["number"], status)
        trials = self.state.trials()
        done, best = sum(t.status != RUNNING for t in trials), max(t.best for t in trials)
        self.progress(done, self.count, f"best {100 * best:.1f} % on validation")


def scheduler_of(task: Task, ended: list[Trial]) -> Any:
    """Ray's own scheduler, told of the trials that ended before the search was resumed.

    ASHA lets a trial pass that is not below the upper `1 / reduction` of those before it. So the
    first ones pass for want of peers and equal accuracies all pass: more go on than that share.
    """
    search, end = task.plan.config.search, task.params({}).updates
    scheduler: Any
    if search.scheduler == "none":
        scheduler = FIFOScheduler
        return scheduler()
    first_rung = max(1, end // search.rungs)
    common = {"time_attr": "iteration", "metric": METRIC, "mode": "max", "grace_period": first_rung}
    if search.scheduler == "asha":  # max_t beyond the end: a trial that comes there is not stopped
        scheduler = ASHAScheduler(**common, max_t=end + 1, reduction_factor=search.reduction)
    else:
        scheduler = MedianStoppingRule(**common, min_samples_required=3)
    for trial in ended:
        past, result = _Past(trial.number), {METRIC: 0.0}
        scheduler.on_trial_add(past, past)
        for iteration, accuracy, _ in trial.rungs:
            result = {"iteration": iteration, METRIC: max(result[METRIC], accuracy)}
            scheduler.on_trial_result(past, past, result)
        if trial.rungs and trial.status != "stopped":  # Ray tells the last once more at the end
            scheduler.on_trial_result(past, past, result)
        scheduler.on_trial_complete(past, past, result)
    return scheduler


class _Past:
    """Stands for a trial that ended in an earlier process, and for the controller that had it."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"past{number}"

    def get_live_trials(self) -> list[Any]:
        return []


class _CardHours(tune.Stopper):
    """Stops everything once the trials have had their hours of card."""

    def __init__(self, hours: float | None, share: float, known: list[Trial]) -> None:
        self.hours, self.share = hours, share
        self.seconds = {trial.number: trial.seconds for trial in known}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.seconds[result["config"]["number"]] = result["seconds"]
        return False

    def stop_all(self) -> bool:
        spent = self.share * sum(self.seconds.values()) / 3600
        return self.hours is not None and spent >= self.hours


def run_confirmations(
    task: Task, trials: list[Trial], resources: dict[str, float]
) -> Iterable[Trial]:
    """Have Ray distill finalists anew, as many at once as fit; gives each back as it ends."""
    remote: Any = ray.remote(confirm).options(
        num_cpus=resources["cpu"],
        num_gpus=resources.get("gpu", 0),
        memory=resources["memory"],
        max_retries=task.plan.config.search.retries,
        retry_exceptions=True,
    )
    running = {remote.remote(task, trial): trial for trial in trials}
    while running:
        (job, *_), _ = ray.wait([*running])
        trial = running.pop(job)
        try:
            yield ray.get(job)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            print(f"trial {trial.number}, seed {trial.seed} failed: {reason}", file=sys.stderr)
            yield Trial(trial.number, trial.settings, status="failed", seed=trial.seed)
