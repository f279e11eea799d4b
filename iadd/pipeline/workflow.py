"""What the Snakefile asks of the package, and the command that runs it."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from iadd.artifacts import canonical_json
from iadd.pipeline import jobserver
from iadd.pipeline.config import Config, load_config, parse_config
from iadd.pipeline.plan import Plan, Run


class Jobs:
    """The plan in the workflow's words: functions of a rule's wildcards."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.plan = Plan(parse_config(config, "config"))

    @property
    def config(self) -> Config:
        return self.plan.config

    def shards(self, wildcards: Any) -> list[Path]:
        """Expert shards that a distillation reads."""
        return self.plan.needs(wildcards.dataset, wildcards.method)

    def winner(self, wildcards: Any) -> list[Path]:
        """What a tuned distillation takes its parameters from."""
        if not wildcards.tuned:
            return []
        return [self.plan.winner(wildcards.dataset, wildcards.method, int(wildcards.ipc))]

    def tuned(self, wildcards: Any) -> str:
        """The option of a tuned run."""
        return "--tuned" if wildcards.tuned else ""

    def trials(self, wildcards: Any) -> list[Path]:
        return [self.plan.trials(*search) for search in self.plan.searches()]

    def searches(self, wildcards: Any) -> list[Path]:
        """The pictures of the searches."""
        return [self.plan.winner(*s).with_suffix(".png") for s in self.plan.searches()]

    def evaluations(self, wildcards: Any) -> list[Path]:
        return [self.plan.paths(run).evaluation for run in self.plan.runs()]

    def traces(self, wildcards: Any) -> list[Path]:
        return [self.plan.paths(run).trace for run in self.plan.runs()]

    def pictures(self, wildcards: Any) -> list[Path]:
        return [self.plan.paths(run).picture for run in self.plan.runs()]

    def dataset_of_folder(self, wildcards: Any) -> str:
        """The data set whose experts lie in a folder."""
        for dataset in self.config.datasets:
            if self.plan.experts_folder(dataset.key).name == wildcards.folder:
                return dataset.key
        raise ValueError(f"no data set of this benchmark has experts in {wildcards.folder!r}")

    # Specs: a rule reruns when its own has changed.

    def experts_spec(self, wildcards: Any) -> str:
        return canonical_json(self.plan.experts_spec(self.dataset_of_folder(wildcards)))

    def distill_spec(self, wildcards: Any) -> str:
        # Not the winner's parameters: they are an input file, unknown when the graph is drawn.
        return canonical_json(self.plan.job_spec(_run(wildcards)))

    def search_spec(self, wildcards: Any) -> str:
        run = wildcards.dataset, wildcards.method, int(wildcards.ipc)
        return canonical_json(self.plan.search_spec(*run))

    def evaluation_spec(self, wildcards: Any) -> str:
        return canonical_json(self.plan.evaluation_spec(wildcards.dataset))

    def tables_spec(self, wildcards: Any) -> str:
        return canonical_json(self.plan.tables_spec())


def _run(wildcards: Any) -> Run:
    w = wildcards
    return Run(w.dataset, w.method, int(w.ipc), int(w.seed), bool(w.tuned))


def run(config: Path, cores: int, options: Sequence[str], command: Callable[[], None]) -> None:
    """Replace this process by Snakemake on the benchmark, holding its lock.

    Snakemake's own lock outlives a killed run and then refuses the next; this one is the kernel's
    and dies with its holder. `command` is what a warm server runs for its jobs.
    """
    if shutil.which("snakemake", path=str(Path(sys.executable).parent)) is None:
        raise ValueError("snakemake is not installed here: pip install 'iadd[workflow]'")
    root = Path("results")
    benchmark = load_config(config).benchmark
    try:
        root.mkdir(exist_ok=True)
        lock = os.open(root / f".{benchmark}.lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise ValueError(f"{root.absolute()}: cannot be written ({error.strerror})") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"benchmark {benchmark!r} is being run by another process") from None
    os.set_inheritable(lock, True)
    here = str(Path(sys.executable).parent)  # jobs call `iadd`, installed beside this Python
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
    snakemake = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--nolock"]
    profile = []
    if not {"--profile", "--executor"} & set(options):
        profile = ["--profile", "workflow/profiles/default"]
        os.environ[jobserver.VARIABLE] = jobserver.start(
            command
        )  # local jobs only: a cluster counts its own
    os.execv(sys.executable, [*snakemake, *profile, "--configfile", str(config), *options])
