"""`iadd run`: Snakemake as a child process, watched, told in one line, ended with its parent."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from iadd import devices
from iadd.artifacts import counted, one_line
from iadd.pipeline import jobserver, slurm
from iadd.pipeline.config import load_config, refuse_shell
from iadd.pipeline.monitor import Monitor, duration
from iadd.pipeline.plan import Plan
from iadd.pipeline.processes import usable_cores
from iadd.pipeline.set_aside import ASIDE, set_aside
from iadd.pipeline.source import PACKAGE

WORKFLOW = PACKAGE / "workflow"
LOOKS = {
    *("-n", "--dry-run", "--dryrun", "-S", "--summary", "-D", "--detailed-summary", "--dag"),
    *("--rulegraph", "--filegraph", "--lint", "-l", "--list-rules", "--unlock", "--report"),
    *("-t", "--touch", "--cleanup-metadata", "--delete-all-output", "--version", "-h", "--help"),
}
"""Options by which Snakemake runs no job but prints something: its output is shown as it is."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 15.0
"""Seconds after a signal that Snakemake and its local jobs have to end by themselves. A signal that
comes while Snakemake writes its records would have it wait for its own lock, for ever."""


def run(config: Path, cores: int, options: Sequence[str], command: Callable[[], None]) -> int:
    """Run a benchmark under its lock; the exit status, 0 only if the whole of it is done.

    Args:
        config: the benchmark's file.
        cores: of all jobs together; 0 for what this process may use.
        options: handed to Snakemake.
        command: what a warm server runs for its jobs.

    Raises:
        ValueError: one line for what cannot begin.
    """
    if shutil.which("snakemake", path=str(Path(sys.executable).parent)) is None:
        raise ValueError("snakemake is not installed here: pip install 'iadd[workflow]'")
    refuse_overrides(options)
    devices.check_environment()
    refuse_shell(config)
    plan = Plan(load_config(config))
    options = _with_profile(options)
    elsewhere = slurm.executor_of(options)
    if elsewhere:
        refuse_shell(Path.cwd())
    arguments = ["--snakefile", str(WORKFLOW / "Snakefile"), "--nolock"]
    arguments += ["--workflow-profile", "none", "--configfile", str(config)]
    if cores or not elsewhere:  # a limit of jobs elsewhere, too, where one is given
        arguments += ["--cores", str(cores or usable_cores())]
    cores = 0 if elsewhere else cores or usable_cores()
    with _environment():
        # For local jobs only: a cluster counts its own.
        server = None if elsewhere else jobserver.start(command)
        if server:
            os.environ[jobserver.VARIABLE] = server.address
            # What Snakemake and jobs put aside goes with the run, or is removed by the next.
            os.environ["TMPDIR"] = str(Path(server.address).parent)
        with plan.lock():  # after the server was forked, which would hold the lock longer
            if LOOKS & set(options):
                asked = [sys.executable, "-m", "snakemake", *arguments, *options]
                return subprocess.run(asked, check=False).returncode
            if elsewhere == "slurm":
                arguments += slurm.arguments(plan, options)
                if left := slurm.cancel_leftovers(plan):
                    jobs = counted(left, "job{s}")
                    print(f"iadd: {jobs} of a killed run cancelled", file=sys.stderr)
            status = _mended(plan, Machine(cores, server), arguments, options)
            if not status:
                print(f"tables and page: iadd show {config}", file=sys.stderr)
            return status


class Machine(NamedTuple):
    """This machine's share in a run: its cores, 0 where jobs run elsewhere, and its warm server."""

    cores: int
    server: jobserver.Server | None = None


def _mended(plan: Plan, machine: Machine, arguments: list[str], options: Sequence[str]) -> int:
    """The whole benchmark; where jobs failed because one of its own files could not be read, that
    is made anew, each file once."""
    seen: set[Path] = set()
    while True:
        status, reasons = _whole(plan, machine, arguments, options)
        found = set_aside(plan.root, reasons) if status else []
        for path in found:
            print(f"iadd: {path}: set aside as {path}{ASIDE} and made anew", file=sys.stderr)
        if seen.issuperset(found):
            return status
        seen.update(found)


def _whole(
    plan: Plan, machine: Machine, arguments: list[str], options: Sequence[str]
) -> tuple[int, list[str]]:
    """The data first: what fits its counts is the benchmark, and data made anew but equal does
    not make anything else anew, which Snakemake cannot know before it has seen them.

    Returns the exit status and what failed jobs said.
    """
    stale = plan.stale_data()
    if stale:
        about = [str(plan.data(key).about) for key in stale]
        only = ["--until", "data", "--forcerun", *about]
        child = Child(plan, machine, [*arguments, *options, *only], "data")
        if status := child.follow():
            return status, child.reasons
    for line in plan.left_out():
        print(f"iadd: left out: {line}", file=sys.stderr)
    _tell_replaced(plan)
    child = Child(plan, machine, [*arguments, *options], plan.config.benchmark)
    status = child.follow()
    return status or int(bool(plan.left_out())), child.reasons


def _tell_replaced(plan: Plan) -> None:
    """Say what is about to be lost. Where all is done, that is nothing: no file is looked at."""
    from iadd.pipeline.remaining import remaining, replacing, tables_done

    if not tables_done(plan) and (replaced := remaining(plan)[1]):
        print(f"iadd: {replacing(plan.config.benchmark, replaced)}", file=sys.stderr)


class Child:
    """One Snakemake process, in a group of its own: a signal reaches it and its jobs once."""

    def __init__(self, plan: Plan, machine: Machine, arguments: Sequence[str], title: str) -> None:
        self.plan, self.title, (self.cores, self.server) = plan, title, machine
        self.pipe, theirs = os.pipe()
        child = [sys.executable, "-m", "iadd.pipeline.events", str(theirs), str(os.getpid())]
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - its messages, or why it could not start
        self.process = subprocess.Popen(
            [*child, *arguments],
            pass_fds=[theirs],
            process_group=0,
            stdin=subprocess.DEVNULL,
            stderr=self.stderr,
        )
        os.close(theirs)
        self.signal: int | None = None
        self.signalled = 0.0
        self.reasons: list[str] = []

    def follow(self) -> int:
        """Show what happens until it ends; its status, or 128 and the signal that ended it."""
        heard = [s for s in FORWARDED if signal.getsignal(s) != signal.SIG_IGN]  # nohup ignores one
        before = {sign: signal.signal(sign, self._forward) for sign in heard}
        try:
            with Monitor(self.title, self.cores) as monitor:
                for line in self._lines(monitor):
                    event = json.loads(line)
                    monitor.stopping = self.signal is not None
                    monitor.handle(event)
                    if event["event"] == "jobs" and self.title != "data":
                        self._forecast(monitor)
                status = self.process.wait()
            if status:
                self._kill()  # jobs that it left behind
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)
            os.close(self.pipe)
        return self._finish(monitor, status)

    def _forward(self, sign: int, _: object) -> None:
        self.signal, self.signalled = sign, time.monotonic()
        if not self.cores:  # told to terminate, Snakemake would wait for a cluster's jobs to end
            sign = signal.SIGINT
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, sign)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _lines(self, monitor: Monitor) -> Iterator[bytes]:
        """Whole lines from the pipe; the display is kept fresh while none comes."""
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.pipe, selectors.EVENT_READ)
            while True:
                if self.signal and self.cores and time.monotonic() > self.signalled + GRACE:
                    self._kill()
                if self.server:
                    self.server.watch()
                if not selector.select(timeout=1.0):
                    monitor.show()
                    continue
                found = os.read(self.pipe, 1 << 16)
                if not found:
                    return
                *lines, rest = (rest + found).split(b"\n")
                yield from lines

    def _forecast(self, monitor: Monitor) -> None:
        from iadd.pipeline.forecast import Forecast

        with contextlib.suppress(ValueError):  # then there is no estimate of the time left
            forecast = Forecast(self.plan)
            monitor.expect(forecast.seconds_of, forecast.means)

    def _finish(self, monitor: Monitor, status: int) -> int:
        if self.signal:
            print("iadd: interrupted; the same command goes on from here", file=sys.stderr)
            return 128 + self.signal
        if monitor.failed:
            lines = self.reasons = monitor.reasons()
        elif status:
            told = [one_line(last_of_trace(text)) for text in monitor.errors] or [self._told()]
            lines = [text if text.startswith("iadd: ") else f"iadd: {text}" for text in told]
        else:
            if monitor.total:
                jobs, took = counted(monitor.done, "job{s}"), time.monotonic() - monitor.began
                print(f"{self.title}: {jobs} done in {duration(took)}", file=sys.stderr)
            return 0
        print("\n".join(lines), file=sys.stderr)
        return status if status > 0 else 1

    def _told(self) -> str:
        """The last line that Snakemake wrote itself."""
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").split("\n")
        said = [line for line in lines if line.strip()]
        return said[-1] if said else f"snakemake ended with status {self.process.returncode}"


def last_of_trace(text: str) -> str:
    """The last line of a traceback, which says what happened; any other text as it is."""
    return text.rstrip().rpartition("\n")[2] if text.lstrip().startswith("Traceback (") else text


def refuse_overrides(options: Sequence[str]) -> None:
    """The file is the benchmark: what jobs do is what it says, and nothing is changed over it."""
    for option in options:
        word = option.partition("=")[0]
        if word == "-C" or (len(word) > 4 and "--configfiles".startswith(word)):
            raise ValueError(f"{word}: jobs read the benchmark's file; write it there instead")


def _with_profile(options: Sequence[str]) -> list[str]:
    """Ours by default; `workflow/profiles/<name>` of the package where the folder here has none."""
    name = slurm.value_of(options, "--profile")
    if name is None and slurm.value_of(options, "--executor") is None:
        return [*options, "--profile", str(WORKFLOW / "profiles" / "default")]
    if name is None or not name.startswith("workflow/") or Path(name).exists():
        return list(options)
    ours = str(PACKAGE / name)
    return [ours if word == name else word.replace(f"={name}", f"={ours}") for word in options]


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What Snakemake and its jobs need: our commands on the path, and a cache that is writable.

    Whatever is set for them is taken back: the caller's own commands must not go to our server.
    """
    before = dict(os.environ)
    here = str(Path(sys.executable).parent)  # jobs call `iadd`, installed beside this Python
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except (OSError, RuntimeError):
        os.environ["XDG_CACHE_HOME"] = str(Path(".snakemake/cache").absolute())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
