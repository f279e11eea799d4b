"""What is tried next: a function of the search's names, the trial's number and earlier results."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iadd.methods import Space
from iadd.pipeline.search_space import SearchConfig
from iadd.seeds import seed_for

if TYPE_CHECKING:
    from optuna.trial import BaseTrial, FrozenTrial

STARTUP = 8
"""Trials before TPE has seen enough to propose; until then settings are drawn at random."""
DIGITS = 4
"""Significant digits of a proposed float: more would say nothing, and read badly."""


def with_grid(
    points: list[dict[str, Any]], method: str, space: Space, search: SearchConfig
) -> list[dict[str, Any]]:
    """The first points, and those of the grid where one is asked for; ValueError if too many."""
    if search.searcher != "grid":
        return points
    axes = [_grid(over, search.grid) for over in space.values()]
    count = math.prod(map(len, axes))
    if count > search.trials:
        raise ValueError(
            f"search.trials: the grid of {method} has {count} points, "
            f"{search.trials} trials are allowed; fewer parameters, choices or more trials"
        )
    grid = [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]
    return points + [point for point in grid if point not in points]


def _grid(over: Any, count: int) -> list[Any]:
    if isinstance(over, list):
        return over
    kind, low, high = over
    if kind == "log":
        ratio = math.log(high / low) / (count - 1)
        return [low, *(low * math.exp(ratio * k) for k in range(1, count - 1)), high]
    values = [low + (high - low) * k / (count - 1) for k in range(count)]
    return sorted({round(v) for v in values}) if kind == "int" else values


def propose(
    names: tuple[object, ...],
    searcher: str,
    space: Space,
    points: Sequence[dict[str, Any]],
    trials: Sequence[FrozenTrial],
) -> FrozenTrial:
    """The next trial, ready to be added to a study as running.

    The sampler is made anew from the trial's number, so that a search that was killed proposes
    what it would have proposed, however often it was resumed.

    Args:
        names: what the search's randomness is made from.
        points: settings of the first trials.
        trials: all earlier ones, whether they have ended or not.
    """
    import optuna

    number = len(trials)
    seed = seed_for(*names, "propose", number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of features that Optuna calls experimental
        sampler: Any = optuna.samplers.RandomSampler(seed=seed)
        if searcher == "tpe":  # running trials count as bad, or all workers would try the same
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=STARTUP, constant_liar=True
            )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(trials)
        if number < len(points):
            study.enqueue_trial(points[number])
        trial = study.ask()
        suggest(trial, space)
    params, over = trial.params, trial.distributions
    if number >= len(points):
        params = {name: _cut(value, over[name]) for name, value in params.items()}
    running = optuna.trial.TrialState.RUNNING
    return optuna.trial.create_trial(state=running, params=params, distributions=over)


def suggest(trial: BaseTrial, space: Space) -> None:
    """Have a trial draw a value of every parameter."""
    for name, over in space.items():
        if isinstance(over, list):
            trial.suggest_categorical(name, over)
        elif over[0] == "int":
            trial.suggest_int(name, *over[1:])
        else:
            trial.suggest_float(name, *over[1:], log=over[0] == "log")


def _cut(value: Any, over: Any) -> Any:
    """A float cut to DIGITS, unless that would leave its range."""
    if not isinstance(value, float):
        return value
    short = float(f"{value:.{DIGITS}g}")
    return short if over.low <= short <= over.high else value
