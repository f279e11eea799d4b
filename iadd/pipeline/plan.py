"""The plan of a benchmark: its runs, where their files lie, and what identifies each result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from iadd import methods
from iadd.artifacts import canonical_json, spec_hash
from iadd.data import About, Source, read_about, stamp
from iadd.pipeline.expert_plan import ExpertPlan
from iadd.pipeline.paths import Run as Run
from iadd.pipeline.source import source_of
from iadd.pipeline.winner import read_winner


class Plan(ExpertPlan):
    """The runs of a benchmark, where their files lie, and the specs that identify them.

    Specs hold what a result depends on and nothing else: what, never where or how. The workflow
    reruns what has another spec.
    """

    def runs(self) -> Iterator[Run]:
        """All runs; a tuned method is there twice, by its default settings and by those found.

        Those of an ipc that a data set has too few images for are left out as soon as its data
        are prepared (`left_out`).
        """
        config = self.config
        kinds = [(name, False) for name in config.methods]
        kinds += [(name, True) for name in config.search.methods]
        for dataset in config.datasets:
            for method, tuned in kinds:
                for ipc in self.ipcs(dataset.key, method):
                    for seed in range(config.seeds):
                        yield Run(dataset.key, method, ipc, seed, tuned)
        for submission in config.submissions:
            yield from submission.runs()

    def searches(self) -> Iterator[tuple[str, str, int]]:
        """All (dataset, method, ipc) that are searched."""
        for dataset in self.config.datasets:
            for method in self.config.search.methods:
                for ipc in self.ipcs(dataset.key, method):
                    yield dataset.key, method, ipc

    def ipcs(self, dataset: str, method: str) -> list[int]:
        """The ipc values that a method runs at, as far as the data have images enough."""
        about = self.known_about(dataset)
        least = None if about is None else min(about.counts["train"])
        return [ipc for ipc in self.config.ipcs(method, dataset) if least is None or ipc <= least]

    # The data.

    def source(self, dataset: str) -> Source:
        """What is read for a data set, and how."""
        d = self.config.dataset(dataset)
        fields = d.model_dump(exclude={"label", "ipc", "published"})
        if d.groups is not None and d.name != "arrays":  # so that errors say where it is looked for
            fields["groups"] = Path(d.groups).expanduser().absolute()
        return Source(**fields, seed=self.config.seed, label=d.key)

    def data_spec(self, dataset: str) -> dict[str, Any]:
        """What tells that data should be prepared anew: nothing downstream depends on it."""
        d, seen = self.config.dataset(dataset), stamp(self.source(dataset))
        asked = {"dataset": d.identity, "positive": d.positive, "seed": self.config.seed}
        return asked | {"stamp": seen, "source": self.code("data")}

    def about(self, dataset: str) -> About:
        """What is known of prepared data; ValueError if they are not prepared."""
        if found := self._known.get(("foreseen", dataset)):
            return cast("About", found)
        path: Path = self._once(("about path", dataset), lambda: self.data(dataset).about)
        try:
            state = path.stat()
        except OSError:
            raise ValueError(
                f"{path}: no such file; run: iadd run CONFIG (or by hand: iadd data CONFIG)"
            ) from None
        key = ("about", dataset, state.st_mtime_ns, state.st_size)
        about: About = self._once(key, lambda: read_about(path.parent))
        return about

    def foresee(self, dataset: str, about: About) -> None:
        """Answer as if stale data had been prepared anew, once it is known what they will be."""
        self._known["foreseen", dataset] = about

    def known_about(self, dataset: str) -> About | None:
        """The facts of a data set; None where it is not prepared."""
        try:
            return self.about(dataset)
        except ValueError:
            return None

    def stale_data(self) -> list[str]:
        """Data sets that are not prepared, or whose files, settings or code have changed since."""
        stale = []
        for dataset in self.config.datasets:
            paths = self.data(dataset.key)
            made = canonical_json(self.data_spec(dataset.key)).encode()
            there = all(p.exists() for p in (paths.about, paths.train, paths.test, paths.made))
            if not there or paths.made.read_bytes() != made:
                stale.append(dataset.key)
        return stale

    def check_submissions(self) -> None:
        """ValueError for a submitted file that is not there or cannot be read."""
        for submission in self.config.submissions:
            for run in submission.runs():
                self.job_spec(run)  # of the file's content

    def left_out(self) -> list[str]:
        """Why some runs are not run: a line for each data set and ipc that is too large for it."""
        lines = []
        for dataset in self.config.datasets:
            about = self.known_about(dataset.key)
            for ipc in dataset.ipc or self.config.ipc:
                if about:
                    lines += too_large(dataset.key, about, ipc)
        return lines

    # What identifies a result.

    def spec(self, run: Run) -> dict[str, Any]:
        """What made a distilled set; a tuned one has the winner's parameters and its evidence."""
        spec = self.job_spec(run) | self.data_identity(run.dataset)
        if not run.tuned:
            return spec
        winner = self.read_winner(run.dataset, run.method, run.ipc)
        return spec | {"params": winner["params"], "search": spec_hash(winner)}

    def read_winner(self, dataset: str, method: str, ipc: int) -> dict[str, Any]:
        """What the search of a tuned method found; ValueError if that is missing or another's."""
        path = self.winner(dataset, method, ipc)
        again = f"run: iadd search CONFIG --dataset {dataset} --method {method} --ipc {ipc}"

        def params(settings: Any) -> Any:
            return self.config.params(method, ipc, settings).model_dump(mode="json")

        return read_winner(path, self.search_spec(dataset, method, ipc), params, again)

    def data_identity(self, dataset: str) -> dict[str, Any]:
        """What the data are, wherever they lie; known as soon as they are prepared."""
        about = self.about(dataset)
        return {"data": about.fingerprint, "augmentation": list(about.augmentation)}

    def job_spec(self, run: Run) -> dict[str, Any]:
        """What a run depends on as far as it is known when the workflow's graph is drawn."""
        if submission := self.config.submission(run.method):
            key = ("submitted", run.method, run.seed)
            return dict(self._once(key, lambda: submission.spec(run.seed)))
        names = run.dataset, run.method, run.ipc
        spec = dict(self._once(("run", *names), lambda: self._common_spec(*names)))
        if run.tuned:
            found = self._once(("search", *names), lambda: spec_hash(self.search_job_spec(*names)))
            spec["search"] = found
        return spec | {"seed": run.seed}

    def _common_spec(self, dataset: str, method: str, ipc: int) -> dict[str, Any]:
        """What all seeds of a run share."""
        config, kind = self.config, self.config.kind(method)
        spec: dict[str, Any] = {
            "kind": "distilled",
            "method": config.method(method),
            "params": config.params(method, ipc).model_dump(mode="json"),
            "network": config.network,
            "precision": config.precision,
            "ipc": ipc,
            "base_seed": config.seed,
            "source": self.code("methods", config.method(method)),
        }
        if issubclass(kind, methods.Iterative):
            spec["validation"] = config.validation.model_dump(mode="json")
            if any(e.rules.optimistic for e in config.evaluations):
                spec["states"] = "all"
        if recipe := config.recipe(method):
            spec["experts"] = self._experts(recipe) | {"count": config.experts.count}
        return spec

    def search_spec(self, dataset: str, method: str, ipc: int) -> dict[str, Any]:
        """What a search's winner depends on; `budget` is what may grow without losing trials."""
        return self.search_job_spec(dataset, method, ipc) | self.data_identity(dataset)

    def search_job_spec(self, dataset: str, method: str, ipc: int) -> dict[str, Any]:
        """A search's spec as far as it is known when the workflow's graph is drawn."""
        search = self.config.search
        asked = search.model_dump(mode="json", exclude={*_MACHINE, *_BUDGET, *_OTHERS})
        return self._common_spec(dataset, method, ipc) | {
            "kind": "search",
            "seed": 0,
            "space": self.config.space(method, ipc),
            "points": search.points.get(method, []),
            "search": asked,
            "budget": search.model_dump(mode="json", include=_BUDGET),
        }

    def evaluation_spec(self, dataset: str) -> dict[str, Any]:
        """How sets are judged, and on what."""
        return self.evaluation_job_spec() | self.data_identity(dataset)

    def judged_spec(self, run: Run) -> dict[str, Any]:
        """What made a run's table of evaluations: the set, and how it was judged."""
        return {"spec": self.spec(run), "evaluation": self.evaluation_spec(run.dataset)}

    def evaluation_job_spec(self) -> dict[str, Any]:
        """How sets are judged, as far as it is known when the workflow's graph is drawn."""

        def make() -> dict[str, Any]:
            return {
                "evaluations": [e.model_dump(mode="json") for e in self.config.evaluations],
                "teachers": {name: self._experts(name) for name in sorted(self.teacher_recipes)},
                "base_seed": self.config.seed,
                "source": self.code("evaluate"),
            }

        return dict(self._once(("evaluation",), make))

    def tables_spec(self) -> dict[str, Any]:
        """Which runs are in the tables, what stands beside them, and the code that makes them."""
        beside = {d.key: (d.positive, d.published_name) for d in self.config.datasets}
        told: dict[str, Any] = {"beside": beside, "controls": self.config.controls}
        told["privacy"] = self.config.privacy is not None
        told["submissions"] = [submission.told for submission in self.config.submissions]
        runs = spec_hash({"runs": [str(run) for run in self.runs()], **told})
        return {"runs": runs, "source": source_of("tables")}


def too_large(dataset: str, about: About, ipc: int) -> list[str]:
    """A line if an ipc is larger than the rarest class of the training images."""
    counts = about.counts
    least = min(counts["train"])
    if ipc <= least:
        return []
    row = counts["train"].index(least)
    held = f"{counts['validation'][row]} for validation and {counts['test'][row]} for test"
    return [
        f"data set {dataset}: ipc {ipc} is larger than class {about.class_names[row]!r}, "
        f"which has {least} training images (held out besides: {held})"
    ]


_BUDGET = {"trials", "seconds", "gpu_hours"}
_MACHINE = {"workers", "cpus", "gpus", "memory_mb", "retries"}  # where, not what
_OTHERS = {"methods", "space", "points"}  # other methods' business, or spelt out beside
