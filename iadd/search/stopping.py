"""Who stops trials early: Ray's schedulers, and the share of trials that ASHA lets pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from iadd.search.trial import Task


@dataclass
class Quota:
    """How many trials may pass one rung: one in `reduction` of those that came, and records.

    Ray lets a trial pass that is in the upper part of those before it. So the first ones pass for
    want of peers, and later ones because a searcher learns and because a few hundred validation
    images give ties: a third passed instead of a quarter, at the next rung nearly all.
    """

    reduction: int
    came: int = 0
    passed: int = 0
    best: float = -math.inf

    def admits(self, value: float, good: bool) -> bool:
        """Note a trial's value; whether it passes, `good` being what Ray thinks of it."""
        self.came += 1
        room = self.passed < math.ceil(self.came / self.reduction)
        admitted = value > self.best or (good and room)
        self.best = max(self.best, value)
        self.passed += admitted
        return admitted


def first_rung(iterations: int, rungs: int) -> int:
    """The iteration of the first measurement: no trial is stopped before."""
    return max(1, iterations // rungs)


def milestones(iterations: int, rungs: int, reduction: int) -> list[int]:
    """The iterations at which ASHA decides: the first measurement's, then times `reduction`."""
    first = first_rung(iterations, rungs)
    count = int(math.log(iterations / first, reduction) + 1e-9) + 1
    return [first * reduction**k for k in range(count) if first * reduction**k < iterations]


def scheduler_of(task: Task) -> Any:
    """The benchmark's scheduler as Ray Tune takes it."""
    schedulers: Any = import_module("ray.tune.schedulers")
    search = task.plan.config.search
    iterations: int = task.plan.config.params(task.method, task.ipc).updates  # type: ignore[attr-defined]
    if search.scheduler == "asha":
        return _asha(schedulers, iterations, search.rungs, search.reduction)
    if search.scheduler == "median":
        return schedulers.MedianStoppingRule(
            time_attr="iteration",
            grace_period=first_rung(iterations, search.rungs),
            min_samples_required=3,
        )
    return schedulers.FIFOScheduler()


def _asha(schedulers: Any, iterations: int, rungs: int, reduction: int) -> Any:
    class Asha(schedulers.ASHAScheduler):  # type: ignore[misc]
        """Ray's, which says which trials are good, under a quota at each rung."""

        def __init__(self) -> None:
            super().__init__(
                time_attr="iteration",
                max_t=iterations + 1,  # the last rung ends a trial by itself
                grace_period=first_rung(iterations, rungs),
                reduction_factor=reduction,
            )
            self.quotas = {k: Quota(reduction) for k in milestones(iterations, rungs, reduction)}
            self.reached: dict[str, int] = {}

        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            action: str = super().on_trial_result(controller, trial, result)
            before = self.reached.get(trial.trial_id, 0)
            self.reached[trial.trial_id] = result["iteration"]
            crossed = [k for k in self.quotas if before < k <= result["iteration"]]
            if crossed:
                good = action == self.CONTINUE
                passes = self.quotas[crossed[-1]].admits(result["accuracy"], good)
                return str(self.CONTINUE if passes else self.STOP)
            return action

    return Asha()
