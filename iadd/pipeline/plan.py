"""The plan of a benchmark: its runs, where their files lie, and what identifies each result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from iadd import methods
from iadd.artifacts import canonical_json, source_hash, spec_hash
from iadd.pipeline.config import Config
from iadd.pipeline.search_space import ends

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Run:
    """One distillation: `tuned` takes its parameters from a search, not from the config."""

    dataset: str
    method: str
    ipc: int
    seed: int
    tuned: bool = False

    def __str__(self) -> str:
        tuned = ", tuned" if self.tuned else ""
        return f"{self.method} on {self.dataset}, ipc {self.ipc}, seed {self.seed}{tuned}"


@dataclass(frozen=True)
class RunPaths:
    """Where a run's files lie. The checkpoint is no output of the workflow, which deletes those
    of a killed job."""

    distilled: Path
    trace: Path
    picture: Path
    evaluation: Path
    checkpoint: Path


class Plan:
    """The runs of a benchmark, where their files lie, and the specs that identify them.

    Paths are the contract's, relative to the working folder. Specs hold what a result depends on
    and nothing else; the workflow reruns what has another spec.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.root = Path("results") / config.benchmark
        self._known: dict[tuple[object, ...], Any] = {}

    def runs(self) -> Iterator[Run]:
        """All runs; a tuned method is there twice, by its default settings and by those found."""
        config = self.config
        kinds = [(name, False) for name in config.methods]
        kinds += [(name, True) for name in config.search.methods]
        for dataset in config.datasets:
            for method, tuned in kinds:
                for ipc in config.ipcs(method):
                    for seed in range(config.seeds):
                        yield Run(dataset.key, method, ipc, seed, tuned)

    def searches(self) -> Iterator[tuple[str, str, int]]:
        """All (dataset, method, ipc) that are searched."""
        for dataset in self.config.datasets:
            for method in self.config.search.methods:
                for ipc in self.config.ipcs(method):
                    yield dataset.key, method, ipc

    def stale_data(self) -> list[str]:
        """Data sets whose stage has to run."""
        return []

    def left_out(self) -> list[str]:
        """Why some runs are not run."""
        return []

    @cached_property
    def expert_epochs(self) -> int:
        """The last epoch that any trajectory method can reach: max_start - 1 + K."""
        reach = [
            self._highest(method, ipc, "max_start")
            - 1
            + self._highest(method, ipc, "expert_epochs")
            for method in self.config.methods
            if methods.find(method).experts
            for ipc in self.config.ipc
        ]
        return max(reach, default=0)

    def _highest(self, method: str, ipc: int, name: str) -> int:
        """The highest value of a parameter that a run, or a trial of a search, may have."""
        params: Any = self.config.params(method, ipc)
        values = [getattr(params, name)]
        if method in self.config.search.methods:
            values += ends(self.config.space(method, ipc).get(name, []))
        return int(max(values))

    # Where files lie.

    def experts_folder(self, dataset: str) -> Path:
        return self._experts_folders[dataset]

    @cached_property
    def _experts_folders(self) -> dict[str, Path]:
        config = self.config
        recipe = config.experts.recipe.model_dump(mode="json") | {
            "epochs": self.expert_epochs,
            "seed": config.seed,
            "precision": config.precision,
        }
        folders = {}
        for dataset in config.datasets:
            code = spec_hash(recipe | {"dataset": dataset.identity})[:8]
            folders[dataset.key] = self.root / "experts" / f"{dataset.key}-{config.network}-{code}"
        return folders

    def shards(self, dataset: str) -> list[Path]:
        """The shard files of a data set's experts."""
        count, size = self.config.experts.count, self.config.experts.per_shard
        folder = self.experts_folder(dataset)
        return [folder / f"shard{k}.safetensors" for k in range(-(-count // size))]

    def shard_experts(self, shard: int) -> range:
        """The experts' numbers in a shard."""
        size = self.config.experts.per_shard
        return range(shard * size, min((shard + 1) * size, self.config.experts.count))

    def paths(self, run: Run) -> RunPaths:
        """Where a run's files lie."""
        folder = f"{run.dataset}/{run.method}/ipc{run.ipc}{'-tuned' if run.tuned else ''}"
        name = f"{folder}/seed{run.seed}"
        return RunPaths(
            distilled=self.root / f"distilled/{name}.safetensors",
            trace=self.root / f"distilled/{name}.trace.parquet",
            picture=self.root / f"distilled/{name}.png",
            evaluation=self.root / f"evaluations/{name}.parquet",
            checkpoint=self.root / f"checkpoints/{name}.safetensors",
        )

    def winner(self, dataset: str, method: str, ipc: int) -> Path:
        """What a search found; its trials lie beside it."""
        return self.root / "search" / f"{dataset}-{method}-ipc{ipc}.json"

    def trials(self, dataset: str, method: str, ipc: int) -> Path:
        return self.winner(dataset, method, ipc).with_suffix(".trials.parquet")

    def search_state(self, dataset: str, method: str, ipc: int) -> Path:
        """Where a search keeps its trials while it runs: not among the workflow's outputs."""
        return self.root / "checkpoints" / "search" / self.winner(dataset, method, ipc).stem

    def table(self, name: str) -> Path:
        return self.root / f"{name}.parquet"

    def needs(self, dataset: str, method: str) -> list[Path]:
        """The expert shards that a method's distillation reads."""
        return self.shards(dataset) if methods.find(method).experts else []

    # What identifies a result.

    def spec(self, run: Run) -> dict[str, Any]:
        """What made a distilled set; a tuned one has the winner's parameters and its evidence."""
        spec = self.job_spec(run)
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

    def job_spec(self, run: Run) -> dict[str, Any]:
        """What a run depends on as far as it is known when the workflow's graph is drawn."""
        names = run.dataset, run.method, run.ipc
        spec = dict(self._once(("run", *names), lambda: self._common_spec(*names)))
        if run.tuned:
            found = self._once(("search", *names), lambda: spec_hash(self.search_spec(*names)))
            spec["search"] = found
        return spec | {"seed": run.seed}

    def _common_spec(self, dataset: str, method: str, ipc: int) -> dict[str, Any]:
        """What all seeds of a run share."""
        config, kind = self.config, methods.find(method)
        spec: dict[str, Any] = {
            "kind": "distilled",
            "dataset": config.dataset(dataset).identity,
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
        if kind.experts:
            spec["experts"] = {
                "recipe": config.experts.recipe.model_dump(mode="json"),
                "epochs": self.expert_epochs,
                "count": config.experts.count,
            }
        return spec

    def search_spec(self, dataset: str, method: str, ipc: int) -> dict[str, Any]:
        """What a search's winner depends on; `budget` is what may grow without losing trials."""
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
        return {
            "evaluations": [e.model_dump(mode="json") for e in self.config.evaluations],
            "dataset": self.config.dataset(dataset).identity,
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
        """Which runs are in the tables, and the code that makes them."""
        runs = spec_hash({"runs": [str(run) for run in self.runs()]})
        return {"runs": runs, "source": source_of("tables")}

    def experts_spec(self, dataset: str) -> dict[str, Any]:
        return {"folder": self.experts_folder(dataset).name, "source": self._source("experts")}


_BUDGET = {"trials", "seconds", "gpu_hours"}
_MACHINE = {"workers", "cpus", "gpus", "memory_mb", "retries"}  # where, not what
_OTHERS = {"methods", "space", "points"}  # other methods' business, or spelt out beside

_TRAINING = (
    *("artifacts", "augment", "data", "devices", "engine", "extension"),
    *("networks", "seeds", "train"),
)


def source_of(stage: str, method: str | None = None) -> str:
    """Hash of the code that a stage's result depends on: its rooms, and one method's own file.

    The kernels' text is part of it where it lies beside the package, as in a checkout.
    """
    rooms = {
        "experts": (*_TRAINING, "experts"),
        "methods": (*_TRAINING, "experts", "synthetic", "evaluation"),
        "evaluate": (*_TRAINING, "synthetic", "evaluation"),
        "tables": ("artifacts", "seeds", "leaderboard"),
    }[stage]
    paths: list[Path] = []
    for room in rooms:
        folder = PACKAGE / room
        paths += sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]
    if stage != "tables":
        paths += sorted((PACKAGE.parent / "csrc").glob("*.*"))
    if method:
        paths += [
            *sorted((PACKAGE / "methods").glob("_*.py")),
            PACKAGE / "methods" / f"{method}.py",
        ]
    return source_hash(path for path in paths if path.exists())[:16]
