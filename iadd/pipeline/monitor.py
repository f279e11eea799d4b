"""A running benchmark in one line: jobs done, jobs running by name, time left; why jobs failed."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadd.artifacts import counted

if TYPE_CHECKING:
    from rich.status import Status

SECONDS = 30.0
"""Between two lines where there is no terminal."""
START = 1.0
"""Seconds that every job takes besides."""
TRUST = 0.1
"""Of a rule's work: how much of it must be done until this machine's speed counts as much as the
forecast's."""
FULL = 1 << 20
"""Bytes that are free on a full disk."""
ENDED = "slurmstepd: error:"
"""Begins the line by which SLURM says that it ended a job, and why."""
AT_WORK = re.compile(r": \d+/\d+ \d+\.\d\d/s, -?\d+ s left, ")
"""In a line by which a job tells how far it is (`iadd.progress`)."""
ELSEWHERE = 8
"""Jobs side by side that an estimate begins with where they run on a cluster."""
SHOWN = 5
"""Different reasons of failures, and running jobs, that are told."""

Cost = Callable[[str, Mapping[str, str]], float]
"""Forecast seconds of a job: its rule and wildcards."""


@dataclass
class Job:
    """A job that was started."""

    name: str
    rule: str
    wildcards: dict[str, str]
    log: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    took: float = 0.0


def job_name(rule: str, wildcards: Mapping[str, str]) -> str:
    """A job as a user would call it, e.g. `distill mtt digits ipc1 seed0`."""
    words = [rule]
    words += [wildcards[key] for key in ("method", "dataset", "folder") if key in wildcards]
    for key in ("ipc", "seed", "shard"):
        if key in wildcards:
            words.append(f"{key}{wildcards[key]}")
    return " ".join(words) + " tuned" * bool(wildcards.get("tuned"))


class Monitor:
    """Follows the events of a Snakemake process (`iadd.pipeline.events`).

    A context manager that shows one live line on a terminal, and a plain line now and then
    elsewhere. There is no estimate of the time left before `expect` was called.
    """

    def __init__(self, title: str, cores: int = 1) -> None:
        self.title, self.cores = title, cores
        self.width = cores or ELSEWHERE
        self.done = self.total = 0
        self.running: dict[int, Job] = {}
        self.failed: dict[int, Job] = {}
        self.excused: set[int] = set()  # they only shared a submission with one that failed
        self.behind: dict[int, list[str]] = {}  # SLURM's logs of jobs that were in groups
        self.errors: list[str] = []
        self.counts: dict[str, int] = {}
        self.finished: list[Job] = []
        self.cost: Cost | None = None
        self.means: Mapping[str, float] = {}
        self.forecast: dict[str, float] = defaultdict(float)  # of finished jobs, by rule
        self.took: dict[str, float] = defaultdict(float)  # the seconds that they took indeed
        self.began = self.last = time.monotonic()
        self.first: float | None = None  # when the first job was started
        self.status: Status | None = None
        self.stopping = False  # a signal came: jobs that end now have not failed

    def __enter__(self) -> Monitor:
        if sys.stderr.isatty():
            from rich.console import Console

            self.status = Console(stderr=True).status("Drawing the graph of jobs")
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status:
            self.status.stop()

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take in one event and show the state."""
        kind = event["event"]
        if kind == "jobs":
            self.counts = event["counts"]
            self.total = sum(self.counts.values())
            where = f". Provided cores: {self.cores}" if self.cores else ""
            self.say(f"{self.title}: {counted(self.total, 'job{s}')}{where}")
        elif kind == "done":
            self.done = min(event["done"], self.total)
        elif kind == "started":
            self.first = self.first or time.monotonic()
            self.failed.pop(event["job"], None)  # it is tried again
            name = job_name(event["rule"], event["wildcards"])
            self.running[event["job"]] = Job(name, event["rule"], event["wildcards"], event["log"])
        elif kind == "finished":
            job = self.running.pop(event["job"], None)
            if job:
                job.took = time.monotonic() - job.began
                self.finished.append(job)
                self._count(job)
        elif kind == "failed":
            job = self.running.pop(event["job"], None)
            if event["job"] not in self.excused and not self.stopping:
                name = job_name(event["rule"], event["wildcards"])
                kept = job or Job(name, event["rule"], event["wildcards"])
                kept.log = [*event["log"], *self.behind.get(event["job"], [])]  # SLURM's last
                self.failed[event["job"]] = kept
        elif kind == "group":
            self._group(event["jobs"], event["log"])
        elif kind == "text":
            self._text(event["level"], event["text"])
        self.show()

    def expect(self, cost: Cost, means: Mapping[str, float]) -> None:
        """Take in a forecast: of a job, and of a rule's jobs on average (seconds)."""
        self.cost, self.means = cost, means
        for job in self.finished:
            self._count(job)

    def _count(self, job: Job) -> None:
        if self.cost:
            self.forecast[job.rule] += self._seconds(job)
            self.took[job.rule] += job.took

    def _group(self, jobs: list[int], logs: list[str]) -> None:
        """Tell the jobs of a group that failed from those that were taken along by them."""
        said = "\n".join("\n".join(lines_of(path)) for path in logs)
        guilty = set(re.findall(r"^\s*log: (.+) \(check log", said, re.MULTILINE))
        failed = {k for k in jobs if k in self.running and guilty & set(self.running[k].log)}
        self.excused = self.excused - set(jobs) | (set(jobs) - failed if failed else set())
        self.behind |= dict.fromkeys(jobs, logs)

    def _seconds(self, job: Job) -> float:
        return START + self.cost(job.rule, job.wildcards) if self.cost else 0.0

    def _text(self, level: int, text: str) -> None:
        if level >= logging.ERROR:
            self.errors.append(text)
        elif level == logging.WARNING or text.startswith("Nothing to be done"):
            self.say(text)

    def say(self, line: str) -> None:
        """A line that stays."""
        if self.status:
            self.status.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def show(self) -> None:
        """Show the state: at once on a terminal, now and then elsewhere."""
        if not self.total:
            return
        if self.status:
            from rich.text import Text

            line = Text(self.line())
            line.truncate(self.status.console.width - 3, overflow="ellipsis")
            self.status.update(line)
        elif time.monotonic() - self.last > SECONDS:
            self.last = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state in one line."""
        parts = [f"{self.title}: {self.done} of {counted(self.total, 'job{s}')} done"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.stopping:
            return ", ".join([*parts, "stopping"])
        left = self.seconds_left()
        if left is not None:
            parts.append(f"about {duration(left)} left")
        names = ", ".join([job.name for job in self.running.values()][:SHOWN])
        if len(self.running) > SHOWN:
            names += f" and {len(self.running) - SHOWN} more"
        return ", ".join(parts) + (f"; running: {names}" if names else "")

    def seconds_left(self) -> float | None:
        """Forecast of what is left, each rule's corrected by how long its jobs took so far.

        A running job counts as done as far as it has run, at most by its forecast. How many jobs
        run side by side is what was seen, the cores at first.
        """
        if not self.cost:
            return None
        now, forecast, took = time.monotonic(), self.forecast.copy(), self.took.copy()
        for job in self.running.values():
            ran = now - job.began
            forecast[job.rule] += min(self._seconds(job), ran)
            took[job.rule] += ran
        work = {r: n * (START + self.means.get(r, 0.0)) for r, n in self.counts.items()}
        left = 0.0
        for rule, seconds in work.items():
            trust = TRUST * seconds
            pace = (took[rule] + trust) / (forecast[rule] + trust)
            left += max(0.0, seconds - forecast[rule]) * pace
        trust = TRUST * sum(work.values())
        elapsed = now - (self.first or now)
        return left * (elapsed + trust / self.width) / (sum(took.values()) + trust)

    def reasons(self) -> list[str]:
        """Why jobs failed: each different reason with one of its jobs, the jobs' own lines last."""
        found: dict[str, list[Job]] = {}
        for job in self.failed.values():
            found.setdefault(reason(job.log), []).append(job)
        wrong = counted(len(self.failed), "job{s}")
        lines = [f"{self.title}: {wrong} failed"] if self.failed else []
        for why, jobs in list(found.items())[:SHOWN]:
            more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
            where = f" ({jobs[0].log[0]})" if jobs[0].log else ""
            lines += [f"{jobs[0].name}{more}{where}:", f"  {why}"]
        return lines


def reason(logs: list[str]) -> str:
    """The last line in a job's own log, the first; or why SLURM ended it, in those behind it."""
    own = next((line for path in logs[:1] for line in reversed(lines_of(path))), "")
    ended = [line for path in logs[1:] for line in lines_of(path) if line.startswith(ENDED)]
    if ended and not own.startswith("iadd: "):
        return ended[-1]
    if own and not AT_WORK.search(own):
        return own
    why = "killed, perhaps for want of memory"
    with suppress(IndexError, OSError):
        if shutil.disk_usage(Path(logs[0]).parent).free < FULL:
            why = "the disk is full"
    return f"ended without a word: {why}" + f" (before that: {own})" * bool(own)


def lines_of(path: str) -> list[str]:
    """The lines of a log that are not empty, stripped; none where it cannot be read."""
    try:
        lines = Path(path).read_text(errors="replace").split("\n")
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip()]


def duration(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
