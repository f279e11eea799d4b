"""What a job has cost its machine: memory, and seconds on a card."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch

from iadd.devices import describe, peak_bytes


def costs_of(device: torch.device) -> dict[str, Any]:
    """Where this process works, and the most memory that it has taken there and on its host."""
    return {
        "host_peak_bytes": _host_peak(),
        "device_peak_bytes": peak_bytes(device),
        "device": describe(device),
    }


def gpu_seconds(device: str | None, *seconds: float | None) -> float | None:
    """The sum of seconds that were spent on a card, by the device's name (`devices.describe`).

    0 on a CPU, None where the device or one of the times is not known.
    """
    known = [value for value in seconds if value is not None]
    if device is None or len(known) < len(seconds):
        return None
    return 0.0 if device == "cpu" else sum(known)


def _host_peak() -> int:
    """Peak resident bytes of this process; the kernel counts KiB, on macOS bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
