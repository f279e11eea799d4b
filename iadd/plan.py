"""The plan of a benchmark: its runs, where their files lie, and what identifies each result."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from iadd import methods
from iadd.config import Config
from iadd.files import canonical_json, source_hash, spec_hash

PACKAGE = Path(__file__).parent


class Plan:
    """The runs of a benchmark, where their files lie, and the specs that identify them.

    Paths are the contract's, relative to the working folder. Specs hold what a result depends on
    and nothing else; the workflow reruns what has another spec.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.root = Path("results") / config.benchmark

    def runs(self) -> Iterator[tuple[str, str, int, int]]:
        """All (dataset, method, ipc, seed)."""
        for dataset in self.config.datasets:
            for method in self.config.methods:
                for ipc in self.config.ipcs(method):
                    for seed in range(self.config.seeds):
                        yield dataset.key, method, ipc, seed

    @cached_property
    def expert_epochs(self) -> int:
        """The last epoch that any trajectory method can reach: max_start - 1 + K."""
        reach = [
            params.max_start - 1 + params.expert_epochs
            for method in self.config.methods
            if methods.find(method).needs_experts
            for params in (self._params(method, ipc) for ipc in self.config.ipc)
        ]
        return max(reach, default=0)

    def _params(self, method: str, ipc: int) -> Any:
        return self.config.params(method, ipc)

    # Where files lie.

    def experts_folder(self, dataset: str) -> Path:
        recipe = self.config.experts.recipe.model_dump(mode="json") | {
            "epochs": self.expert_epochs,
            "seed": self.config.seed,
            "dataset": self.config.dataset(dataset).model_dump(mode="json"),
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

    def table(self, name: str) -> Path:
        return self.root / f"{name}.parquet"

    def needs(self, dataset: str, method: str) -> list[Path]:
        """The expert shards that a method's distillation reads."""
        return self.shards(dataset) if methods.find(method).needs_experts else []

    # What identifies a run.

    def distill_spec(self, dataset: str, method: str, ipc: int, seed: int) -> dict[str, Any]:
        config, kind = self.config, methods.find(method)
        spec: dict[str, Any] = {
            "kind": "distilled",
            "dataset": config.dataset(dataset).model_dump(mode="json"),
            "method": method,
            "params": config.params(method, ipc).model_dump(mode="json"),
            "network": config.network,
            "ipc": ipc,
            "seed": seed,
            "base_seed": config.seed,
            "source": source_of("methods", method),
        }
        if issubclass(kind, methods.Matching):
            spec["validation"] = config.validation.model_dump(mode="json")
        if kind.needs_experts:
            spec["experts"] = self.experts_folder(dataset).name
            spec["expert_count"] = config.experts.count
        return spec

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


_LOWER = ("augment", "data", "files", "native", "networks", "ops", "passes", "seeds", "train")


def source_of(stage: str, method: str | None = None) -> str:
    """Hash of the code that a stage's result depends on: its rooms, and one method's own file."""
    rooms = {
        "experts": (*_LOWER, "experts"),
        "methods": (*_LOWER, "experts", "synthetic", "unroll", "evaluation"),
        "evaluate": (*_LOWER, "synthetic", "evaluation"),
        "tables": ("files", "seeds", "scores", "ranking", "results", "site"),
    }[stage]
    paths: list[Path] = []
    for room in rooms:
        folder = PACKAGE / room
        paths += sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]
    if method:
        paths += [
            *sorted((PACKAGE / "methods").glob("_*.py")),
            PACKAGE / "methods" / f"{method}.py",
        ]
    return source_hash(path for path in paths if path.exists())[:16]


def canonical(spec: dict[str, Any]) -> str:
    """A spec as the one JSON text that the workflow compares."""
    return canonical_json(spec)
