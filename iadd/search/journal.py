"""The trials of a search on disk, one small file each: a killed search goes on from them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from iadd.artifacts import atomic_write, canonical_json, spec_hash

RUNNING = "running"


@dataclass
class Entry:
    """One trial: its settings and what was measured at each rung.

    status: running, ok, stopped (by the scheduler or the budget), diverged, failed, confirmed.
    seed: 0 for a search's own trial; from 1 on for the finalists' further distillations.
    """

    number: int
    point: dict[str, Any]
    """What the searcher proposed, unrounded: by this the searcher knows the trial again."""
    settings: dict[str, Any]
    """The point as it was used."""
    seed: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    """iteration, accuracy (a fraction), seconds (of work so far): one a rung."""
    status: str = RUNNING
    attempts: int = 0
    device: str = "cpu"
    node: str = ""
    began: float = 0.0
    """Clock time of the first attempt; `ended`: of what was last heard."""
    ended: float = 0.0
    reason: str = ""
    parent: int | None = None
    """Of a population's member: the member whose run it took over; its own number at first."""
    branched: int = 0
    """The iteration at which it did so; the rows up to there are the parent's measurements."""
    rested: bool = False
    """Whether it stopped at a rung of its own accord, so that going on is no further attempt."""

    @property
    def key(self) -> str:
        member = {} if self.parent is None else {"member": self.number}  # two may branch alike
        return spec_hash({"settings": self.settings, "seed": self.seed} | member)[:16]

    @property
    def finished(self) -> bool:
        return self.status != RUNNING

    @property
    def iteration(self) -> int:
        """How far it came."""
        return max((row["iteration"] for row in self.rows), default=0)

    @property
    def seconds(self) -> float:
        return max((row["seconds"] for row in self.rows), default=0.0)

    @property
    def own_rows(self) -> list[dict[str, Any]]:
        """What it measured itself."""
        return [row for row in self.rows if row["iteration"] > self.branched]

    @property
    def own_iterations(self) -> int:
        return max(0, self.iteration - self.branched)

    @property
    def own_seconds(self) -> float:
        """What it cost: `seconds` of a member go on from one branch to the next."""
        before = [row["seconds"] for row in self.rows if row["iteration"] <= self.branched]
        return self.seconds - max(before, default=0.0)

    def at(self, iteration: int) -> float | None:
        """The accuracy of one rung, None if it did not come there."""
        found = (row["accuracy"] for row in self.rows if row["iteration"] == iteration)
        return next(found, None)

    @property
    def best(self) -> float:
        """The best validation accuracy so far: that of the images that the run would keep."""
        return max((row["accuracy"] for row in self.rows), default=0.0)

    def start(self) -> None:
        """Note an attempt."""
        self.attempts += not self.rested
        self.rested = False
        self.began = self.began or time.time()

    def add(self, iteration: int, accuracy: float, seconds: float) -> None:
        """Note a rung, once."""
        if all(row["iteration"] != iteration for row in self.rows):
            self.rows.append({"iteration": iteration, "accuracy": accuracy, "seconds": seconds})
            self.ended = time.time()
            self.rows.sort(key=lambda row: int(row["iteration"]))


class Journal:
    """The folder of a search's trials; every write is atomic, and files of another search go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def claim(self, spec: dict[str, Any]) -> None:
        """Take the folder for a search; trials that another spec left there are removed."""
        text = canonical_json(spec)
        mark = self.folder / "spec.json"
        if not mark.exists() or mark.read_text() != text:
            if old_trials := len(self.entries(None)):
                print(f"{self.folder}: {old_trials} trials of other settings or code are removed")
            for old in ("trials", "sets"):
                shutil.rmtree(self.folder / old, ignore_errors=True)
        (self.folder / "trials").mkdir(parents=True, exist_ok=True)
        atomic_write(mark, text.encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one process; the kernel lets go when that dies."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise ValueError(f"{self.folder}: cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise ValueError(f"{self.folder}: another process is searching there") from None
        finally:
            os.close(handle)

    def path(self, key: str) -> Path:
        return self.folder / "trials" / f"{key}.json"

    def checkpoint(self, key: str) -> Path:
        """Where a trial's outer loop keeps itself."""
        return self.folder / "sets" / f"{key}.safetensors"

    def write(self, entry: Entry) -> None:
        atomic_write(self.path(entry.key), canonical_json(asdict(entry)).encode())

    def read(self, key: str) -> Entry | None:
        """A trial by its key; None for one that never wrote anything, or not its whole self."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Entry(**json.loads(self.path(key).read_text()))
        return None

    def entries(self, seed: int | None = 0) -> list[Entry]:
        """Trials in their order, with a member's branches.

        seed None: also the finalists' further distillations.
        """
        found = (self.read(path.stem) for path in sorted((self.folder / "trials").glob("*.json")))
        known = [entry for entry in found if entry and seed in (None, entry.seed)]
        return sorted(known, key=lambda entry: (entry.number, entry.branched, entry.seed))

    def close(self, entry: Entry, status: str, reason: str = "") -> None:
        """A trial that will not go on: note why, drop its checkpoint."""
        if not entry.finished:
            entry.status, entry.reason = status, reason
            self.write(entry)
        self.checkpoint(entry.key).unlink(missing_ok=True)
