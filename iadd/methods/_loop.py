"""The loop of every iterative method: look, validate, roll back, update, record, survive a kill.

Iteration k looks at the variables after k updates: their loss and gradients. Only what was seen to
be sound is kept: it is what a rollback returns to, what is validated, and what a run ends with. So
a run of n updates has n + 1 looks, the last without an update.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from iadd.artifacts import canonical_json, load_tensors, parsing, save_tensors
from iadd.devices import synchronize
from iadd.methods._base import Gradients, Iterative, Method, Selection, Skip
from iadd.methods._state import Distilled, Progress, State, remembered_by
from iadd.seeds import Seeds
from iadd.synthetic.decoding import decode

# SPEC section 2 states these rules.
EXPLOSION_FACTOR = 50.0
"""A loss this many times the median of the last `EXPLOSION_WINDOW` sound ones is an explosion."""
EXPLOSION_WINDOW = 50
LARGEST_PIXEL = 1e3
"""Images with a normalised value beyond this count as exploded, whatever their loss: real ones stay
within some ten, and a network that normalises hides the scale of what it sees."""
MAX_ROLLBACKS = 6
"""Rollbacks allowed without `SOUND_ITERATIONS` sound iterations in a row; the next ends the run."""
SOUND_ITERATIONS = 50
ROLLBACK_STEP_SIZE = 0.5
"""A rollback multiplies the student's step size by this."""


@dataclass
class Hooks:
    """How the loop talks to the world; every part is optional."""

    validate: Callable[[Tensor, Tensor, float | None], float] | None = None
    """(images, labels, step size), decoded, -> accuracy on validation data."""
    progress: Callable[[int, int, str], None] | None = None
    """(updates done, updates in all, a note with loss and step size)."""
    report: Callable[[int, float], None] | None = None
    """(updates, validation accuracy) a rung; a resumed run tells all again; may raise to stop."""
    observe: Callable[[Mapping[str, Any]], None] | None = None
    """Each row of the trace as soon as it is known."""
    checkpoint: Path | None = None
    """Where the loop keeps itself, to go on after being killed."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """The whole spec of the run: a checkpoint of any other is ignored."""
    checkpoint_seconds: float = 20.0
    keep_states: bool = False
    """Keep the state of every validation measurement, not only the best."""

    def __post_init__(self) -> None:
        if self.checkpoint and not self.identity:
            raise ValueError(f"{self.checkpoint}: a checkpoint needs the run's spec as identity")


def distill(method: Method, seeds: Seeds, hooks: Hooks | None = None) -> Distilled:
    """Run a method to its end, or to where it was killed and on from there.

    Args:
        method: an instance over its problem.
        seeds: all randomness of the run; the same for every method, so that runs are paired.
        hooks: validation, progress, search reports, checkpoint.

    Raises:
        ValueError: the problem does not fit the method (ipc larger than a class, ...).
    """
    method.problem.check()
    if isinstance(method, Selection):
        began = time.perf_counter()
        rows = method.rows(seeds.generator("initial"))
        labels = method.labels(rows, seeds.generator("experts")).cpu()  # waits for the device
        images = method.problem.dataset.train.pick(rows)
        seconds = time.perf_counter() - began
        return Distilled(images, labels, None, "ok", seconds=seconds, rows=rows)
    assert isinstance(method, Iterative)
    loop = _Loop(method, seeds, hooks or Hooks())
    while loop.iteration <= loop.updates and loop.status == "ok":
        loop.iterate()
    return loop.finish()


class _Loop:
    """One run: the present state, the last sound one, the best on validation, and its records."""

    def __init__(self, method: Iterative, seeds: Seeds, hooks: Hooks) -> None:
        self.method, self.seeds, self.hooks = method, seeds, hooks
        self.ema: float | None = method.params.ema
        variables = method.variables(method.initial(seeds.generator("initial")))
        self.optimisers = {n: v.optimiser for n, v in variables.items() if v.optimiser}
        self.state = State.start(variables, self.ema is not None)
        self.safe, self.best = self.state.copy(), self.state.copy()
        self.start = self.state.values["images"].detach().to("cpu", copy=True)
        self.updates, self.rungs = int(method.params.updates), set(method.params.rungs)
        self.iteration, self.status = 0, "ok"
        self.rollbacks, self.in_a_row, self.sound = 0, 0, 0
        self.kept: list[State] = []
        self.trace: list[dict[str, Any]] = []
        self.weights: list[dict[str, Any]] = []
        self.best_accuracy, self.seconds, self.validation_seconds = -1.0, 0.0, 0.0
        self.saved_at = self.clock = time.perf_counter()
        if hooks.checkpoint and hooks.checkpoint.exists():
            self._resume(hooks.checkpoint)
        for row in self.trace:
            if hooks.report and row["validation_accuracy"] is not None:
                hooks.report(row["iteration"], row["validation_accuracy"])

    def iterate(self) -> None:
        """One look, and the update that follows from it."""
        k = self.iteration
        found = self.method.gradients(k, self.state.values, self.seeds.generator("iteration", k))
        step_size, event = self.state.step_size, "skipped" if isinstance(found, Skip) else ""
        if not self._is_sound(found):
            event = self._roll_back()
        elif found.loss is not None:
            self._accept()
        accuracy = self._validate() if k in self.rungs and self.status == "ok" else None
        self._record(found, step_size, accuracy, event)
        if isinstance(found, Gradients) and not event and k < self.updates:
            self._update(found)
        self.iteration += 1
        if self.hooks.progress:
            note = "" if found.loss is None else f"loss {found.loss:.4f}"
            note += "" if step_size is None else f", step size {step_size:.4g}"
            self.hooks.progress(min(k + 1, self.updates), self.updates, note)
        self._save_sometimes(accuracy)
        if accuracy is not None and self.hooks.report:
            self.hooks.report(k, accuracy)

    def _is_sound(self, found: Gradients | Skip) -> bool:
        if found.loss is None:
            return True
        gradients = found.by.values() if isinstance(found, Gradients) else ()
        if not math.isfinite(found.loss) or not all(bool(g.isfinite().all()) for g in gradients):
            return False
        if not float(self.state.values["images"].abs().max()) <= LARGEST_PIXEL:
            return False
        sound = (row["loss"] for row in reversed(self.trace) if not row["event"])
        past = sorted(islice(sound, EXPLOSION_WINDOW))
        typical = max(past[len(past) // 2], self.method.least_loss) if past else math.inf
        return found.loss <= EXPLOSION_FACTOR * typical

    def _accept(self) -> None:
        """The present state's own loss was seen and is sound: keep it as it is."""
        self.state.iteration = self.iteration
        self.safe = self.state.copy()
        self.sound, self.in_a_row = self.sound + 1, 0
        if self.sound >= SOUND_ITERATIONS:
            self.rollbacks = 0

    def _roll_back(self) -> str:
        """Back to the last sound state with a lower step; give up after MAX_ROLLBACKS."""
        self.rollbacks, self.in_a_row, self.sound = self.rollbacks + 1, self.in_a_row + 1, 0
        if self.rollbacks > MAX_ROLLBACKS:
            self.status = "diverged"
            return "diverged"
        self.state = self.safe.copy()
        for memory in self.state.memories.values():
            memory.clear()
        if "step_size" in self.state.values:
            self.state.values["step_size"].mul_(ROLLBACK_STEP_SIZE**self.in_a_row)
        return "rollback"

    def _update(self, found: Gradients) -> None:
        if found.by.keys() != self.optimisers.keys():
            names = ", ".join(sorted(self.optimisers))
            raise ValueError(f"method {self.method.name}: gradients are due for {names}")
        for name, optimiser in self.optimisers.items():
            optimiser.update(self.state.values[name], found.by[name], self.state.memories[name])
        if self.state.average is not None and self.ema is not None:
            self.state.average.lerp_(self.state.values["images"], 1 - self.ema)

    def _labels(self, state: State) -> Tensor:
        labels = state.values.get("labels")
        return self.method.problem.labels() if labels is None else labels.cpu()

    def _tick(self) -> float:
        """Seconds since the last tick, once the device has done what it was given."""
        synchronize(self.state.values["images"].device)
        now = time.perf_counter()
        spent, self.clock = now - self.clock, now
        return spent

    def _validate(self) -> float | None:
        if self.hooks.validate is None:
            return None
        self.seconds += self._tick()
        state = self.safe
        seen = decode(state.images, self._labels(state), self.method.decoding)
        accuracy = self.hooks.validate(*seen, state.step_size)
        if accuracy >= self.best_accuracy:
            self.best, self.best_accuracy = state.copy(), accuracy
        if self.hooks.keep_states:
            self.kept.append(state.copy())
        self.validation_seconds += self._tick()
        return accuracy

    def _record(
        self, found: Gradients | Skip, step_size: float | None, accuracy: float | None, event: str
    ) -> None:
        self.seconds += self._tick()
        row: dict[str, Any] = {"iteration": self.iteration, "loss": _finite(found.loss)}
        if isinstance(found, Skip):
            row |= {"loss_unweighted": row["loss"], "path": found.reason}
        else:
            plain = found.loss if found.loss_unweighted is None else found.loss_unweighted
            row |= {"loss_unweighted": _finite(plain), "path": found.path}
            row |= {name: _finite(value) for name, value in found.columns.items()}
            self.weights += [{"iteration": self.iteration, **told} for told in found.weights]
        row |= {"step_size": step_size, "validation_accuracy": accuracy}
        self.trace.append(row | {"seconds": self.seconds, "event": event})
        if self.hooks.observe:
            self.hooks.observe(self.trace[-1])

    def finish(self) -> Distilled:
        """The best on validation; where nothing was validated, the last sound state."""
        state = self.safe if self.best_accuracy < 0 else self.best
        if all(row["event"] == "rollback" for row in self.trace):
            self.status = "diverged"  # not even the state that it began with was sound
        return Distilled(
            state.images,
            self._labels(state),
            state.step_size,
            self.status,
            self.trace,
            self.weights,
            state.iteration,
            self.seconds,
            self.validation_seconds,
            variables=state.values,
            start=self.start,
            decoding=self.method.decoding,
            states=[(kept.images, self._labels(kept), kept.step_size) for kept in self.kept],
        )

    def _save_sometimes(self, accuracy: float | None) -> None:
        late = time.perf_counter() - self.saved_at > self.hooks.checkpoint_seconds
        if self.hooks.checkpoint is None or not (late or accuracy is not None):
            return
        self.saved_at = time.perf_counter()
        tensors: dict[str, Tensor] = {}
        states = (self.state, self.safe, self.best, *self.kept)
        for prefix, state in zip(_prefixes(len(self.kept)), states, strict=True):
            tensors |= state.tensors(prefix)
        told = {key: getattr(self, key) for key in Progress.model_fields}
        told["kept"] = len(self.kept)
        save_tensors(self.hooks.checkpoint, tensors, self.hooks.identity, told)

    def _resume(self, path: Path) -> None:
        """Go on from a checkpoint of this very run; any other, or a malformed one, is ignored."""
        try:
            stored = load_tensors(path)
            with parsing(path, "checkpoint"):
                if canonical_json(stored.spec) != canonical_json(dict(self.hooks.identity)):
                    return
                Progress.check(stored.attributes, self.updates)
                progress = {key: stored.attributes[key] for key in Progress.model_fields}
                remembered = remembered_by(self.optimisers, self.state.values)
                prefixes = _prefixes(progress.pop("kept"))
                states = [self.state.read(stored.tensors, p, remembered) for p in prefixes]
        except ValueError:
            return
        self.state, self.safe, self.best, *self.kept = states
        vars(self).update(progress)


def _prefixes(kept: int) -> list[str]:
    return ["state", "safe", "best", *(f"kept{k}" for k in range(kept))]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
