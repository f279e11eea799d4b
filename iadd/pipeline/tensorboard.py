"""A run's trace in TensorBoard while it is made, where `IADD_TENSORBOARD=1` asks for it.

`tensorboard --logdir results/<benchmark>/tensorboard` shows it. What is written says nothing that
the table of traces does not say afterwards, and no result depends on it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VARIABLE = "IADD_TENSORBOARD"
APART = ("iteration", "seconds", "event", "path")
"""Columns of a trace that are no curves; events are counted."""

Observe = Callable[[Mapping[str, Any]], None]


@contextmanager
def observing(folder: Path) -> Iterator[Observe | None]:
    """Yields what takes in one row of a trace after another; None where nobody asked for it.

    A run that was killed goes on in the same curves: what it had told later is taken back.

    Raises:
        ValueError: tensorboardX is not installed.
    """
    if os.environ.get(VARIABLE, "") in ("", "0"):
        yield None
        return
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ValueError(f"{VARIABLE}: needs tensorboardX: pip install 'iadd[watch]'") from None
    writers: list[SummaryWriter] = []
    events: Counter[str] = Counter()

    def observe(row: Mapping[str, Any]) -> None:
        step = row["iteration"]
        if not writers:
            writers.append(SummaryWriter(str(folder), purge_step=step, flush_secs=10))
        if event := row["event"]:
            events[event] += 1
            writers[0].add_scalar(f"events/{event}", events[event], step)
        for name, value in row.items():
            if name not in APART and isinstance(value, int | float):
                writers[0].add_scalar(name, value, step)

    try:
        yield observe
    finally:
        for writer in writers:
            writer.close()
