"""The processes of a run: which there are, what each is, and what they wait for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "IADD_CHAOS"
"""In the environment of every process of a run: by it they are found, whoever their parent is."""
TICKS = os.sysconf("SC_CLK_TCK")


def processes(mark: str) -> Iterator[tuple[int, str]]:
    """Living processes of a run, and what each is."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = stat(int(folder.name))
            if words[0] and state[0] != "Z":
                yield int(folder.name), kind_of(words, int(folder.name), int(state[1]))


def stat(process: int) -> list[str]:
    """What the kernel says of a process, from its state on."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def kind_of(words: list[str], process: int, parent: int) -> str:
    """run, snakemake, server, job (of the server), client (what asks for it), or one of Ray's."""
    line = " ".join(words)
    if "iadd.pipeline.events" in line:
        return "snakemake"
    for name in ("raylet", "gcs_server", "ray::"):
        if name in line:
            return name.strip(":")
    if "ray/" in line:
        return "ray's own"
    if "-m iadd run" not in line:
        return "client"
    with suppress(OSError):
        above = Path(f"/proc/{parent}/cmdline").read_bytes().decode().split("\0")
        if above != words:
            return "run"
        grand = int(stat(parent)[1])
        over = Path(f"/proc/{grand}/cmdline").read_bytes().decode().split("\0")
        return "job" if over == words else "server"
    return "job"


def end(mark: str) -> None:
    """Kill all processes of a run."""
    for process, _ in processes(mark):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def told(mark: str) -> str:
    """A line a process and what it waits for, the locks held, stacks where py-spy is installed."""
    lines, found = [], dict(processes(mark))
    for process, kind in sorted(found.items()):
        with suppress(OSError):
            place, state = Path(f"/proc/{process}"), stat(process)
            waits = (place / "wchan").read_text() or "-"
            spent = (int(state[11]) + int(state[12])) / TICKS
            words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
            told = f"{process} of {state[1]}: {kind}, {state[0]} in {waits}, {spent:.1f} s"
            lines.append(f"{told}: {' '.join(words)[-160:]}")
    with suppress(OSError):
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        lines += [" ".join(words) for words in held if any(str(p) in words for p in found)]
    if spy := shutil.which("py-spy"):
        for process in found:
            command = [spy, "dump", "--pid", str(process)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines.append(done.stdout)
    return "\n".join(lines)
