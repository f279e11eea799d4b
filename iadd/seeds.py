"""Randomness as a value: a generator made from names, so that no run depends on another's order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_for(*names: object) -> int:
    """A 63-bit seed: SHA-256 of the names, e.g. (base, dataset, ipc, seed, stage)."""
    text = "\0".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(*names: object) -> torch.Generator:
    """A torch.Generator on the CPU seeded by `seed_for`."""
    import torch

    return torch.Generator().manual_seed(seed_for(*names))


@dataclass(frozen=True)
class Seeds:
    """All randomness of one run: streams that are told apart by their names.

    `names` identify the run without its method, e.g. (base seed, dataset, ipc, seed). So seed s
    means the same initial images, the same draws of experts and the same networks for every
    method, and methods can be compared in pairs. No stream has a state that must be kept: that of
    iteration k is asked for by its number.
    """

    names: tuple[object, ...]

    def generator(self, *stream: object) -> torch.Generator:
        """A fresh generator of a stream, e.g. ("initial",) or ("experts", iteration)."""
        return generator_for(*self.names, *stream)
