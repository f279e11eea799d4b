"""The plan of a benchmark: its runs, where their files lie, and what identifies each result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from iadd import methods
from iadd.artifacts import canonical_json, spec_hash
from iadd.data import About, Source, read_about, stamp
from iadd.pipeline.config import Config
from iadd.pipeline.paths import Layout
from iadd.pipeline.paths import Run as Run
from iadd.pipeline.search_space import ends
from iadd.pipeline.source import source_of


class Plan(Layout):
    """The runs of a benchmark, where their files lie, and the specs that identify them.

    Specs hold what a result depends on and nothing else: what, never where or how. The workflow
    reruns what has another spec.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config.benchmark)
        self.config = config
        self._known: dict[tuple[object, ...], Any] = {}

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

    def searches(self) -> Iterator[tuple[str, str, int]]:
        """All (dataset, method, ipc) that are searched."""
        for dataset in self.config.datasets:
            for method in self.config.search.methods:
                for ipc in self.ipcs(dataset.key, method):
                    yield dataset.key, method, ipc

    def ipcs(self, dataset: str, method: str) -> list[int]:
        """The ipc values that a method runs at, as far as the data have images enough."""
        about = self._known_about(dataset)
        least = None if about is None else min(about.counts["train"])
        return [ipc for ipc in self.config.ipcs(method, dataset) if least is None or ipc <= least]

    # The data.

    def source(self, dataset: str) -> Source:
        """What is read for a data set, and how."""
        d = self.config.dataset(dataset)
        fields = d.model_dump(exclude={"label", "ipc"})
        return Source(**fields, seed=self.config.seed)

    def data_spec(self, dataset: str) -> dict[str, Any]:
        """What tells that data should be prepared anew: nothing downstream depends on it."""
        d, seen = self.config.dataset(dataset), stamp(self.source(dataset))
        asked = {"dataset": d.identity, "positive": d.positive, "seed": self.config.seed}
        return asked | {"stamp": seen, "source": self._source("data")}

    def about(self, dataset: str) -> About:
        """What is known of prepared data; ValueError if they are not prepared."""
        path = self.data(dataset).about
        try:
            state = path.stat()
        except OSError:
            raise ValueError(f"{path}: no such file; run: iadd data CONFIG") from None
        key = ("about", dataset, state.st_mtime_ns, state.st_size)
        about: About = self._once(key, lambda: read_about(path.parent))
        return about

    def _known_about(self, dataset: str) -> About | None:
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

    def left_out(self) -> list[str]:
        """Why some runs are not run: a line for each data set and ipc that is too large for it."""
        lines = []
        for dataset in self.config.datasets:
            about = self._known_about(dataset.key)
            for ipc in dataset.ipc or self.config.ipc:
                if about:
                    lines += too_large(dataset.key, about, ipc)
        return lines

    def expert_epochs(self, recipe: str) -> int:
        """The last epoch of a recipe's experts that any method's settings can reach."""
        asking = [method for method in self.config.methods if self.config.recipe(method) == recipe]
        reaches = (self._reach(m, ipc) for m in asking for ipc in self.config.ipc)
        return max(reaches, default=0)

    def _reach(self, method: str, ipc: int) -> int:
        """The last epoch that a run, or a trial of a search, may ask for."""
        params = self.config.params(method, ipc)
        if method in self.config.search.methods:
            found = {name: ends(over) for name, over in self.config.space(method, ipc).items()}
            whole = {n: v for n, v in found.items() if all(isinstance(end, int) for end in v)}
            params = params.model_copy(update={name: max(v) for name, v in whole.items()})
        return params.reach

    # The experts.

    @cached_property
    def recipes(self) -> list[str]:
        """The expert recipes that the benchmark's methods ask for."""
        asked = [self.config.recipe(method) for method in self.config.methods]
        return sorted({name for name in asked if name is not None})

    def experts_folder(self, dataset: str, recipe: str = "standard") -> Path:
        """The folder of the experts of one recipe."""

        def make() -> Path:
            asked = self._experts(recipe) | {
                "seed": self.config.seed,
                "precision": self.config.precision,
                "dataset": self.config.dataset(dataset).identity,
            }
            name = f"{dataset}-{self.config.network}-{recipe}-{spec_hash(asked)[:8]}"
            return self.root / "experts" / name

        folder: Path = self._once(("experts", dataset, recipe), make)
        return folder

    def _experts(self, recipe: str) -> dict[str, Any]:
        settings = self.config.experts.named(recipe).model_dump(mode="json")
        return {"recipe": settings, "epochs": self.expert_epochs(recipe)}

    def shards(self, dataset: str, recipe: str = "standard") -> list[Path]:
        """The shard files of a data set's experts."""
        count, size = self.config.experts.count, self.config.experts.per_shard
        folder = self.experts_folder(dataset, recipe)
        return [folder / f"shard{k}.safetensors" for k in range(-(-count // size))]

    def shard_experts(self, shard: int) -> range:
        """The experts' numbers in a shard."""
        size = self.config.experts.per_shard
        return range(shard * size, min((shard + 1) * size, self.config.experts.count))

    def needs(self, dataset: str, method: str) -> list[Path]:
        """The expert shards that a method's distillation reads."""
        recipe = self.config.recipe(method)
        return self.shards(dataset, recipe) if recipe else []

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
        try:
            winner = json.loads(path.read_text())
        except OSError:
            raise ValueError(f"{path}: no such file; {again}") from None
        except ValueError:
            raise ValueError(f"{path}: is no JSON; {again}") from None
        if winner.get("spec") != json.loads(canonical_json(self.search_spec(dataset, method, ipc))):
            raise ValueError(f"{path}: was found under other settings; {again}")
        return dict(winner)

    def data_identity(self, dataset: str) -> dict[str, Any]:
        """What the data are, wherever they lie; known as soon as they are prepared."""
        about = self.about(dataset)
        return {"data": about.fingerprint, "augmentation": list(about.augmentation)}

    def job_spec(self, run: Run) -> dict[str, Any]:
        """What a run depends on as far as it is known when the workflow's graph is drawn."""
        names = run.dataset, run.method, run.ipc
        spec = dict(self._once(("run", *names), lambda: self._common_spec(*names)))
        if run.tuned:
            found = self._once(("search", *names), lambda: spec_hash(self.search_job_spec(*names)))
            spec["search"] = found
        return spec | {"seed": run.seed}

    def _common_spec(self, dataset: str, method: str, ipc: int) -> dict[str, Any]:
        """What all seeds of a run share."""
        config, kind = self.config, methods.find(method)
        spec: dict[str, Any] = {
            "kind": "distilled",
            "method": method,
            "params": config.params(method, ipc).model_dump(mode="json"),
            "network": config.network,
            "precision": config.precision,
            "ipc": ipc,
            "base_seed": config.seed,
            "source": self._source("methods", method),
        }
        if issubclass(kind, methods.Iterative):
            spec["validation"] = config.validation.model_dump(mode="json")
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

    def evaluation_job_spec(self) -> dict[str, Any]:
        """How sets are judged, as far as it is known when the workflow's graph is drawn."""
        return {
            "evaluations": [e.model_dump(mode="json") for e in self.config.evaluations],
            "base_seed": self.config.seed,
            "source": self._source("evaluate"),
        }

    def _source(self, stage: str, method: str | None = None) -> str:
        return str(self._once(("source", stage, method), lambda: source_of(stage, method)))

    def _once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """What is asked for once a run and is the same for many."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def tables_spec(self) -> dict[str, Any]:
        """Which runs are in the tables, the positive classes, and the code that makes them."""
        positive = {d.key: d.positive for d in self.config.datasets}
        runs = spec_hash({"runs": [str(run) for run in self.runs()], "positive": positive})
        return {"runs": runs, "source": source_of("tables")}

    def experts_source(self) -> str:
        """The code that trains experts."""
        return self._source("experts")


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
