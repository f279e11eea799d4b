"""Importance-aware adaptive dataset distillation, and the benchmark around it.

The Python surface: `load_dataset`, `build_network`, `record_experts`, `distill`, `evaluate`. Names
are looked up when they are first used, so that tables and pages do not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.4.0"
_SURFACE = {
    "load_dataset": "iadd.data",
    "build_network": "iadd.networks",
    "record_experts": "iadd.api",
    "distill": "iadd.api",
    "evaluate": "iadd.api",
}
__all__ = ["build_network", "distill", "evaluate", "load_dataset", "record_experts"]


def __getattr__(name: str) -> Any:
    if name in _SURFACE:
        return getattr(import_module(_SURFACE[name]), name)
    raise AttributeError(f"module 'iadd' has no attribute {name!r}")
