"""The plan of a benchmark: its runs, where their files lie, and what identifies each result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from iadd import methods
from iadd.artifacts import canonical_json, source_hash, spec_hash
from iadd.pipeline.config import Config
from iadd.pipeline.search_space import base_name, is_tuned, tuned_name

PACKAGE = Path(__file__).parent.parent


class Plan:
    """The runs of a benchmark, where their files lie, and the specs that identify them.

    Paths are the contract's, relative to the working folder. Specs hold what a result depends on
    and nothing else; the workflow reruns what has another spec.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.root = Path("results") / config.benchmark

    def runs(self) -> Iterator[tuple[str, str, int, int]]:
        """All (dataset, method, ipc, seed); a tuned method is there twice, as `mtt+tuned` too."""
        tuned = map(tuned_name, self.config.search.methods)
        names = [*self.config.methods, *tuned]
        for dataset in self.config.datasets:
            for method in names:
                for ipc in self.config.ipcs(base_name(method)):
                    for seed in range(self.config.seeds):
                        yield dataset.key, method, ipc, seed

    @cached_property
    def expert_epochs(self) -> int:
        """The last epoch that any trajectory method can reach: max_start - 1 + K."""
        reach = [
            self._highest(method, ipc, "max_start")
            - 1
            + self._highest(method, ipc, "expert_epochs")
            for method in self.config.methods
            if methods.find(method).needs_experts
            for ipc in self.config.ipc
        ]
        return max(reach, default=0)

    def _highest(self, method: str, ipc: int, name: str) -> int:
        """The highest value of a parameter that a run, or a trial of a search, may have."""
        params: Any = self.config.params(method, ipc)
        values = [getattr(held, name) for held in params.phases().values()]
        if method in self.config.search.methods:
            over = self.config.space(method, ipc).get(name, values)
            values += over if isinstance(over, list) else over[1:]
        return int(max(values))

    # Where files lie.

    def experts_folder(self, dataset: str) -> Path:
        recipe = self.config.experts.recipe.model_dump(mode="json") | {
            "epochs": self.expert_epochs,
            "seed": self.config.seed,
            "dataset": self.config.dataset(dataset).model_dump(mode="json"),
            "precision": self.config.precision,
        }
        return self.root / "experts" / f"{dataset}-{self.config.network}-{spec_hash(recipe)[:8]}"

    def shards(self, dataset: str) -> list[Path]:
        """The shard files of a data set's experts."""
        count, size = self.config.experts.count, self.config.experts.per_shard
        folder = self.experts_folder(dataset)
        return [folder / f"shard{k}.safetensors" for k in range(-(-count // size))]

    def shard_experts(self, shard: int) -> range:
        """The experts' numbers in a shard."""
        size = self.config.experts.per_shard
        return range(shard * size, min((shard + 1) * size, self.config.experts.count))

    def distilled(self, dataset: str, method: str, ipc: int, seed: int) -> Path:
        return self.root / "distilled" / dataset / method / f"ipc{ipc}" / f"seed{seed}.safetensors"

    def evaluation(self, dataset: str, method: str, ipc: int, seed: int) -> Path:
        return self.root / "evaluations" / dataset / method / f"ipc{ipc}" / f"seed{seed}.parquet"

    def trace(self, dataset: str, method: str, ipc: int, seed: int) -> Path:
        return self.distilled(dataset, method, ipc, seed).with_suffix(".trace.parquet")

    def checkpoint(self, dataset: str, method: str, ipc: int, seed: int) -> Path:
        """Outside the workflow's outputs, which it deletes when a job is killed."""
        run = Path(dataset) / method / f"ipc{ipc}" / f"seed{seed}.safetensors"
        return self.root / "checkpoints" / run

    def winner(self, dataset: str, method: str, ipc: int) -> Path:
        """What a search found; its trials lie beside it."""
        return self.root / "search" / f"{dataset}-{base_name(method)}-ipc{ipc}.json"

    def trials(self, dataset: str, method: str, ipc: int) -> Path:
        return self.winner(dataset, method, ipc).with_suffix(".trials.parquet")

    def search_state(self, dataset: str, method: str, ipc: int) -> Path:
        """Where a search keeps its trials while it runs: not among the workflow's outputs."""
        return self.root / "checkpoints" / "search" / self.winner(dataset, method, ipc).stem

    def searches(self) -> Iterator[tuple[str, str, int]]:
        """All (dataset, method, ipc) that are searched."""
        for dataset in self.config.datasets:
            for method in self.config.search.methods:
                for ipc in self.config.ipcs(method):
                    yield dataset.key, method, ipc

    def table(self, name: str) -> Path:
        return self.root / f"{name}.parquet"

    def needs(self, dataset: str, method: str) -> list[Path]:
        """The expert shards that a method's distillation reads."""
        kind = methods.find(base_name(method))
        return self.shards(dataset) if kind.needs_experts else []

    # What identifies a run.

    def distill_spec(self, dataset: str, method: str, ipc: int, seed: int) -> dict[str, Any]:
        """What made a distilled set; a tuned one has the winner's parameters and its evidence."""
        spec = self.job_spec(dataset, method, ipc, seed)
        if not is_tuned(method):
            return spec
        winner = self.read_winner(dataset, method, ipc)
        return spec | {"params": winner["params"], "search": spec_hash(winner)}

    def read_winner(self, dataset: str, method: str, ipc: int) -> dict[str, Any]:
        """What the search of a tuned method found; ValueError if that is missing or another's."""
        path = self.winner(dataset, method, ipc)
        base = base_name(method)
        again = f"run: iadd search CONFIG --dataset {dataset} --method {base} --ipc {ipc}"
        try:
            winner = json.loads(path.read_text())
        except OSError:
            raise ValueError(f"{path}: no such file; {again}") from None
        except ValueError:
            raise ValueError(f"{path}: is no JSON; {again}") from None
        if winner.get("spec") != json.loads(canonical_json(self.search_spec(dataset, method, ipc))):
            raise ValueError(f"{path}: was found under other settings; {again}")
        return dict(winner)

    def job_spec(self, dataset: str, method: str, ipc: int, seed: int) -> dict[str, Any]:
        """What a distillation depends on as far as it is known before any search has run."""
        config, base = self.config, base_name(method)
        kind = methods.find(base)
        spec: dict[str, Any] = {
            "kind": "distilled",
            "dataset": config.dataset(dataset).model_dump(mode="json"),
            "method": method,
            "params": config.params(base, ipc).model_dump(mode="json"),
            "network": config.network,
            "precision": config.precision,
            "ipc": ipc,
            "seed": seed,
            "base_seed": config.seed,
            "source": source_of("methods", base),
        }
        if issubclass(kind, methods.Matching):
            spec["validation"] = config.validation.model_dump(mode="json")
        if kind.needs_experts:
            spec["experts"] = self.experts_folder(dataset).name
            spec["expert_count"] = config.experts.count
        if is_tuned(method):
            spec["search"] = spec_hash(self.search_spec(dataset, method, ipc))
        return spec

    def search_spec(self, dataset: str, method: str, ipc: int) -> dict[str, Any]:
        """What a search's winner depends on; `budget` is what may grow without losing trials."""
        search, base = self.config.search, base_name(method)
        asked = search.model_dump(mode="json", exclude={*_MACHINE, *_BUDGET, *_OTHERS})
        run = self.job_spec(dataset, base, ipc, 0)
        return run | {
            "kind": "search",
            "space": self.config.space(base, ipc),
            "points": search.points.get(base, []),
            "search": asked,
            "budget": search.model_dump(mode="json", include=_BUDGET),
        }

    def evaluation_spec(self, dataset: str) -> dict[str, Any]:
        return {
            "evaluations": [e.model_dump(mode="json") for e in self.config.evaluations],
            "dataset": self.config.dataset(dataset).model_dump(mode="json"),
            "base_seed": self.config.seed,
            "source": source_of("evaluate"),
        }

    def tables_spec(self) -> dict[str, Any]:
        return {"runs": [list(run) for run in self.runs()], "source": source_of("tables")}

    def experts_spec(self, dataset: str) -> dict[str, Any]:
        return {"folder": self.experts_folder(dataset).name, "source": source_of("experts")}


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
