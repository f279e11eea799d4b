"""A run is a value, and every file of a benchmark has one place."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from iadd.artifacts import holder, locked


@dataclass(frozen=True)
class Run:
    """One distillation: `tuned` takes its parameters from a search, not from the config."""

    dataset: str
    method: str
    ipc: int
    seed: int
    tuned: bool = False

    @property
    def place(self) -> str:
        """Where its files lie below the folders of their kinds, without an ending."""
        tuned = "-tuned" if self.tuned else ""
        return f"{self.dataset}/{self.method}/ipc{self.ipc}{tuned}/seed{self.seed}"

    def __str__(self) -> str:
        tuned = ", tuned" if self.tuned else ""
        return f"{self.method} on {self.dataset}, ipc {self.ipc}, seed {self.seed}{tuned}"


@dataclass(frozen=True)
class File:
    """Attribute of a class with a folder `root` and a `place` in it: the path of one file.

    It is put together when it is asked for, as runs are many.
    """

    form: str
    """Relative to the root; `{}` stands for the place."""

    def __get__(self, files: Files, _: object) -> Path:
        return files.root / self.form.format(files.place)


@dataclass(frozen=True)
class Files:
    """A folder, and the place in it that the paths of some files are made of."""

    root: Path
    place: str


class RunPaths(Files):
    """Where a run's files lie."""

    distilled = File("distilled/{}.safetensors")
    trace = File("distilled/{}.trace.parquet")
    picture = File("distilled/{}.png")
    evaluation = File("evaluations/{}.parquet")
    privacy = File("privacy/{}.parquet")
    pairs = File("privacy/{}.png")
    checkpoint = File("checkpoints/{}.safetensors")
    """No output of the workflow, which deletes those of a killed job."""


class DataPaths(Files):
    """Where a data set's prepared tensors lie."""

    folder = File("data/{}")
    about = File("data/{}/about.json")
    train = File("data/{}/train.safetensors")
    test = File("data/{}/test.safetensors")
    made = File("data/{}/made.json")
    """Says from what they were made, and is no output of the workflow."""


PATIENCE = 3.0
"""Seconds in which the processes of a killed run are gone."""


class Layout:
    """Where the files of a benchmark lie: the contract's paths, relative to the working folder."""

    def __init__(self, benchmark: str) -> None:
        self.root = Path("results") / benchmark
        self._lock = self.root.with_name(f".{self.root.name}.lock")

    def lock(self) -> AbstractContextManager[None]:
        """Hold the benchmark: one Snakemake works on it at a time, whoever started it."""
        refused = f"benchmark {self.root.name!r} is being run by another process"
        return locked(self._lock, refused, PATIENCE)

    @property
    def is_run_here(self) -> bool:
        """Whether a process of this machine holds the benchmark."""
        return bool(holder(self._lock))

    def data(self, dataset: str) -> DataPaths:
        """Where a data set's prepared tensors lie."""
        return DataPaths(self.root, dataset)

    def paths(self, run: Run) -> RunPaths:
        """Where a run's files lie."""
        return RunPaths(self.root, run.place)

    def log(self, rule: str, place: str) -> Path:
        """What a job of a rule says; `place` tells which one."""
        return self.root / "logs" / rule / f"{place}.log"

    def progress_file(self, rule: str, place: str) -> Path:
        """Where a job says how far it is while it runs (`progress.Progress`)."""
        return self.root / "running" / f"{rule}+{place.replace('/', '+')}.json"

    def yardstick(self, dataset: str, ipc: int) -> Path:
        """What the report on privacy measures the sets of one ipc against."""
        return self.root / "privacy" / dataset / f"ipc{ipc}.safetensors"

    def winner(self, dataset: str, method: str, ipc: int) -> Path:
        """What a search found; its trials lie beside it."""
        return self.root / "search" / f"{dataset}-{method}-ipc{ipc}.json"

    def trials(self, dataset: str, method: str, ipc: int) -> Path:
        """The table of a search's trials."""
        return self.winner(dataset, method, ipc).with_suffix(".trials.parquet")

    def search_state(self, dataset: str, method: str, ipc: int) -> Path:
        """Where a search keeps its trials while it runs: not among the workflow's outputs."""
        return self.root / "checkpoints" / "search" / self.winner(dataset, method, ipc).stem

    def table(self, name: str) -> Path:
        """One of the benchmark's tables, e.g. `leaderboard`."""
        return self.root / f"{name}.parquet"
