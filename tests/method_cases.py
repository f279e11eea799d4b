"""Small problems and quick settings for tests of methods: none of them names a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iadd import methods
from iadd.data import Dataset, load_dataset
from iadd.experts import Experts, Recipe, expert_spec, record_shard
from iadd.networks import build_network
from iadd.seeds import Seeds

SEEDS = Seeds((0, "blobs", 2, 0))
TRAJECTORY: dict[str, Any] = {
    **{"iterations": 6, "validations": 2, "unrolled_steps": 3, "expert_epochs": 1},
    **{"max_start": 2, "lr_img": 5.0, "clip": 1.0, "step_size": 0.05, "lr_lr": 1e-5},
}


def small_problem(folder: Path, dataset: Dataset | None = None, ipc: int = 2) -> methods.Problem:
    """Blobs, a narrow ConvNet, two experts kept to epoch 6."""
    data = dataset or load_dataset("blobs")
    network = build_network("convnet-d2-w8", 1, 8, data.classes)
    path, recipe = folder / "shard0.safetensors", Recipe(step_size=0.05, batch=32)
    record_shard(data, network, recipe, epochs=6, experts=range(2), seed=0, path=path)
    experts = Experts([path], expert_spec(data, network, recipe, 6, 0))
    return methods.Problem(data, network, ipc, experts)


def tiny(name: str) -> dict[str, Any]:
    """Settings of any method that let it end in a moment: every count at most 3."""
    fields = methods.find(name).Params.model_fields
    numbers = {key: field.default for key, field in fields.items() if type(field.default) is int}
    return {key: min(value, 3) for key, value in numbers.items()}


def make(name: str, problem: methods.Problem, **changes: Any) -> Any:
    """A method with quick settings over a problem."""
    kind = methods.find(name)
    quick = TRAJECTORY if "unrolled_steps" in kind.Params.model_fields else tiny(name)
    return kind(kind.Params(**(quick | changes)), problem)
