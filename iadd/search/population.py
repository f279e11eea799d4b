"""Population-based training: the members meet at each rung, the worst take after the best.

Jaderberg et al., arXiv 1711.09846. What it finds is a schedule: settings, and what changes when.
Ray Tune has a scheduler of that name, but its result depends on who reports first, so on the number
of workers, and a search that was killed cannot go on. Here all that happens at a rung follows from
what the members measured and from names. Every branch is a trial of its own in the journal, with
the schedule that led to it; a search that goes on walks through the rungs again and measures only
what is missing. A branch takes over its parent's checkpoint, which saves time and nothing else: its
schedule from the start gives the same images, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from iadd.artifacts import atomic_write
from iadd.methods import Space
from iadd.progress import Progress
from iadd.search.journal import RUNNING, Entry
from iadd.search.remote import run_all
from iadd.search.trial import Task, advance, settings_of
from iadd.seeds import generator_for

FACTORS = (0.8, 1.25)
Over = tuple[str, Any, Any] | list[Any]


def run_population(
    task: Task,
    space: Space,
    points: list[dict[str, Any]],
    resources: dict[str, float],
    workers: int,
) -> None:
    """Train the population to the last rung or the end of its budget.

    Args:
        points: what the first members begin with; the others draw from the whole space.
        workers: members side by side; the result does not depend on it.
    """
    search, journal = task.plan.config.search, task.journal
    params: Any = task.plan.config.params(task.method, task.ipc, {"validations": search.rungs})
    population = founders(task, space, points)
    left = _purse(task, resources, workers)
    total, done = len(params.rungs) * len(population), 0
    with Progress(f"search {task.method} {task.dataset} ipc {task.ipc}") as progress:
        for generation, rung in enumerate(params.rungs):
            if generation:
                last = params.rungs[generation - 1]
                population = next_generation(task, space, population, last)
            waiting = [entry for entry in population if _to_go(entry, rung)]
            for entry in waiting:
                if entry.finished:  # an earlier budget stopped it
                    entry.status = RUNNING
                    journal.write(entry)
            done += len(population) - len(waiting)
            for entry in run_all(advance, task, waiting, resources, workers, rung, left=left):
                done += 1
                best = max(entry.best for entry in population)
                progress(done, total, f"best {100 * best:.1f} % on validation")
            population = [journal.read(entry.key) or entry for entry in population]
            if any(_to_go(entry, rung) for entry in population):
                break  # the budget is spent
    for entry in journal.entries():
        if entry.finished:
            journal.close(entry, entry.status)
        else:  # its checkpoint stays, for a larger budget
            entry.status = "stopped"
            journal.write(entry)


def _to_go(entry: Entry, rung: int) -> bool:
    return entry.at(rung) is None and entry.status in (RUNNING, "stopped")


def _purse(task: Task, resources: dict[str, float], workers: int) -> Callable[[], float | None]:
    """Seconds of wall time until a budget is spent; what a killed search spent counts."""
    search, journal, began = task.plan.config.search, task.journal, time.monotonic()
    earlier = sum(entry.own_seconds for entry in journal.entries()) / workers

    def left() -> float | None:
        ends = []
        if search.seconds is not None:
            ends.append(search.seconds - earlier - (time.monotonic() - began))
        if search.gpu_hours is not None and resources.get("gpu"):
            spent = sum(entry.own_seconds for entry in journal.entries())
            ends.append((search.gpu_hours * 3600 / resources["gpu"] - spent) / workers)
        return min(ends, default=None)

    return left


def founders(task: Task, space: Space, points: list[dict[str, Any]]) -> list[Entry]:
    """The first generation: the given points, then draws, each by the names of its member."""
    found = []
    for number in range(task.plan.config.search.trials):
        if number < len(points):
            point = points[number]
        else:
            generator = generator_for(*task.names("population"), number)
            point = {name: _draw(over, generator) for name, over in sorted(space.items())}
        blank = Entry(number, point, settings_of(task, point), parent=number)
        found.append(task.journal.read(blank.key) or blank)
    return found


def next_generation(task: Task, space: Space, population: list[Entry], rung: int) -> list[Entry]:
    """The members after a rung: the lost and the worst quarter branch off from the best quarter."""
    ranked = [entry for entry in population if entry.at(rung) is not None]
    ranked.sort(key=lambda entry: (-(entry.at(rung) or 0.0), entry.number))
    quarter = max(1, len(population) // 4)
    best, lost = ranked[:quarter], [entry for entry in population if entry.at(rung) is None]
    worst = ranked[max(quarter, len(ranked) - max(0, quarter - len(lost))) :]
    if not best:
        return population
    following = []
    for entry in population:
        if entry in lost or entry in worst:
            generator = generator_for(*task.names("explore"), rung, entry.number)
            parent = best[int(torch.randint(len(best), (), generator=generator))]
            following.append(_branch(task, space, entry, parent, rung, generator))
        else:
            following.append(entry)
    return following


def _branch(
    task: Task, space: Space, entry: Entry, parent: Entry, rung: int, generator: torch.Generator
) -> Entry:
    """A member's new trial: the parent's run up to a rung, and from there on a step aside."""
    held = held_by(parent.settings)
    params = task.plan.config.params(task.method, task.ipc)
    changes = {
        name: explore(held[name], over, generator)
        for name, over in sorted(space.items())
        if name in params.changing  # type: ignore[attr-defined]
    }
    changes = {name: value for name, value in changes.items() if value != held[name]}
    schedule = [*parent.settings.get("schedule", []), *([[rung, changes]] if changes else [])]
    settings = parent.settings | ({"schedule": schedule} if schedule else {})
    rows = [row | {"seconds": entry.seconds} for row in parent.rows if row["iteration"] <= rung]
    branch = Entry(
        entry.number, parent.point, settings, rows=rows, parent=parent.number, branched=rung
    )
    journal = task.journal
    known = journal.read(branch.key)
    if known is None:
        origin = journal.checkpoint(parent.key)
        if origin.exists():
            atomic_write(journal.checkpoint(branch.key), origin.read_bytes())
        journal.write(branch)
    journal.close(entry, "stopped")
    return known or branch


def held_by(settings: dict[str, Any]) -> dict[str, Any]:
    """What holds at the end of settings with a schedule."""
    held = {name: value for name, value in settings.items() if name != "schedule"}
    for _, changes in settings.get("schedule", []):
        held |= changes
    return held


def _draw(over: Over, generator: torch.Generator) -> Any:
    """A value from a range or a list of choices."""
    if isinstance(over, list):
        return over[int(torch.randint(len(over), (), generator=generator))]
    kind, low, high = over
    if kind == "int":
        return int(torch.randint(low, high + 1, (), generator=generator))
    place = float(torch.rand((), generator=generator, dtype=torch.float64))
    if kind == "log":
        return min(high, low * math.exp(place * math.log(high / low)))
    return low + place * (high - low)


def explore(value: Any, over: Over, generator: torch.Generator) -> Any:
    """A number a step up or down, within its range, whole ones by at least 1; a choice anew."""
    if isinstance(over, list):
        return _draw(over, generator)
    kind, low, high = over
    up = int(torch.randint(2, (), generator=generator))
    moved = value * FACTORS[up]
    if kind == "int":
        moved = max(round(moved), value + 1) if up else min(round(moved), value - 1)
    else:
        moved = float(f"{moved:.4g}")
    return min(max(moved, low), high)
