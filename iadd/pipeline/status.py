"""`iadd status`: how far a benchmark is, from its files alone.

So it can be asked while the benchmark runs elsewhere: in another terminal, or as a cluster's jobs
whose folder this machine shares.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from iadd.artifacts import counted
from iadd.artifacts.writing import alive
from iadd.pipeline.forecast import Forecast
from iadd.pipeline.monitor import START, duration, job_name, reason
from iadd.pipeline.plan import Plan
from iadd.pipeline.plan_text import bytes_text, existing
from iadd.pipeline.remaining import Job, looked_at, replacing, tables_done

WINDOW = 3600.0
"""The pace is that of so many last seconds."""
FRESH = 120.0
"""A log in which nothing stands yet is of a job that is starting up, if it is no older and somebody
runs the benchmark."""
SHOWN = 20


@dataclass(frozen=True)
class Running:
    """A job at work: what it last said of itself, and how long ago (seconds)."""

    job: str
    host: str
    pid: int
    seconds: float
    told_ago: float
    done: int | None = None
    total: int | None = None
    rate: float | None = None
    note: str = ""

    @property
    def seconds_left(self) -> float | None:
        """At the job's own rate, since it last said something."""
        if not self.rate or self.total is None or self.done is None:
            return None
        return max(0.0, (self.total - self.done) / self.rate - self.told_ago)


@dataclass(frozen=True)
class Failed:
    """A job whose last attempt left a log and no file."""

    job: str
    log: str
    reason: str


@dataclass
class Counts:
    """The jobs of a rule."""

    done: int = 0
    running: int = 0
    failed: int = 0
    waiting: int = 0

    @property
    def total(self) -> int:
        return self.done + self.running + self.failed + self.waiting


@dataclass
class Status:
    """How far a benchmark is; sizes in bytes, None where the data are not prepared yet. `replaced`:
    results of other settings, data or code that a run will make anew."""

    benchmark: str
    stages: dict[str, Counts] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    seconds_left: float | None = None
    disk: int = 0
    disk_forecast: int | None = None
    disk_free: int = 0
    replaced: int = 0

    @property
    def all(self) -> Counts:
        """The jobs of all stages."""
        found = Counts()
        for counts in self.stages.values():
            for name, value in vars(counts).items():
                setattr(found, name, getattr(found, name) + value)
        return found


def status(plan: Plan) -> Status:
    """Look at a benchmark's files."""
    now, found, stale = time.time(), Status(plan.root.name), plan.stale_data()
    words = _words(plan)
    finished: list[Job] = []
    left: list[Job] = []
    for job, done in _all_jobs(plan, stale):
        counts = found.stages.setdefault(job.rule, Counts())
        if done:
            counts.done += 1
            finished.append(job)
            continue
        left.append(job)
        found.replaced += job.rule != "data" and job.path.exists()
        state = _state(plan, job, words, now)
        if isinstance(state, Running):
            counts.running += 1
            found.running.append(state)
        elif isinstance(state, Failed):
            counts.failed += 1
            found.failed.append(state)
        else:
            counts.waiting += 1
    complete = not left and tables_done(plan)
    found.stages["collect and site"] = Counts(done=2) if complete else Counts(waiting=2)
    if not stale:
        forecast = Forecast(plan)
        found.disk_forecast = sum(row.disk for row in forecast.rows)
        if found.running:
            found.seconds_left = _seconds_left(forecast, finished, left, now)
    found.disk = _size(plan.root)
    found.disk_free = shutil.disk_usage(existing(plan.root)).free
    return found


def _all_jobs(plan: Plan, stale: Sequence[str]) -> Iterator[tuple[Job, bool]]:
    """The jobs of the data stage, then those that follow, and whether each is done."""

    def check(key: str) -> None:
        if key in stale:
            raise ValueError(f"data set {key} is not prepared")

    for dataset in plan.config.datasets:
        key, about = dataset.key, plan.data(dataset.key).about
        job = Job("data", key, (key, "data"), about, partial(check, key), {"dataset": key})
        yield job, job.done
    yield from looked_at(plan)


def _words(plan: Plan) -> dict[str, dict[str, Any]]:
    """What running jobs last said of themselves, by the names of their files."""
    found = {}
    for path in (plan.root / "running").glob("*.json"):
        with suppress(OSError, ValueError):  # it has just ended
            word = json.loads(path.read_text())
            if _alive(word):
                found[path.name] = word
    return found


def _alive(word: dict[str, Any]) -> bool:
    """Whether a job may be at work: of another machine's nobody here can know."""
    return word["host"] != platform.node() or alive(word["pid"])


def _state(
    plan: Plan, job: Job, words: dict[str, dict[str, Any]], now: float
) -> Running | Failed | None:
    """What is known of a job that is not done: None where it waits."""
    name = job_name(job.rule, job.wildcards)
    word = words.get(plan.progress_file(job.rule, job.place).name)
    if word is not None:
        names = ("host", "pid", "done", "total", "rate", "note")
        told: dict[str, Any] = {key: word.get(key) for key in names}
        return Running(name, seconds=now - word["began"], told_ago=now - word["told"], **told)
    log = plan.log("privacy" if job.rule == "yardstick" else job.rule, job.place)
    try:
        seen = log.stat()
    except OSError:
        return None
    if job.path.exists():  # made under other settings: it will be made again
        return None
    age = now - seen.st_mtime
    if not seen.st_size and age < FRESH:
        starting = Running(name, "", 0, age, age, note="starting")
        return starting if plan.is_run_here else None
    said = reason([str(log)])
    if said == "KeyboardInterrupt" or said.startswith(f"{job.path}: "):
        return None  # somebody stopped it; or it was made, and taken away since
    return Failed(name, str(log), said)


def _seconds_left(
    forecast: Forecast, finished: Iterable[Job], left: Iterable[Job], now: float
) -> float | None:
    """Forecast of what is left, at the pace of the last hour; None where nothing was done in it."""

    def cost(job: Job) -> float:
        return START + forecast.seconds_of(job.rule, job.wildcards)

    times = ((job.path.stat().st_mtime, job) for job in finished if job.path.exists())
    recent = sorted(((at, job) for at, job in times if now - at < WINDOW), key=lambda pair: pair[0])
    if len(recent) < 2:
        return None
    span, work = now - recent[0][0], sum(cost(job) for _, job in recent[1:])
    return sum(map(cost, left)) * span / work if span > 0 else None


def _size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total


def as_json(found: Status) -> str:
    """A status as JSON: counts by stage and of all, running and failed jobs, seconds, bytes."""
    running = [asdict(job) | {"seconds_left": job.seconds_left} for job in found.running]
    return json.dumps(asdict(found) | {"all": asdict(found.all), "running": running}, indent=1)


def print_status(found: Status) -> None:
    """A status for people."""
    counts = found.all
    parts = [f"{found.benchmark}: {counts.done} of {counted(counts.total, 'job{s}')} done"]
    parts += [
        f"{n} {what}" for n, what in ((counts.running, "running"), (counts.failed, "failed")) if n
    ]
    if found.seconds_left is not None:
        parts.append(f"about {duration(found.seconds_left)} left at the pace of the last hour")
    print(", ".join(parts))
    table = Table("stage", "done", "running", "failed", "waiting", box=None, pad_edge=False)
    for stage, count in found.stages.items():
        numbers = (count.done, count.running, count.failed, count.waiting)
        table.add_row(stage, *(str(n) if n else "-" for n in numbers))
    Console().print(table)
    for title, lines in (
        ("Running", [_running_line(job) for job in found.running]),
        ("Failed", [f"{job.job} ({job.log}):\n    {job.reason}" for job in found.failed]),
    ):
        if lines:
            print(f"{title}:", *(f"  {line}" for line in lines[:SHOWN]), sep="\n")
        if len(lines) > SHOWN:
            print(f"  and {len(lines) - SHOWN} more (--json tells all)")
    forecast = "" if found.disk_forecast is None else f" of about {bytes_text(found.disk_forecast)}"
    print(f"Disk: {bytes_text(found.disk)}{forecast}, {bytes_text(found.disk_free)} free")
    if found.replaced:
        print(replacing(found.benchmark, found.replaced))
    elif not counts.done:
        where = Path("results").absolute() / found.benchmark
        print(f"Looked for in {where}: benchmarks lie below the folder that they are run in")


def _running_line(job: Running) -> str:
    parts = []
    if job.total:
        parts.append(f"{job.done} of {job.total}")
    if job.rate:
        parts.append(f"{job.rate:.3g}/s")
    if job.seconds_left is not None:
        parts.append(f"{duration(job.seconds_left)} left")
    if job.note:
        parts.append(job.note)
    where = f" ({job.host}, last word {duration(job.told_ago)} ago)" if job.host else ""
    return f"{job.job}: {', '.join(parts) or 'at work'}, since {duration(job.seconds)}{where}"
