"""How much of a card a job takes: what jobs of its kind took; all of it before one has ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from iadd import devices
from iadd.artifacts import atomic_write
from iadd.pipeline.plan import Plan

SPARE = 1.25
"""What is leased, as a multiple of the most that was taken: batches differ."""
CONTEXT = 1 << 30
"""Bytes that every process takes of a card besides its tensors."""


@contextlib.contextmanager
def on_card(plan: Plan, name: str, kind: str) -> Iterator[torch.device]:
    """The device of a name (`devices.choose`) with the memory that jobs of this kind need.

    The first job of a kind has a card to itself, and leaves what it took for those that follow;
    one that fails, perhaps for want of memory, takes that back.
    """
    record = plan.root / "checkpoints" / "cards" / f"{kind}.bytes"
    device, taken = devices.choose(name, _need(record)), 0
    try:
        yield device
        taken = devices.peak_bytes(device)
    finally:
        if taken:
            atomic_write(record, str(max(taken, _read(record) or 0)).encode())
        elif device.type == "cuda":
            record.unlink(missing_ok=True)


def _need(record: Path) -> int | None:
    peak = _read(record)
    return None if peak is None else int(SPARE * peak) + CONTEXT


def _read(record: Path) -> int | None:
    try:
        return int(record.read_text())
    except (OSError, ValueError):
        return None
