"""The winner of a search: the best trials and the default, judged anew; what is written of it."""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from iadd.artifacts import SPEC_VERSION, atomic_write, canonical_json
from iadd.methods import Space
from iadd.pipeline.winner import sealed
from iadd.progress import Progress
from iadd.search.storage import RUNNING, State, Trial
from iadd.search.trial import CONFIRMED, Task

T = TypeVar("T")
BLANK = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII="
)
"""A picture of one pixel, where none could be drawn: the workflow waits for the file."""


def contenders(trials: list[Trial], default: dict[str, Any], count: int) -> list[Trial]:
    """The default, then the best trials that ran to their end (or nearly), best first."""
    able = [t for t in trials if t.rungs and t.status != "failed" and t.settings != default]
    able.sort(key=lambda trial: (trial.status != "ok", -trial.best, trial.number))
    distinct: dict[str, Trial] = {}
    for trial in able:
        distinct.setdefault(canonical_json(trial.settings), trial)
    return [Trial(0, default), *list(distinct.values())[:count]]


def judge(
    task: Task, state: State, default: dict[str, Any], resources: dict[str, float]
) -> list[list[Trial]]:
    """Distill each contender anew under fresh seeds and judge it by more networks, once each.

    Gives the further distillations of each contender, the default's first.
    """
    from iadd.search.tune import run_confirmations

    search, known = task.plan.config.search, state.confirmed()
    finalists = [
        [Trial(t.number, t.settings, seed=seed) for seed in range(1, search.confirm_seeds + 1)]
        for t in contenders(state.trials(), default, search.finalists)
    ]
    waiting = [t for again in finalists for t in again if t.key not in known]
    with Progress(
        f"confirm {task.method} {task.dataset} ipc {task.ipc}", task.progress_file
    ) as progress:
        for done, trial in enumerate(run_confirmations(task, waiting, resources), 1):
            known[trial.key] = trial
            if trial.status != "failed":
                state.confirm(trial)
            progress(done, len(waiting), f"{trial.best:.3f}")
    return [[known[t.key] for t in again] for again in finalists]


def verdict(task: Task, trials: list[Trial], finalists: list[list[Trial]]) -> dict[str, Any]:
    """The winner and its evidence, plain data. Ties go to the earlier: the default is the first."""
    judged = []
    for again in finalists:
        scores = [t.best for t in again if t.status in (CONFIRMED, "diverged")]
        whole = len(scores) == len(again)  # else it could not be distilled every time
        judged.append(
            {
                "trial": again[0].number,
                "settings": again[0].settings,
                "accuracies": scores,
                "mean": sum(scores) / len(scores) if whole else 0.0,
            }
        )
    best: dict[str, Any] = max(judged, key=lambda finalist: finalist["mean"])
    params = task.params(best["settings"])
    spent = sum(t.iteration for t in trials)
    return {
        "trial": best["trial"],
        "settings": best["settings"],
        "params": params.model_dump(mode="json"),
        "validation": {"winner": best, "default": judged[0], "finalists": judged},
        "evidence": {
            "trials": len(trials),
            "statuses": dict(sorted(Counter(t.status for t in trials).items())),
            "iterations": spent,
            "iterations_share": spent / max(1, len(trials) * params.updates),
            "seconds": sum(t.seconds for t in trials),
            "confirm_seconds": sum(t.seconds for again in finalists for t in again),
        },
    }


def write(task: Task, state: State, space: Space, finalists: list[list[Trial]]) -> Path:
    """Write the winner, then all trials, and last a picture, which may fail."""
    from iadd.leaderboard.results import write_table
    from iadd.leaderboard.rows import TRIALS
    from iadd.search.figure import importance, picture

    plan, run = task.plan, (task.dataset, task.method, task.ipc)
    out, spec = plan.winner(*run), plan.search_spec(*run)
    trials = [
        dataclasses.replace(trial, status="stopped") if trial.status == RUNNING else trial
        for trial in state.trials()  # whatever still runs was cut off by the budget
    ]
    winner = {"spec": spec, **verdict(task, trials, finalists)}
    nothing: dict[str, float] = {}
    winner["importance"] = _tried("importances", lambda: importance(trials, space), nothing)
    winner = sealed(winner)
    atomic_write(out, (json.dumps(winner, indent=1, sort_keys=True) + "\n").encode())
    confirmed = [trial for again in finalists for trial in again]
    write_table(rows(task, trials + confirmed), plan.trials(*run), TRIALS, {"spec": spec})
    title = f"{task.method} on {task.dataset}, ipc {task.ipc}"
    image = _tried("picture", lambda: picture(title, trials, space), BLANK)
    atomic_write(out.with_suffix(".png"), image)
    found, default = winner["validation"]["winner"], winner["validation"]["default"]
    print(
        f"{out}: trial {winner['trial']} of {len(trials)}, validation accuracy "
        f"{found['mean']:.4f}, default {default['mean']:.4f}; "
        f"{100 * winner['evidence']['iterations_share']:.0f} % of the full search's iterations"
    )
    return out


def _tried(what: str, make: Callable[[], T], otherwise: T) -> T:
    """What is nice to have of a search must not cost its winner."""
    try:
        return make()
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        print(f"warning: the search has no {what}: {reason[0]}", file=sys.stderr)
        return otherwise


def rows(task: Task, trials: list[Trial]) -> list[Any]:
    """Trials as rows of their table, one a rung; one without accuracy if it reached none."""
    from iadd.leaderboard.rows import TrialRow

    return [
        TrialRow(
            benchmark=task.plan.config.benchmark,
            dataset=task.dataset,
            method=task.method,
            ipc=task.ipc,
            trial=trial.number,
            config=canonical_json(trial.settings),
            rung=rung,
            iteration=iteration,
            validation_accuracy=accuracy,
            seconds=seconds,
            device=trial.device,
            status=trial.status,
            seed=trial.seed,
            spec_version=SPEC_VERSION,
        )
        for trial in trials
        for rung, (iteration, accuracy, seconds) in enumerate(trial.rungs or [[0, None, 0.0]])
    ]
