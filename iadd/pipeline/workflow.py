"""What the Snakefile asks of the package: the plan in the workflow's words."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iadd.artifacts import canonical_json
from iadd.pipeline import privacy_plan
from iadd.pipeline.config import Config, load_config, refuse_shell
from iadd.pipeline.plan import Plan, Run
from iadd.pipeline.processes import SNAKEMAKE
from iadd.pipeline.signatures import inspected

TABLES = (
    *("evaluations", "traces", "weights", "trials", "comparisons"),
    *("privacy", "submissions", "leaderboard"),
)
"""What `collect` writes, the leaderboard last."""


@inspected
class Jobs:
    """Functions of a rule's wildcards.

    Args:
        files: the workflow's configuration files. There must be one: it is what jobs read.
        changes: what `--config` would change over it, which jobs would not see.

    Ends Snakemake by one line for more than one file, for changes, or for what the file says.
    """

    def __init__(self, files: Sequence[str | Path], changes: Mapping[str, Any]) -> None:
        self.path = str(files[0])
        try:
            if changes or len(files) != 1:
                given = f"--config {' '.join(changes)}" if changes else f"{len(files)} configfiles"
                raise ValueError(f"{given}: jobs read one file and no changes over it; edit that")
            refuse_shell(self.path)
            self.plan = Plan(load_config(self.path))
            for submission in self.config.submissions:
                for run in submission.runs():
                    self.plan.job_spec(run)  # of the file's content: it must be there
        except ValueError as error:
            print(f"iadd: {error}", file=sys.stderr)
            sys.exit(2)

    def hold(self) -> None:
        """Take the benchmark's lock until this Snakemake ends; `iadd run` has it already."""
        if SNAKEMAKE in os.environ:
            return
        self._held = self.plan.lock()
        try:
            self._held.__enter__()
        except ValueError as error:
            print(f"iadd: {error}", file=sys.stderr)
            sys.exit(2)

    @property
    def config(self) -> Config:
        return self.plan.config

    def shards(self, wildcards: Any) -> list[Path]:
        """Expert shards that a distillation reads."""
        return self.plan.needs(wildcards.dataset, wildcards.method)

    def teachers(self, wildcards: Any) -> list[Path]:
        """Expert shards that an evaluation reads, where a protocol has a teacher."""
        return self.plan.teachers(wildcards.dataset)

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

    def privacy(self, wildcards: Any) -> list[Path]:
        """What sets give away, a table each, where that is asked."""
        return [self.plan.paths(run).privacy for run in privacy_plan.exposed(self.plan)]

    def pairs(self, wildcards: Any) -> list[Path]:
        """The pictures of distilled images beside real ones."""
        return [self.plan.paths(run).pairs for run in privacy_plan.exposed(self.plan)]

    def yardstick(self, wildcards: Any) -> Path:
        return self.plan.yardstick(wildcards.dataset, int(wildcards.ipc))

    def pictures(self, wildcards: Any) -> list[Path]:
        return [self.plan.paths(run).picture for run in self.plan.runs()]

    def everything(self, wildcards: Any) -> list[Path]:
        """Every output that a user looks at."""
        tables = [self.plan.table(name) for name in TABLES]
        page = self.plan.root / "site" / "index.html"
        pages = [tables[-1].with_suffix(".csv"), page]
        runs = (self.evaluations(None), self.traces(None), self.pictures(None))
        searches = (self.trials(None), self.searches(None), self.privacy(None), self.pairs(None))
        return [*tables, *pages, *(path for paths in (*runs, *searches) for path in paths)]

    # The data: small facts by their content, tensors only as files that must be there.

    def about(self, wildcards: Any) -> Path:
        """The facts of a run's data: what comes of them is made again when these are others."""
        return self.plan.data(self._dataset(wildcards)).about

    def abouts(self, wildcards: Any) -> list[Path]:
        """The facts of all data sets, which tables and page read."""
        return [self.plan.data(dataset.key).about for dataset in self.config.datasets]

    def train(self, wildcards: Any) -> Path:
        return self.plan.data(self._dataset(wildcards)).train

    def test(self, wildcards: Any) -> Path:
        return self.plan.data(self._dataset(wildcards)).test

    def _dataset(self, wildcards: Any) -> str:
        return str(getattr(wildcards, "dataset", None) or self.dataset(wildcards))

    def dataset(self, wildcards: Any) -> str:
        """The data set whose experts lie in a folder."""
        return self._experts(wildcards)[0]

    def recipe(self, wildcards: Any) -> str:
        """The recipe of the experts that lie in a folder."""
        return self._experts(wildcards)[1]

    def _experts(self, wildcards: Any) -> tuple[str, str]:
        for dataset in self.config.datasets:
            for recipe in self.plan.recipes:
                if self.plan.experts_folder(dataset.key, recipe).name == wildcards.folder:
                    return dataset.key, recipe
        raise ValueError(f"no data set of this benchmark has experts in {wildcards.folder!r}")

    # Specs: a rule reruns when its own has changed. What is in the data is not in them: that is
    # unknown when the graph is drawn, and comes by the file of facts.

    def data_spec(self, wildcards: Any) -> str:
        return canonical_json(self.plan.data_spec(wildcards.dataset))

    def experts_spec(self, wildcards: Any) -> str:
        return canonical_json({"folder": wildcards.folder, "source": self.plan.experts_source()})

    def distill_spec(self, wildcards: Any) -> str:
        # Not the winner's parameters: they are an input file, unknown when the graph is drawn.
        return canonical_json(self.plan.job_spec(_run(wildcards)))

    def search_spec(self, wildcards: Any) -> str:
        run = wildcards.dataset, wildcards.method, int(wildcards.ipc)
        return canonical_json(self.plan.search_job_spec(*run))

    def evaluation_spec(self, wildcards: Any) -> str:
        return canonical_json(self.plan.evaluation_job_spec())

    def yardstick_spec(self, wildcards: Any) -> str:
        return canonical_json(privacy_plan.yardstick_job_spec(self.plan, int(wildcards.ipc)))

    def privacy_spec(self, wildcards: Any) -> str:
        return canonical_json(privacy_plan.privacy_job_spec(self.plan))

    def tables_spec(self, wildcards: Any) -> str:
        return canonical_json(self.plan.tables_spec())


def _run(wildcards: Any) -> Run:
    w = wildcards
    return Run(w.dataset, w.method, int(w.ipc), int(w.seed), bool(w.tuned))
