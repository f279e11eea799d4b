"""The outer loop of every iterative method: update, validate, roll back, record, survive a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iadd.artifacts import canonical_json, load_tensors, save_tensors
from iadd.devices import synchronize
from iadd.methods._base import Matching, Method, Outer

MAX_ROLLBACKS = 6
EXPLODED = 50.0
"""A loss this many times the median of the last 50 counts as an explosion."""


@dataclass
class Hooks:
    """How the outer loop talks to the world; every part is optional."""

    validate: Callable[[Tensor, Tensor, float | None], float] | None = None
    """(images, labels, step size) -> accuracy on validation data."""
    progress: Callable[[int, int, str], None] | None = None
    """(iteration, iterations, a note with loss and step size)."""
    report: Callable[[int, float], None] | None = None
    """(iteration, validation accuracy) a rung; a resumed run tells all again; may raise to stop."""
    checkpoint: Path | None = None
    """Where the loop keeps itself, to go on after being killed."""
    checkpoint_seconds: float = 20.0


@dataclass
class Distilled:
    """What a run ends with; `status` is ok or diverged."""

    images: Tensor
    labels: Tensor
    step_size: float | None
    status: str
    trace: list[dict[str, Any]] = field(default_factory=list)
    iteration: int = 0
    """The iteration whose images these are: the best on validation."""
    seconds: float = 0.0
    """Work in all, also before the run was killed and resumed; validation included."""


def distill(method: Method, generator: torch.Generator, hooks: Hooks | None = None) -> Distilled:
    """Run a method to its end, or to where it was killed and on from there.

    Args:
        method: an instance over its problem.
        generator: all randomness of the run.
        hooks: validation, progress, search reports, checkpoint.

    Raises:
        ValueError: the problem does not fit the method (ipc larger than a class, ...).
    """
    method.problem.check()
    if not isinstance(method, Matching):
        began = time.perf_counter()
        images = method.initial(generator)
        synchronize(images.device)
        seconds = time.perf_counter() - began
        return Distilled(images, method.labels(), None, "ok", seconds=seconds)
    run = _Run(method, generator, hooks or Hooks())
    while run.iteration < method.params.iterations and run.status == "ok":
        run.iterate()
    return run.finish()


class _Run:
    """The state of one outer loop: what a checkpoint holds and a rollback brings back."""

    def __init__(self, method: Matching, generator: torch.Generator, hooks: Hooks) -> None:
        self.method, self.generator, self.hooks = method, generator, hooks
        self.images = method.initial(generator)
        self.velocity = torch.zeros_like(self.images)
        self.labels = method.labels()
        # The student step size is exp(log_step): positive by construction.
        self.log_step = torch.tensor([math.log(method.step_size or 1.0), 0.0], dtype=torch.float64)
        self.iteration, self.rollbacks, self.status = 0, 0, "ok"
        self.best_iteration, self.best_accuracy = 0, -1.0
        self.best_images, self.best_step = self.images.clone(), self.log_step.clone()
        self.trace: list[dict[str, Any]] = []
        self.seconds, self.clock = 0.0, time.perf_counter()
        self.saved_at = self.clock
        self.params = method.params  # the whole schedule; the method sees the phase that holds
        self.phases, self.rungs = self.params.phases(), set(self.params.rungs)
        self.safe = self._tensors()
        if hooks.checkpoint and hooks.checkpoint.exists():
            self._load(hooks.checkpoint)
        method.params = self.phases[max(k for k in self.phases if k <= self.iteration)]
        for row in self.trace:
            if hooks.report and row["validation_accuracy"] is not None:
                hooks.report(row["iteration"], row["validation_accuracy"])

    @property
    def step_size(self) -> float | None:
        return math.exp(self.log_step[0]) if self.method.step_size else None

    def iterate(self) -> None:
        self.method.params = self.phases.get(self.iteration, self.method.params)
        outer = self.method.outer(self.images, self.step_size or 0.0, self.generator)
        event = "" if self._sound(outer) else self._roll_back()
        if not event:
            self._update(outer)
            if self.iteration % 10 == 0:
                self.safe = self._tensors()
        self.iteration += 1
        accuracy = self._validate() if self.iteration in self.rungs else None
        self._record(outer, accuracy, event)
        if self.hooks.progress:
            note = f"loss {outer.loss:.4f}"
            if self.step_size is not None:
                note += f", step size {self.step_size:.4g}"
            self.hooks.progress(self.iteration, self.method.params.iterations, note)
        self._save_sometimes(accuracy)
        if accuracy is not None and self.hooks.report:
            self.hooks.report(self.iteration, accuracy)

    def _sound(self, outer: Outer) -> bool:
        finite = math.isfinite(outer.loss) and math.isfinite(outer.step_size)
        if not (finite and bool(torch.isfinite(outer.images).all())):
            return False
        past = sorted(row["loss"] for row in self.trace[-50:] if not row["event"])  # all finite
        return not past or outer.loss <= EXPLODED * max(past[len(past) // 2], 1e-3)

    def _roll_back(self) -> str:
        """Return to the last sound state with a lower step; give up after MAX_ROLLBACKS."""
        self.rollbacks += 1
        if self.rollbacks > MAX_ROLLBACKS:
            self.status = "diverged"
            return "diverged"
        self._restore(self.safe)
        self.velocity.zero_()
        self.log_step[1] = 0.0
        if self.method.step_size:
            self.log_step[0] -= math.log(2.0)
        self.safe = self._tensors()
        return "rollback"

    def _update(self, outer: Outer) -> None:
        params, gradient = self.method.params, outer.images
        norm = float(gradient.norm())
        if params.clip is not None and norm > params.clip:
            gradient = gradient * (params.clip / norm)
        self.velocity.mul_(params.momentum).add_(gradient)
        self.images.sub_(self.velocity, alpha=params.lr_img)
        if self.step_size is not None:
            # d(log a) = -lr dL/da / a moves a by -lr dL/da to first order: published lr_lr apply.
            change = self.log_step[1] * params.momentum + outer.step_size / self.step_size
            self.log_step[1] = change
            self.log_step[0] -= float(torch.clamp(params.lr_lr * change, -0.5, 0.5))
        self.method.accept()
        if self.iteration % 50 == 49:
            self.rollbacks = 0

    def _validate(self) -> float | None:
        if self.hooks.validate is None:
            return None
        accuracy = self.hooks.validate(self.images, self.labels, self.step_size)
        if accuracy >= self.best_accuracy:
            self.best_accuracy, self.best_iteration = accuracy, self.iteration
            self.best_images, self.best_step = self.images.clone(), self.log_step.clone()
        return accuracy

    def _record(self, outer: Outer, accuracy: float | None, event: str) -> None:
        synchronize(self.images.device)
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        self.trace.append(
            {
                "iteration": self.iteration,
                "loss": _finite(outer.loss),
                "loss_unweighted": _finite(outer.loss_unweighted),
                "step_size": self.step_size,
                **self.method.statistics(),
                "validation_accuracy": accuracy,
                "seconds": self.seconds,
                "event": event,
                "path": outer.path,
            }
        )

    def finish(self) -> Distilled:
        images, log_step, iteration = self.best_images, self.best_step, self.best_iteration
        if self.best_accuracy < 0:  # nothing was validated: the last sound state
            images, log_step, iteration = self.safe["images"], self.safe["log_step"], self.iteration
            if self.status == "ok":
                images, log_step = self.images, self.log_step
        step = math.exp(log_step[0]) if self.method.step_size else None
        return Distilled(
            images, self.labels, step, self.status, self.trace, iteration, self.seconds
        )

    def _tensors(self) -> dict[str, Tensor]:
        own = {f"method.{key}": value.clone() for key, value in self.method.state().items()}
        return own | {
            "images": self.images.clone(),
            "velocity": self.velocity.clone(),
            "log_step": self.log_step.clone(),
        }

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self.images, self.velocity, self.log_step = (
            tensors[key].clone() for key in ("images", "velocity", "log_step")
        )
        self.method.restore(
            {k.removeprefix("method."): v.clone() for k, v in tensors.items() if k[:7] == "method."}
        )

    def _identity(self, iteration: int) -> dict[str, Any]:
        """What a state depends on: a checkpoint belongs to every run that was the same so far."""
        params = self.params.model_dump(mode="json")
        params["schedule"] = [entry for entry in params["schedule"] if entry[0] < iteration]
        return {
            "method": self.method.name,
            "params": params,
            "dataset": self.method.problem.dataset.fingerprint,
            "network": self.method.problem.network.name,
            "ipc": self.method.problem.ipc,
            "seed": self.generator.initial_seed(),
        }

    def _save_sometimes(self, accuracy: float | None) -> None:
        late = time.perf_counter() - self.saved_at > self.hooks.checkpoint_seconds
        if self.hooks.checkpoint is None or not (late or accuracy is not None):
            return
        self.saved_at = time.perf_counter()
        tensors = self._tensors() | {f"safe.{key}": value for key, value in self.safe.items()}
        tensors |= {"best.images": self.best_images, "best.log_step": self.best_step}
        tensors |= {"generator": self.generator.get_state()}
        progress = {key: getattr(self, key) for key in (*_PROGRESS, "seconds", "trace")}
        save_tensors(self.hooks.checkpoint, tensors, self._identity(self.iteration), progress)

    def _load(self, path: Path) -> None:
        """Go on from a checkpoint of this very run; another run's, or a broken one, is ignored."""
        try:
            stored = load_tensors(path)
        except ValueError:
            return
        expected = self._identity(stored.attributes.get("iteration", 0))
        if canonical_json(stored.spec) != canonical_json(expected):
            return
        tensors = stored.tensors
        for key in tensors.keys() - _ON_CPU:
            tensors[key] = tensors[key].to(self.images.device)
        for key in (*_PROGRESS, "seconds", "trace"):
            setattr(self, key, stored.attributes[key])
        self.generator.set_state(tensors["generator"])
        self.best_images, self.best_step = tensors["best.images"], tensors["best.log_step"]
        self.safe = {k.removeprefix("safe."): v for k, v in tensors.items() if k[:5] == "safe."}
        self._restore(tensors)


_ON_CPU = {"generator", "log_step", "best.log_step", "safe.log_step"}
_PROGRESS = ("iteration", "rollbacks", "status", "best_iteration", "best_accuracy")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
