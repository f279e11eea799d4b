"""Randomness as a value: a generator made from names, so that no run depends on another's order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_for(*names: object) -> int:
    """A 63-bit seed: SHA-256 of the names, e.g. (base, dataset, method, ipc, seed, stage)."""
    text = "\0".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(*names: object) -> torch.Generator:
    """A torch.Generator on the CPU seeded by `seed_for`."""
    import torch

    return torch.Generator().manual_seed(seed_for(*names))
