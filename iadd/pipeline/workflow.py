"""What the Snakefile asks of the package: the plan in the workflow's words."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
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
        elsewhere: whether files lie in a storage, and the folder here says nothing of them.

    Ends Snakemake by one line for more than one file, for changes, or for what the file says.
    """

    def __init__(
        self, files: Sequence[str | Path], changes: Mapping[str, Any], elsewhere: bool = False
    ) -> None:
        self.path, self.elsewhere = str(files[0]), elsewhere
        try:
            if changes or len(files) != 1:
                given = f"--config {' '.join(changes)}" if changes else f"{len(files)} configfiles"
                raise ValueError(f"{given}: jobs read one file and no changes over it; edit that")
            refuse_shell(self.path)
            self.plan = Plan(load_config(self.path))
            self.plan.check_submissions()
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

    def distilled_from(self, wildcards: Any) -> list[str | Path]:
        """Beside the images: facts, expert shards, and a tuned run's winner of its search."""
        found: list[str | Path] = [self.about(wildcards)]
        found += self.plan.needs(wildcards.dataset, wildcards.method)
        if getattr(wildcards, "tuned", None):  # a search has none
            place = wildcards.dataset, wildcards.method, int(wildcards.ipc)
            found.append(self.plan.winner(*place))
        return found

    def judged_by(self, wildcards: Any) -> list[str | Path]:
        """Beside set and images: facts, and expert shards where a protocol has a teacher."""
        return [self.about(wildcards), *self.plan.teachers(wildcards.dataset)]

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

    def privacy(self, wildcards: Any) -> list[Path]:
        """What sets give away, a table each, where that is asked."""
        return [self.plan.paths(run).privacy for run in privacy_plan.exposed(self.plan)]

    def yardstick(self, wildcards: Any) -> Path:
        return self.plan.yardstick(wildcards.dataset, int(wildcards.ipc))

    def everything(self, wildcards: Any) -> list[Path]:
        """Every output that a user looks at; of runs, what is missing of them.

        Where there is nothing of a run and no table yet, the tables ask for all that it makes. In
        a graph of thousands, each file that is named besides counts.
        """
        tables = [self.plan.table(name) for name in TABLES]
        pages = [tables[-1].with_suffix(".csv"), self.plan.root / "site" / "index.html"]
        return [*tables, *pages, *self.trials(None), *self.searches(None), *self._missing()]

    def _missing(self) -> Iterator[Path]:
        """Files of runs of which something is there, or that stand in the tables."""
        walked = () if self.elsewhere else os.walk(self.plan.root)
        there = {f"{folder}/{name}" for folder, _, names in walked for name in names}
        tables = self.elsewhere or str(self.plan.table("leaderboard")) in there
        exposed = {*privacy_plan.exposed(self.plan)}
        for run in self.plan.runs():
            paths = self.plan.paths(run)
            made = [paths.distilled, paths.trace, paths.picture, paths.evaluation]
            if run in exposed:
                made += [paths.privacy, paths.pairs]
            missing = [path for path in made if str(path) not in there]
            if tables or len(missing) < len(made):
                yield from missing

    # The data: small facts by their content, tensors only as files that must be there.

    def about(self, wildcards: Any) -> str:
        """The facts of a run's data: what comes of them is made again when these are others."""
        return self._data(wildcards, "about")

    def abouts(self, wildcards: Any) -> list[Path]:
        """The facts of all data sets, which tables and page read."""
        return [self.plan.data(dataset.key).about for dataset in self.config.datasets]

    def train(self, wildcards: Any) -> str:
        return self._data(wildcards, "train")

    def train_and_test(self, wildcards: Any) -> list[str]:
        return [self._data(wildcards, "train"), self._data(wildcards, "test")]

    def _data(self, wildcards: Any, part: str) -> str:
        """A file of a run's data, or of those whose experts lie in a folder."""
        dataset = str(getattr(wildcards, "dataset", None) or self.dataset(wildcards))
        return str(getattr(self.plan.data(dataset), part))

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
