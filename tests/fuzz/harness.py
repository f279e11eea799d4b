"""Feeds a loader mutated files in forked children with limits, and counts what comes of them."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from iadd.artifacts import one_line

MEMORY = 4 * 2**30
"""Bytes that a child may take beyond what it begins with."""
SECONDS = 10
"""Of processor time for one input."""
PATIENCE = 60
"""Seconds for one input on a busy machine, also of one that waits."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ACTS = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")
ACTS += ("os.truncate", "shutil.", "subprocess.", "os.system", "os.exec", "os.posix_spawn")
ACTS += ("os.spawn", "socket.connect", "socket.bind", "socket.getaddrinfo", "pty.spawn")
"""Audit events by which a loader would do more than read."""

Craft = Callable[[Random, bytes], bytes]


@dataclass(frozen=True)
class Loader:
    """What is fed.

    `file`: the name that its files have. `corpus`: sound small files. `crafts`: mutators that know
    the format; others work on bytes. `load`: reads a file, and uses it as its callers do.
    """

    name: str
    file: str
    corpus: Sequence[bytes]
    load: Callable[[Path], object]
    crafts: Sequence[Craft] = ()


@dataclass
class Outcome:
    """How many inputs were read, refused in one line, or neither; the faults with their inputs."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str, bytes]] = field(default_factory=list)

    def kinds(self) -> Counter[str]:
        return Counter(told for _, told, _ in self.faults)


def mutant(loader: Loader, seed: int, number: int) -> bytes:
    """Input `number`: the same whenever it is asked for."""
    from fuzz.mutate import GENERAL

    random = Random(f"{seed}/{loader.name}/{number}")
    content = random.choice(loader.corpus)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        crafted = loader.crafts and random.random() < 0.6
        if crafted:
            try:
                content = random.choice(loader.crafts)(random, content)
                continue
            except Exception:  # an earlier mutation has left nothing that it could work on
                pass
        content = random.choice(GENERAL)(random, content, loader.corpus)
    return content


def feed(loader: Loader, numbers: Sequence[int], seed: int, folder: Path) -> Outcome:
    """Feed inputs by number; each child takes what is left until one of them kills it."""
    found = Outcome()
    places = []
    for number in numbers:
        place = folder / str(number)
        place.mkdir(parents=True)
        (place / loader.file).write_bytes(mutant(loader, seed, number))
        places.append(place / loader.file)
    before = sorted(folder.rglob("*"))
    done = 0
    while done < len(numbers):
        told = _child(loader, places[done:])
        for kind, text in told:
            if kind == "fault":
                content = places[done].read_bytes()
                found.faults.append((numbers[done], text, content))
            found.counts[kind] += 1
            done += 1
    if sorted(folder.rglob("*")) != before:
        found.faults.append((numbers[0], "wrote files beside its input", b""))
        found.counts["fault"] += 1
    shutil.rmtree(folder)
    return found


def _child(loader: Loader, paths: Sequence[Path]) -> list[tuple[str, str]]:
    """What came of each path, (kind, text), as far as one child came."""
    sys.stdout.flush()
    pipe, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(pipe)
            _work(loader, paths, theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(pipe, "rb") as answers:
        told = [tuple(json.loads(line)) for line in answers.read().splitlines()]
    status = os.waitpid(child, 0)[1]
    if len(told) < len(paths):
        sign = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        ends = {signal.SIGXFSZ: "writes", signal.SIGPROF: f"takes {SECONDS} s of processor time"}
        ends |= {signal.SIGALRM: f"waits for {PATIENCE} s"}
        end = f"{signal.Signals(sign).name} kills it" if sign else "ends the process"
        told.append(("fault", ends.get(sign, end)))
    return told


def _work(loader: Loader, paths: Sequence[Path], pipe: int) -> None:
    sys.dont_write_bytecode = True
    faulthandler.disable()  # What it writes of a crash would be taken for the fault.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    for sign in (signal.SIGALRM, signal.SIGPROF, signal.SIGXFSZ):
        signal.signal(sign, signal.SIG_DFL)
    with open("/proc/self/statm") as file:  # noqa: PTH123
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    acts: list[str] = []
    sys.addaudithook(lambda event, args: _watch(acts, event, args))
    for path in paths:
        acts.clear()
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        kind, text = _tried(loader, path)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if acts:
            kind, text = "fault", f"acts: {acts[0]}"
        os.write(pipe, json.dumps((kind, text)).encode() + b"\n")


def _watch(acts: list[str], event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = args
        if isinstance(flags, int) and flags & WRITES and path not in (os.devnull, "/dev/null"):
            acts.append(f"opens {path!r} for writing")
    elif event.startswith(ACTS):
        acts.append(f"{event} {args!r}"[:200])


def _tried(loader: Loader, path: Path) -> tuple[str, str]:
    """ok; refused, in one line that names the file; or a fault."""
    try:
        loader.load(path)
    except ValueError as error:
        text = one_line(str(error))  # as the command line tells it
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError) or "allocate" in str(cause):
                return "fault", f"asks for too much memory ({str(cause)[:80]})"
            cause = cause.__cause__ or cause.__context__
        if path.name not in text:
            return "fault", f"refusal without the file's name: {_at(error)}: {text[:160]}"
        return "refused", ""
    except BaseException as error:
        return "fault", f"{type(error).__name__} at {_at(error)}: {str(error)[:160]}"
    return "ok", ""


def _at(error: BaseException) -> str:
    """The last line of ours that an error came through."""
    trace, place = error.__traceback__, "?"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/iadd/" in file and "site-packages" not in file:
            place = f"{file.rpartition('/iadd/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
