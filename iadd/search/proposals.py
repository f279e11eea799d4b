"""What is tried next: a function of the search's names, the trial's number and earlier results."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iadd.methods import Space
from iadd.seeds import seed_for

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STARTUP = 8
"""Trials before TPE has seen enough to propose; until then settings are drawn at random."""
DIGITS = 4
"""Significant digits of a proposed float: more would say nothing, and read badly."""


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """A search space in Optuna's terms."""
    from optuna import distributions as optuna

    def one(over: Any) -> BaseDistribution:
        if isinstance(over, list):
            return optuna.CategoricalDistribution(over)
        kind, low, high = over
        if kind == "int":
            return optuna.IntDistribution(low, high)
        return optuna.FloatDistribution(low, high, log=kind == "log")

    return {name: one(over) for name, over in space.items()}


def propose(
    names: tuple[object, ...],
    searcher: str,
    space: Space,
    points: Sequence[Mapping[str, Any]],
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

    number, over = len(trials), distributions(space)
    if number < len(points):
        params = dict(points[number])
    else:
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
            params = study.ask(over).params
        params = {name: _cut(value, over[name]) for name, value in params.items()}
    running = optuna.trial.TrialState.RUNNING
    return optuna.trial.create_trial(state=running, params=params, distributions=over)


def _cut(value: Any, over: Any) -> Any:
    """A float cut to DIGITS, unless that would leave its range."""
    if not isinstance(value, float):
        return value
    short = float(f"{value:.{DIGITS}g}")
    return short if over.low <= short <= over.high else value
