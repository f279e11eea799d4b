"""Expert trajectories: parameters at the start and after each epoch of training on the real data.

Recorded with the data set's augmentation, as MTT does (arXiv 2203.11932). One shard is one job and
one safetensors file with its spec inside; one snapshot is read by memory mapping, without the rest.
Only the epochs that the benchmark's settings can reach are trained and kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from iadd.augment import Augmentation
from iadd.data import Dataset
from iadd.files import TensorFile, open_tensors, save_tensors, spec_hash
from iadd.networks import Network
from iadd.seeds import generator_for
from iadd.train import Schedule, train

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Recipe(BaseModel):
    """How experts are trained and stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_size: float = Field(0.01, gt=0, description="Learning rate (SGD).")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
    batch: int = Field(256, ge=1, description="Batch size.")
    augmentation: bool = Field(True, description="Train with the data set's augmentation families.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Float type of the stored snapshots."
    )


def expert_spec(
    dataset: Dataset,
    network: Network,
    augmentation: Augmentation,
    recipe: Recipe,
    epochs: int,
    seed: int,
) -> dict[str, Any]:
    """What identifies a trajectory: data, network, recipe, epochs kept, base seed."""
    return {
        "kind": "experts",
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "network": network.name,
        "parameters": network.num_parameters,
        "recipe": recipe.model_dump(mode="json"),
        "families": list(augmentation.families) if recipe.augmentation else [],
        "epochs": epochs,
        "seed": seed,
    }


def record_shard(
    dataset: Dataset,
    network: Network,
    augmentation: Augmentation,
    recipe: Recipe,
    *,
    epochs: int,
    experts: Sequence[int],
    seed: int,
    path: Path,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Train the numbered experts and write their trajectories as one shard.

    The file holds `parameters` (experts, epochs + 1, P): epoch 0 is the untrained network. An
    expert depends on its number alone, not on the shard it is in. What a killed job had finished
    is kept beside the shard, one file an expert, and taken up again.
    """
    spec = expert_spec(dataset, network, augmentation, recipe, epochs, seed)
    targets = F.one_hot(dataset.train.labels, network.classes).float()
    families = Augmentation(tuple(spec["families"]))
    schedule = Schedule(
        epochs, recipe.batch, recipe.step_size, recipe.momentum, recipe.weight_decay
    )
    trajectories, seconds, parts = [], 0.0, []
    for done, expert in enumerate(experts):
        part = path.with_name(f".{path.stem}.expert{expert}.partial")
        parts.append(part)
        stored = _finished(part, spec | {"expert": expert})
        if stored is None:
            began = time.perf_counter()
            generator = generator_for(seed, dataset.name, network.name, "experts", expert)
            snapshots = [network.init(generator)]
            train(
                network,
                snapshots[0],
                dataset.train.images,
                targets,
                schedule,
                families,
                generator,
                on_epoch=_copying(snapshots),
            )
            trajectory = torch.stack(snapshots).to(DTYPES[recipe.dtype])  # (epochs + 1, P)
            if not bool(torch.isfinite(trajectory).all()):
                raise ValueError(
                    f"{path}: expert {expert} diverged (not finite); lower experts.step_size "
                    f"({recipe.step_size})"
                )
            stored = trajectory, time.perf_counter() - began
            save_tensors(
                part, {"parameters": trajectory}, spec | {"expert": expert}, {"seconds": stored[1]}
            )
        trajectories.append(stored[0])
        seconds += stored[1]
        if progress:
            progress(done + 1, len(experts), "")
    save_tensors(
        path,
        {"parameters": torch.stack(trajectories)},
        spec,
        {"experts": list(experts), "seconds": seconds},
    )
    for part in parts:
        part.unlink(missing_ok=True)


def _copying(snapshots: list[Tensor]) -> Callable[[int, Tensor], None]:
    """Keep a copy of each epoch's parameters: the training loop overwrites its own."""
    return lambda epoch, params: snapshots.append(params.clone())


def _finished(part: Path, spec: dict[str, Any]) -> tuple[Tensor, float] | None:
    if not part.exists():
        return None
    try:
        file = open_tensors(part, spec)
        return file.get_slice("parameters"), float(file.attributes["seconds"])
    except ValueError:
        return None


class Experts:
    """Random access to the trajectories of several shards, without reading what is not asked for.

    Raises:
        ValueError: no shards; a shard that is truncated, from another spec, or holds NaN.
    """

    def __init__(self, paths: Sequence[Path], expect: dict[str, Any]) -> None:
        if not paths:
            raise ValueError("experts: no shards given; record them first (iadd experts)")
        self._rows: list[tuple[TensorFile, int]] = []
        self.seconds = 0.0
        for path in paths:
            file = open_tensors(path, expect)
            self._rows += [(file, row) for row in range(file.shape("parameters")[0])]
            self.seconds += float(file.attributes["seconds"])
        self.epochs = int(expect["epochs"])
        self.identity = spec_hash(expect)

    @property
    def count(self) -> int:
        return len(self._rows)

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        """Float32 parameters (P,) of one expert after `epoch` epochs, as a copy."""
        file, row = self._rows[expert]
        return file.get_slice("parameters", row, epoch).float()
