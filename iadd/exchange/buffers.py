"""Expert trajectories as MTT, FTD, TESLA and DATM keep them: files `replay_buffer_<k>.pt`.

A file is a list of trajectories, a trajectory a list of snapshots (before training and after each
epoch), a snapshot a list of parameter tensors in the order of the network's modules. Files are
mapped into memory and go through one trajectory at a time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iadd.artifacts import TensorFile, regular, replacing, writing_tensors
from iadd.data import Dataset
from iadd.exchange.torch_files import load, save
from iadd.experts import Recipe, expert_accuracy, expert_spec, kept_of
from iadd.networks import Network

NAME = re.compile(r"replay_buffer_(\d+)\.pt")
CHUNK = 1 << 24  # bytes read at once for a checksum
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Buffers:
    """The buffer files of a folder, in the order of their numbers."""

    files: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> Buffers:
        """Those of a folder; ValueError where it has none."""
        found = {
            int(m[1]): path for path in folder.glob("*.pt") if (m := NAME.fullmatch(path.name))
        }
        if not found:
            raise ValueError(f"{folder}: holds no replay_buffer_<number>.pt")
        return cls(tuple(found[number] for number in sorted(found)))

    @cached_property
    def checksum(self) -> str:
        """The first 16 hex digits of the SHA-256 over the files' bytes: what experts they are."""
        digest = hashlib.sha256()
        for path in self.files:
            with regular(path).open("rb") as file:
                while content := file.read(CHUNK):
                    digest.update(content)
        return digest.hexdigest()[:16]

    def trajectories(self) -> Iterator[tuple[str, Any]]:
        """Each trajectory and where it is, in words; one file is open at a time."""
        for path in self.files:
            stored = load(path)
            if not isinstance(stored, list):
                raise ValueError(f"{path}: holds {type(stored).__name__}; a buffer is a list")
            for number, trajectory in enumerate(stored):
                yield f"{path}: trajectory {number}", trajectory


def read(
    buffers: Buffers,
    shards: Mapping[Path, Sequence[int]],
    dataset: Dataset,
    network: Network,
    recipe: Recipe,
    epochs: int,
    seed: int,
    progress: Progress | None = None,
) -> list[float]:
    """Write the first trajectories of the buffers as shards, as far as `epochs`.

    Args:
        shards: the files to write, and the numbers of the experts in each, from 0 on.
        recipe: the settings that they were trained with, as far as they are known.

    Returns:
        What each expert reaches on validation data at its last epoch; empty without such data.

    Raises:
        ValueError: one line for too few trajectories or snapshots, tensors of other number or
            shapes than the network's (both are named), NaN, or snapshots that are all the same.
    """
    wanted = sum(map(len, shards.values()))
    spec = expert_spec(dataset, network, recipe, epochs, seed)
    found = buffers.trajectories()
    reached: list[float | None] = []
    for path, experts in shards.items():
        taken = list(islice(found, len(experts)))
        if len(taken) < len(experts):
            there = f"holds {len(reached) + len(taken)} experts, {wanted} are asked for"
            raise ValueError(f"{buffers.files[0].parent}: {there}")
        checked = [(where, _checked(where, one, network, epochs)) for where, one in taken]
        last = [expert_accuracy(dataset, network, _flat(one[-1])) for _, one in checked]
        told = {"experts": list(experts), "seconds": 0.0, "validation_accuracy": last}
        parts = (kept_of(_stacked(*one), network, recipe) for one in checked)
        _write_shard(path, next(parts), parts, len(checked), spec, told)
        reached += last
        if progress:
            progress(len(reached), wanted, "experts read")
    return [accuracy for accuracy in reached if accuracy is not None]


def _write_shard(
    path: Path,
    first: Mapping[str, Tensor],
    others: Iterable[Mapping[str, Tensor]],
    count: int,
    spec: Mapping[str, Any],
    told: Mapping[str, Any],
) -> None:
    """Write what is kept of each of `count` experts, one after the other."""
    layout = {name: (t.dtype, (count, *t.shape)) for name, t in first.items()}
    with writing_tensors(path, layout, spec, told) as append:
        for part in chain([first], others):
            for name, tensor in part.items():
                append(name, tensor)


def _checked(where: str, trajectory: Any, network: Network, epochs: int) -> list[list[Tensor]]:
    """The snapshots that are needed of a trajectory, once their tensors are the network's."""
    count = len(trajectory) if isinstance(trajectory, list) else 0
    if count < epochs + 1:
        raise ValueError(f"{where} has {count} snapshots, {epochs + 1} are needed")
    shapes = [shape for _, shape in network.shapes]
    for snapshot in trajectory[: epochs + 1]:
        if not isinstance(snapshot, list) or not all(isinstance(p, Tensor) for p in snapshot):
            raise ValueError(f"{where}: a snapshot is no list of tensors")
        if len(snapshot) != len(shapes):
            sides = f"has {len(snapshot)} tensors, {network.name} {len(shapes)}"
            raise ValueError(f"{where} {sides}")
        for number, (tensor, shape) in enumerate(zip(snapshot, shapes, strict=True)):
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                sides = f"is {tuple(tensor.shape)}, in {network.name} {shape}"
                raise ValueError(f"{where}: tensor {number} {sides}")
    if epochs and all(map(torch.equal, trajectory[0], trajectory[epochs])):
        raise ValueError(
            f"{where}: all its snapshots are the last one, a known slip of runs on a CPU"
        )
    return list(trajectory[: epochs + 1])


def _stacked(where: str, snapshots: Sequence[Sequence[Tensor]]) -> Tensor:
    """One trajectory's parameters (epochs + 1, P) float32."""
    trajectory = torch.stack([_flat(snapshot) for snapshot in snapshots])
    if not bool(trajectory.isfinite().all()):
        raise ValueError(f"{where}: has NaN or infinite values")
    return trajectory


def _flat(snapshot: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1).float() for tensor in snapshot])


def write(shards: Sequence[Path], network: Network, folder: Path) -> None:
    """Write shards of experts as buffers, a file a shard, float32.

    Raises:
        ValueError: one line for a shard that is not there, or buffers that are.
    """
    if folder.is_dir() and any(NAME.fullmatch(path.name) for path in folder.iterdir()):
        raise ValueError(f"{folder}: holds replay buffers already; choose another folder")
    for number, shard in enumerate(shards):
        file = TensorFile(shard)
        experts, snapshots, _ = file.shape("parameters")
        buffer = [
            [
                [part.clone() for part in network.split(file.get_slice("parameters", e, s).float())]
                for s in range(snapshots)
            ]
            for e in range(experts)
        ]
        with replacing(folder / f"replay_buffer_{number}.pt") as draft:
            save(buffer, draft)
