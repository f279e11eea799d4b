"""One fault at a time: disks, folders, clocks, locks, two at once, and a search's own servers."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from chaos.bench import SEARCH, Place, Watch
from chaos.disks import full_disks, search_on_a_small_disk, small_disk
from chaos.kills import Tally, check, conclude, refuses

WRITERS = 200
NOBODY = 65534
PR_CAPBSET_DROP, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER = 24, 1, 2, 3
RAYS = ["raylet", "gcs_server", "client", "raylet", "gcs_server", "ray"]
"""What is killed in a search, one a run; where a worker is killed (`ray`), the run goes on."""
NO_FLOCK = (
    "import fcntl\ndef flock(*_): raise OSError(37, 'No locks available')\nfcntl.flock = flock\n"
)


def folders(folder: Path, expected: object, tally: Tally) -> None:
    """Folders in which nothing may be written: read-only, or another's."""
    place = Place(folder / "folders")
    place.finish()
    kept = place.tables()
    faults = {"read-only folder": (partial(_modes, place.results, 0o555), _modes)}
    if os.getuid() == 0:
        faults["foreign folder"] = (partial(_owner, place.folder, NOBODY), _owner)
    for what, (change, back) in faults.items():
        with suppress(OSError):
            (place.results / "leaderboard.csv").unlink()
        change()
        refuses(place, place.start("run", "b.yaml", preexec_fn=_powerless), what, tally)
        back(place.folder)
        place.finish()
    if place.tables() != kept:
        tally.false.append("folders: other tables")


def _modes(folder: Path, mode: int = 0o755) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(mode)


def _owner(folder: Path, user: int = 0) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, user, user, follow_symlinks=False)


def _powerless() -> None:
    """Root may write everywhere: have the command that is started next be without that right."""
    if os.getuid() == 0:
        for right in DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER:
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, right, 0, 0, 0)


def clocks(folder: Path, expected: object, tally: Tally) -> None:
    """Files of yesterday and of tomorrow, as after a jump of the clock."""
    place, choose = Place(folder / "clocks"), random.Random(0)
    place.finish()
    for _ in range(3):
        for path in sorted(place.results.rglob("*")):
            if path.is_file():
                then = time.time() + choose.choice([-1, 0, 1]) * 86400
                os.utime(path, (then, then))
        tally.done["clock jump"] += 1
        running = place.run()
        if place.wait(running):
            tally.lost.append(f"clock jump: {place.end()}")
        check(place, tally)
    conclude(place, expected, tally)


def two_at_once(folder: Path, expected: object, tally: Tally) -> None:
    """Two of `iadd run` and a plain `snakemake` on one folder: one works, the others refuse."""
    import iadd

    place = Place(folder / "two")
    snakefile = Path(iadd.__file__).parent / "workflow" / "Snakefile"
    plain = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--cores", "2"]
    plain += ["--configfile", "b.yaml", "--nolock", "--rerun-incomplete"]
    together = []
    for k in range(3):
        out = (place.folder / f"said{k}").open("wb")
        words = plain if k == 1 else [sys.executable, "-m", "iadd", "run", "b.yaml"]
        how = {"cwd": place.folder, "env": place.environment, "stdout": out, "stderr": out}
        together.append(subprocess.Popen(words, **how))  # type: ignore[call-overload]
        time.sleep(1.0)
    ended = [place.wait(running) for running in together]
    tally.done["two at once"] += len(ended)
    for k, status in enumerate(ended):
        text = (place.folder / f"said{k}").read_text()
        if status and "is being run by another process (process " not in text:
            tally.untidy.append(f"two at once: {text[-2000:]}")
    if ended.count(0) < 1:
        tally.lost.append("two at once: none went on")
    conclude(place, expected, tally)


def many_writers(folder: Path, expected: object, tally: Tally) -> None:
    """200 processes write one file at once: a reader finds one of the contents, always whole."""
    from iadd.artifacts import atomic_write

    path = folder / "written"
    folder.mkdir(exist_ok=True)
    children = []
    for k in range(WRITERS):
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                for _ in range(3):
                    atomic_write(path, str(k % 10).encode() * 50_000)
                status = 0
            os._exit(status)
        children.append(child)
    torn = 0
    for child in children:
        with suppress(FileNotFoundError):
            content = path.read_bytes()
            torn += len(content) != 50_000 or len({*content}) > 1
        status = os.waitpid(child, 0)[1]
        tally.done["writer of one file"] += 1
        if status:
            tally.lost.append("many writers: one could not write")
    left = [other.name for other in folder.iterdir() if other.name.startswith(".written")]
    if torn or left:
        tally.false.append(f"many writers: {torn} torn reads, left behind {left[:3]}")


def no_flock(folder: Path, expected: object, tally: Tally) -> None:
    """A file system without locks; the holder is killed, and the same command goes on."""
    place = Place(folder / "flock")
    (folder / "without").mkdir()
    (folder / "without" / "sitecustomize.py").write_text(NO_FLOCK)
    paths = [str(folder / "without"), os.environ.get("PYTHONPATH", "")]
    place.environment["PYTHONPATH"] = os.pathsep.join(paths)
    running = place.run()
    while running.poll() is None and not list(place.results.rglob("shard*.safetensors")):
        time.sleep(0.05)
    first = list(place.processes())
    _signal(first, signal.SIGSTOP)  # so that it is still at work, however fast it is
    second = place.start("run", "b.yaml")
    refuses(place_of(place), second, "second run without locks", tally)
    _signal(first, signal.SIGCONT)
    running.kill()
    running.wait()
    tally.done["kill without locks"] += 1
    conclude(place, expected, tally)


def _signal(processes: list[int], sign: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, sign)


def place_of(place: Place) -> Place:
    """The place as it is checked while another run goes on, whose processes are not ours."""

    class Busy(Place):
        def __init__(self) -> None:
            self.__dict__.update(place.__dict__)

        def left_behind(self, seconds: float = 0) -> dict[int, str]:
            return {}

    return Busy()


def hasty_clients(folder: Path, expected: object, tally: Tally) -> None:
    """Clients of the warm server that leave at once, in a request, or before their answer."""
    place, choose = Place(folder / "clients"), random.Random(0)
    asked = {"argv": ["iadd", "plan", "b.yaml"], "cwd": str(place.folder), "env": place.environment}
    body = json.dumps(asked).encode()
    request = struct.pack("!Q", len(body)) + body
    running, watch, null = place.run(), Watch(place), os.open(os.devnull, os.O_RDWR)
    while running.poll() is None:
        watch.look()
        time.sleep(choose.uniform(0, 0.2))
        for address in place.temporary.glob("*/s"):
            with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(address))
                tally.done["client that leaves"] += 1
                words = request[: choose.choice([0, 5, 8, 100, len(request), len(request)])]
                if words:
                    socket.send_fds(client, [words[:8]], [null, null, null])
                    client.sendall(words[8:])
                time.sleep(choose.choice([0, 0, 0.05]))
    os.close(null)
    check(place, tally)
    conclude(place, expected, tally)


def searches(folder: Path, expected: object, tally: Tally, kills: int = len(RAYS)) -> None:
    """Ray's servers and workers of a search are killed; the winner is the undisturbed one's."""
    winners = []
    for name, number in (("peace", 0), ("war", kills)):
        place, choose = Place(folder / f"search-{name}", **SEARCH), random.Random(number)
        for stage in ("data", "experts"):
            assert place.wait(place.start(stage, "b.yaml")) == 0, place.end()
        words = ("search", "b.yaml", "--method", "mtt", "--ipc", "1")
        for kind in RAYS[:number]:
            running = place.start(*words)
            trials = place.results / "checkpoints" / "search" / "blobs-mtt-ipc1" / "trials.log"
            before = trials.stat().st_size if trials.exists() else 0
            while running.poll() is None and not (
                trials.exists() and trials.stat().st_size > before + 200
            ):
                time.sleep(0.05)
            time.sleep(choose.uniform(0, 1))
            for process, found in place.processes().items():
                if found == kind:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                    tally.done[f"search: {kind}"] += 1
            status, text = place.wait(running), place.said.read_text(errors="replace")
            if kind in ("raylet", "gcs_server") and status and "iadd: Ray's " not in text:
                tally.untidy.append(f"{kind} killed: ended with {status}: {place.end()}")
            check(place, tally)
        last = place.start(*words)
        if place.wait(last):
            tally.lost.append(f"search: {place.end()}")
            return
        winner = json.loads((place.results / "search" / "blobs-mtt-ipc1.json").read_text())
        winners.append({"params": winner["params"]})
        shutil.rmtree(place.folder)
    if winners[0] != winners[1]:
        tally.false.append(f"search: another winner: {winners}")


FAULTS: dict[str, Callable[[Path, object, Tally], None]] = {
    "writers": many_writers,
    "clients": hasty_clients,
    "two": two_at_once,
    "flock": no_flock,
    "clocks": clocks,
    "folders": folders,
    "disks": full_disks,
    **({"disk": small_disk, "search-disk": search_on_a_small_disk} if os.getuid() == 0 else {}),
    "search": searches,
}
