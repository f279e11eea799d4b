"""The experts of a benchmark: which recipes, how far they are trained, where their shards lie."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from iadd.artifacts import spec_hash
from iadd.data import Dataset
from iadd.experts import Experts, expert_spec
from iadd.networks import Network
from iadd.pipeline.config import Config
from iadd.pipeline.config.search import ends
from iadd.pipeline.paths import Layout
from iadd.pipeline.source import source_of


class ExpertPlan(Layout):
    """What a plan says of experts, and what it keeps from one question to the next."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.benchmark)
        self.config = config
        self._known: dict[tuple[object, ...], Any] = {}

    @cached_property
    def recipes(self) -> list[str]:
        """The expert recipes that the benchmark's methods ask for."""
        asked = [self.config.recipe(method) for method in self.config.methods]
        return sorted({name for name in asked if name is not None} | self.teacher_recipes)

    @cached_property
    def teacher_recipes(self) -> set[str]:
        """The recipes of those experts that are teachers in an evaluation."""
        return {e.teacher for e in self.config.evaluations if e.rules.teacher}

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
        submitted = self.config.submission(method)
        recipe = None if submitted else self.config.recipe(method)
        return self.shards(dataset, recipe) if recipe else []

    def teachers(self, dataset: str) -> list[Path]:
        """The expert shards that evaluations read: their teacher is the first expert."""
        return [self.shards(dataset, name)[0] for name in sorted(self.teacher_recipes)]

    def experts(
        self,
        key: str,
        recipe: str,
        dataset: Dataset,
        network: Network,
        shards: int | None = None,
    ) -> Experts:
        """The recorded experts of a recipe, on the data's device; of the first shards, if given."""
        expect = expert_spec(
            dataset,
            network,
            self.config.experts.named(recipe),
            self.expert_epochs(recipe),
            self.config.seed,
            self.experts_source(),
        )
        return Experts(self.shards(key, recipe)[:shards], expect, dataset.train.images.device)

    def expert_epochs(self, recipe: str) -> int:
        """The last epoch of a recipe's experts that a method's settings or a teacher can reach."""
        return int(self._once(("epochs", recipe), lambda: self._last_epoch(recipe)))

    def _last_epoch(self, recipe: str) -> int:
        asking = [method for method in self.config.methods if self.config.recipe(method) == recipe]
        reaches = [self._reach(m, ipc) for m in asking for ipc in self.config.ipc]
        teachers = [e for e in self.config.evaluations if e.rules.teacher and e.teacher == recipe]
        last = max([*reaches, *(e.teacher_epoch for e in teachers)], default=0)
        waypoints = self.config.experts.named(recipe).waypoints
        if waypoints and last > waypoints[-1]:
            end = f"end at {waypoints[-1]}, epoch {last} is needed"
            raise ValueError(f"experts.recipes.{recipe}.waypoints: {end}")
        return waypoints[-1] if waypoints else last

    def _reach(self, method: str, ipc: int) -> int:
        """The last epoch that a run, or a trial of a search, may ask for."""
        params = self.config.params(method, ipc)
        if method in self.config.search.methods:
            found = {name: ends(over) for name, over in self.config.space(method, ipc).items()}
            whole = {n: v for n, v in found.items() if all(isinstance(end, int) for end in v)}
            params = params.model_copy(update={name: max(v) for name, v in whole.items()})
        return params.reach

    def experts_source(self) -> str:
        """The code that trains experts."""
        return self.code("experts")

    def code(self, stage: str, method: str | None = None) -> str:
        """Hash of the code that a stage's result depends on (`source_of`)."""
        return str(self._once(("source", stage, method), lambda: source_of(stage, method)))

    def _once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """What is asked for once a run and is the same for many."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]
