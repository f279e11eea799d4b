"""Recorded expert trajectories, read by memory mapping: one snapshot without the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from iadd.artifacts import TensorFile, parsing, spec_hash
from iadd.experts.waypoints import shares

NEAR_BYTES = 1 << 28
"""Of snapshots that stay on a card: reading one takes longer than a small student's step."""


class _Told(BaseModel):
    """What a shard tells beside the tensors, with its types."""

    seconds: float = Field(ge=0, allow_inf_nan=False)
    validation_accuracy: list[float | None] = []


def _count(file: TensorFile, expect: Mapping[str, Any]) -> int:
    """How many experts a shard holds; ValueError for tensors of other shapes than its spec says."""
    kept = len(expect["recipe"]["waypoints"] or range(expect["epochs"] + 1))
    shapes = {"parameters": (kept, expect["parameters"])}
    if expect["recipe"]["waypoints"]:
        shapes["lengths"] = (expect["epochs"] + 1, len(expect["sizes"]))
    counts = set()
    for name, shape in shapes.items():
        count, *found = file.shape(name) or (0,)
        if tuple(found) != shape:
            raise ValueError(f"{name} are {tuple(found)} of each expert, not {shape}")
        counts.add(count)
    if len(counts) > 1 or 0 in counts:
        raise ValueError("it holds no experts, or not the same of each")
    return counts.pop()


class Experts:
    """Random access to the trajectories of several shards, without reading what is not asked for.

    Raises:
        ValueError: no shards; a shard that is truncated, from another spec, or holds NaN.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        expect: dict[str, Any],
        device: torch.device = torch.device("cpu"),  # noqa: B008 (immutable)
    ) -> None:
        self.device = device
        if not paths:
            raise ValueError("experts: no shards given; record them first (iadd experts)")
        self._rows = []
        self._near: dict[tuple[int, int], Tensor] = {}
        self.near_bytes = 0 if device.type == "cpu" else NEAR_BYTES
        self.seconds = 0.0
        self.validation_accuracy: list[float] = []
        """Of each expert at its last epoch, a fraction; empty without validation data."""
        for path in paths:
            file = TensorFile(path, expect)
            with parsing(path, "shard of experts"):
                self._rows += [(file, row) for row in range(_count(file, expect))]
                told = _Told(**file.attributes)
            self.seconds += told.seconds
            self.validation_accuracy += [a for a in told.validation_accuracy if a is not None]
        self.epochs = int(expect["epochs"])
        self.waypoints = expect["recipe"]["waypoints"]
        self.sizes = expect["sizes"]
        self.identity = spec_hash(expect)

    @property
    def count(self) -> int:
        """Number of trajectories."""
        return len(self._rows)

    def snapshot(self, expert: int, epoch: float) -> Tensor:
        """Float32 parameters (P,) of one expert after `epoch` epochs, a copy on the device.

        Between two epochs, or way-points, that are kept they lie on a straight line.
        """
        if self.waypoints:
            file, row = self._rows[expert]
            k, beta = shares(file.get_slice("lengths", row), self.waypoints, epoch)
            share = beta.float().repeat_interleave(torch.tensor(self.sizes))
        else:
            k, share = int(epoch), torch.tensor(epoch % 1)
        if not bool(share.any()):
            return self._kept(expert, k).clone()
        ends = self._kept(expert, k), self._kept(expert, k + 1)
        return torch.lerp(*ends, share.to(self.device))

    def _kept(self, expert: int, k: int) -> Tensor:
        """Float32 parameters (P,) as they are stored, on the device.

        On a card they stay until they are asked for again; the oldest make room.
        """
        if (near := self._near.get((expert, k))) is not None:
            return near
        file, row = self._rows[expert]
        params = file.get_slice("parameters", row, k).float().to(self.device)
        if params.nbytes <= self.near_bytes:
            while (len(self._near) + 1) * params.nbytes > self.near_bytes:
                del self._near[next(iter(self._near))]
            self._near[expert, k] = params
        return params
