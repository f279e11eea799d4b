"""Full disks: under every stage, and one that grows until all fits."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.bench import SEARCH, Place
from chaos.kills import Tally, check, conclude, refuses

SIZES = [int(16 * 1.5**step) for step in range(16)]
"""KiB of a disk: from too small for a lock to more than the benchmark needs."""
PRIVACY = {"networks": 1, "shadows": 2, "feature_epochs": 1}


def full_disks(folder: Path, expected: object, tally: Tally) -> None:
    """Every stage by hand where no file may have more than a few bytes, then `iadd run`."""
    place = Place(folder / "disk", privacy=PRIVACY, **SEARCH)
    one, what = ("--method", "mtt", "--ipc", "1"), "b.yaml"
    for stage in (
        *(["data", what], ["experts", what], ["search", what, *one], ["distill", what, *one]),
        *(["evaluate", what, *one], ["privacy", what, "--ipc", "1"], ["privacy", what, *one]),
    ):
        full = place.start(*stage, preexec_fn=lambda: _files_up_to(1500))
        refuses(place, full, f"full disk in {stage[0]}", tally)
        if place.wait(place.start(*stage)):
            raise AssertionError(place.end())
    place.finish()
    for stage in ("collect", "site"):
        full = place.start(stage, what, preexec_fn=lambda: _files_up_to(4000))
        refuses(place, full, f"full disk in {stage}", tally)
    whole = place.tables()
    full = place.run("--forcerun", "data", preexec_fn=lambda: _files_up_to(9000))
    refuses(place, full, "full disk under iadd run", tally)
    conclude(place, whole, tally)


def small_disk(folder: Path, expected: object, tally: Tally) -> None:
    """A disk of its own that really fills up, and grows a little after each run."""
    place = Place(folder / "small-disk")
    with _disk(place) as grow:
        for size in SIZES:
            grow(size)
            if not place.wait(place.run()):
                break
            tally.done["full disk, of all sizes"] += 1
            check(place, tally)
        grow(2**16)
        conclude(place, expected, tally, keep=True)


def search_on_a_small_disk(folder: Path, expected: object, tally: Tally) -> None:
    """The same under a search alone: its trials, checkpoints and Ray's results lie there."""
    place, words = Place(folder / "searched", **SEARCH), ["search", "b.yaml", "--method", "mtt"]
    with _disk(place) as grow:
        grow(2**16)
        for stage in ("data", "experts"):
            if place.wait(place.start(stage, "b.yaml")):
                raise AssertionError(place.end())
        used = shutil.disk_usage(place.results).used // 2**10
        for more in (0, 8, 24, 72):
            grow(used + more)
            if place.wait(place.start(*words, "--ipc", "1")):
                tally.done["full disk in search, of all sizes"] += 1
                check(place, tally)
        grow(2**16)
        if place.wait(place.start(*words, "--ipc", "1")):
            tally.lost.append(f"search on a small disk: {place.end()}")


@contextmanager
def _disk(place: Place) -> Iterator[Callable[[int], object]]:
    """Results on a disk of their own, whose KiB may be set anew; root alone can."""
    disk, mount = place.folder / "results", ["mount", "-t", "tmpfs", "-o"]
    disk.mkdir()
    subprocess.run([*mount, "size=16k", "tmpfs", str(disk)], check=True)
    try:
        yield lambda size: subprocess.run([*mount, f"remount,size={size}k", str(disk)], check=True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _files_up_to(most: int) -> None:
    """What a full disk does, without one: a larger file cannot be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
