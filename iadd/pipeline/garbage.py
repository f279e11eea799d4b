"""Garbage collection in Snakemake's process, where nearly all that is made stays."""

from __future__ import annotations

import atexit
import gc

RARELY = 100_000, 50, 50
"""Thresholds for a graph of thousands of jobs: to look for garbage among its millions of objects as
often as usual takes a sixth of the time, and an eighth of a start, which loads PyTorch."""
USUAL = gc.get_threshold()


def collect_rarely() -> None:
    """Call it first. At the end nothing is looked through: the process leaves its memory anyway."""
    gc.set_threshold(*RARELY)
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """For a job that is forked from such a process: its tensors must not wait to be freed."""
    gc.set_threshold(*USUAL)
