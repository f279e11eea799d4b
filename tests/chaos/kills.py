"""Random processes of a run are killed at random times."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from chaos.bench import Place, Stuck, Watch

KINDS = [["job", "client"], ["job", "client"], ["server"], ["snakemake"], ["run"], None]
"""What is killed during one run: one of these lists of kinds, or anything."""
RETRIES = 10
"""Kills of a stage during one run, which tries it again each time."""
PEACE = 4
"""Disturbed runs of one benchmark, after which it is left in peace until it has ended."""


class Tally:
    """Faults by kind, and what went wrong after them."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.lost: list[str] = []  # the same command did not come to an end
        self.false: list[str] = []  # it came to another one
        self.untidy: list[str] = []  # tracebacks, orphans
        self.stuck: list[str] = []  # it waited, and nothing moved
        self.undone: list[str] = []  # faults for which there was no time


def random_kills(
    folder: Path, expected: object, tally: Tally, until: float, seeds: int, seed: int = 0
) -> None:
    """Benchmarks run through kills, one after the other, until a time (of the monotonic clock)."""
    choose, number = random.Random(seed), 0
    while time.monotonic() < until:
        place = Place(folder / f"kills{number}", seeds=seeds)
        attempt(lambda place=place: _killed_often(place, expected, tally, choose), tally)
        number += 1


def _killed_often(place: Place, expected: object, tally: Tally, choose: random.Random) -> None:
    for disturbed in range(PEACE):
        running = place.run("--retries", str(choose.choice([0, 3])))
        kinds = choose.choice(KINDS)
        many = 1000 if kinds and "job" in kinds else 1 + disturbed
        _disturb(place, running, choose, kinds, many, tally)
        check(place, tally)
        if running.returncode == 0:
            break
    conclude(place, expected, tally)


def kills_of_stage(
    folder: Path, expected: object, tally: Tally, stage: str, times: int, seeds: int
) -> None:
    """One of the last stages is killed again and again through `iadd run`, which may retry it."""
    choose, place = random.Random(stage), Place(folder / stage, seeds=seeds)
    place.finish()
    for first in range(0, times, RETRIES):
        many = min(RETRIES, times - first)
        shutil.rmtree(place.results / "site", ignore_errors=True)
        for path in place.results.glob("*.parquet") if stage == "collect" else ():
            path.unlink()
        log, after = (place.results / "logs" / f"{name}.log" for name in (stage, "site"))
        log.unlink(missing_ok=True)
        after.unlink(missing_ok=True)
        running, watch = place.run("--retries", str(many - 1)), Watch(place)
        while running.poll() is None and not log.exists():
            watch.look()
            time.sleep(0.02)
        _disturb(place, running, choose, ["job", "client"], many, tally, stage, after)
        check(place, tally)
    conclude(place, expected, tally)


def _disturb(
    place: Place,
    running: subprocess.Popen[bytes],
    choose: random.Random,
    kinds: list[str] | None,
    many: int,
    tally: Tally,
    stage: str = "",
    after: Path | None = None,
) -> None:
    """Kill up to `many` processes of some kinds (None: any) while a run lasts, or a stage of it:
    until the log of the one after it is there."""
    killed, watch = 0, Watch(place)
    while running.poll() is None and killed < many:
        time.sleep(choose.uniform(0, 0.5))
        watch.look()
        if after and stage != after.stem and after.exists():
            break
        found = [(p, kind) for p, kind in place.processes().items() if not kinds or kind in kinds]
        if not found:
            time.sleep(0.02)
            continue
        process, kind = choose.choice(sorted(found))
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            tally.done[f"{stage}: {kind}" if stage else kind] += 1
            killed += 1
    place.wait(running)


def check(place: Place, tally: Tally) -> None:
    """What a disturbed run leaves: few lines, and no process."""
    if wrong := place.refused():
        tally.untidy.append(wrong)
    if found := place.left_behind():
        tally.untidy.append(f"left behind: {', '.join(found.values())}")


def refuses(place: Place, running: subprocess.Popen[bytes], what: str, tally: Tally) -> None:
    """A disturbed command must not end well."""
    tally.done[what] += 1
    if not place.wait(running):
        tally.false.append(f"{what}: ended with 0")
    check(place, tally)


def conclude(place: Place, expected: object, tally: Tally, keep: bool = False) -> None:
    """The same command in peace, and its tables beside those of an undisturbed one."""
    place.finish()
    if place.tables() != expected:
        tally.false.append(f"{place.folder}: other tables")
        return
    drafts = [path for path in place.results.rglob("*.tmp") if path.name.startswith(".")]
    for path in [*drafts, *place.temporary.iterdir()]:
        tally.untidy.append(f"left behind: {path}")
    if not keep:
        shutil.rmtree(place.folder)


def attempt(work: Callable[[], object], tally: Tally) -> None:
    """Do something to a run; that it did not come to its end is counted, and told in the end."""
    try:
        work()
    except Stuck as error:
        tally.stuck.append(str(error))
    except Exception as error:
        tally.lost.append(f"{type(error).__name__}: {error}")
