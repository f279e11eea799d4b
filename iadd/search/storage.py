"""The trials of a search in Optuna's own storage: one journal file, written by the driver alone.

Workers report through Ray. So the file has one writer, needs no locking that a shared file system
may lack, and holds all that a killed search goes on from; Ray's own state is thrown away.
"""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadd.artifacts import atomic_write, canonical_json, locked, remove, spec_hash

if TYPE_CHECKING:
    import optuna
    from optuna import Study
    from optuna.trial import FrozenTrial

RUNNING = "running"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors of a disk that takes no more."""


@dataclass(frozen=True)
class Trial:
    """One distillation of a search and what was measured of it.

    rungs: lists of iteration, validation accuracy (a fraction), seconds of work so far.
    status: running, ok, stopped (by the scheduler or the budget), diverged, failed, confirmed.
    seed: 0 for a search's own trial; from 1 on for the finalists' further distillations.
    """

    number: int
    settings: dict[str, Any]
    rungs: list[list[Any]] = field(default_factory=list)
    status: str = RUNNING
    device: str = "cpu"
    node: str = ""
    seed: int = 0

    @property
    def iteration(self) -> int:
        """How far it came."""
        return int(max((rung[0] for rung in self.rungs), default=0))

    @property
    def best(self) -> float:
        """The best accuracy so far: that of the images that the run would keep."""
        return float(max((rung[1] for rung in self.rungs), default=0))

    @property
    def seconds(self) -> float:
        """What it cost."""
        return float(max((rung[2] for rung in self.rungs), default=0))

    @property
    def key(self) -> str:
        """What a further distillation of a finalist is known by."""
        return spec_hash({"settings": self.settings, "seed": self.seed})[:16]


class State:
    """The folder of a search: its lock, its claim, its trials, their checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "trials.log"

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder for one process; it is free again when that process dies."""
        return locked(
            self.folder / ".lock", f"{self.folder}: another process is searching there", 0
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A full disk is one line, whoever wrote: Optuna its trials, or Ray its own records."""
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            reason = os.strerror(error.errno)
            raise ValueError(f"{self.folder}: cannot be written ({reason})") from error

    def claim(self, spec: dict[str, Any]) -> None:
        """Take the folder for a search; trials that another spec left there are removed."""
        text, mark = canonical_json(spec), self.folder / "spec.json"
        if not mark.exists() or mark.read_text() != text:
            if self.journal.exists():
                print(f"{self.folder}: trials of other settings or code are removed")
            self.journal.unlink(missing_ok=True)
            shutil.rmtree(self.folder / "sets", ignore_errors=True)
        atomic_write(mark, text.encode())

    def checkpoint(self, name: object) -> Path:
        """Where a trial's outer loop keeps itself, by the trial's number or key."""
        return self.folder / "sets" / f"{name}.safetensors"

    @cached_property
    def study(self) -> Study:
        """The trials; only for who holds the lock."""
        import optuna
        from optuna.storages.journal import JournalFileBackend

        # A kill in the middle of a write leaves half a line, or Optuna's lock on the file.
        self.journal.with_name(f"{self.journal.name}.lock").unlink(missing_ok=True)
        if self.journal.exists():
            whole = self.journal.read_bytes().rfind(b"\n") + 1
            with self.journal.open("r+b") as file:
                file.truncate(whole)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of features that Optuna calls experimental
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(self.journal)))
        return optuna.create_study(
            storage=storage, study_name="trials", direction="maximize", load_if_exists=True
        )

    def trials(self) -> list[Trial]:
        """What is known of the search's trials, by number."""
        return [trial_of(frozen) for frozen in self.study.trials]

    def confirmed(self) -> dict[str, Trial]:
        """The finalists' further distillations that have ended, by key."""
        return {key: Trial(**plain) for key, plain in self.study.user_attrs.items()}

    def confirm(self, trial: Trial) -> None:
        """Note a finalist's further distillation that has ended."""
        self.study.set_user_attr(trial.key, asdict(trial))
        remove(self.checkpoint(trial.key))

    def note(self, number: int, result: dict[str, Any]) -> None:
        """Note a rung that a trial reported; what a resumed trial tells again is noted once."""
        frozen, handle = self._trial(number)
        rungs, iteration = frozen.user_attrs.get("rungs", []), result["iteration"]
        if result["measured"] is None or any(rung[0] == iteration for rung in rungs):
            return
        if iteration not in frozen.intermediate_values:
            handle.report(result["accuracy"], iteration)
        handle.set_user_attr("place", {"device": result["device"], "node": result["node"]})
        handle.set_user_attr("rungs", [*rungs, [iteration, result["measured"], result["seconds"]]])

    def end(self, number: int, status: str) -> None:
        """Note that a trial has ended, and how; one that was stopped has its last rung's value."""
        from optuna.trial import TrialState

        frozen, handle = self._trial(number)
        handle.set_user_attr("status", status)
        how = {"stopped": TrialState.PRUNED, "failed": TrialState.FAIL}.get(status)
        self.study.tell(number, None if how else trial_of(frozen).best, state=how)
        remove(self.checkpoint(number))

    def _trial(self, number: int) -> tuple[FrozenTrial, optuna.Trial]:
        """A trial as it was noted, and what takes further notes."""
        import optuna

        frozen = self.study.get_trials(deepcopy=False)[number]
        return frozen, optuna.Trial(self.study, frozen._trial_id)


def trial_of(frozen: FrozenTrial) -> Trial:
    """A trial as Optuna keeps it -> as the search sees it."""
    settings, notes = dict(sorted(frozen.params.items())), frozen.user_attrs
    status, place = notes.get("status", RUNNING), notes.get("place", {})
    return Trial(frozen.number, settings, notes.get("rungs", []), status, **place)
