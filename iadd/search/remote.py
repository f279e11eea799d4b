"""Trials as plain Ray tasks, some side by side, each tried again if its process or node is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from iadd.search.journal import Entry
from iadd.search.trial import Task

Work = Callable[..., Entry]


def run_all(
    work: Work,
    task: Task,
    entries: Sequence[Entry],
    resources: dict[str, float],
    at_once: int,
    *more: Any,
    left: Callable[[], float | None] = lambda: None,
) -> Iterator[Entry]:
    """Have Ray do `work(task, entry, *more)` for each entry; gives each back as it ends.

    Args:
        work: a module-level function that returns the entry as it left it.
        at_once: how many run side by side, however many would fit.
        left: seconds that may still be spent, None without end; what has not ended then is cut off.

    An entry that fails for good is closed as failed and given back like the others.
    """
    import ray

    remote: Any = ray.remote(work).options(
        num_cpus=resources["cpu"],
        num_gpus=resources.get("gpu", 0),
        memory=resources["memory"],
        max_retries=task.plan.config.search.retries,
        retry_exceptions=True,
    )
    queue, running = deque(entries), dict[Any, Entry]()
    while queue or running:
        seconds = left()
        if seconds is not None and seconds <= 0:
            for job in running:
                ray.cancel(job, force=True)
            if running:
                ray.wait([*running], num_returns=len(running), timeout=10)
            return
        while queue and len(running) < at_once:
            entry = queue.popleft()
            running[remote.remote(task, entry, *more)] = entry
        ready, _ = ray.wait([*running], timeout=seconds)
        for job in ready:
            entry = running.pop(job)
            try:
                entry.__dict__ |= vars(ray.get(job))
            except ray.exceptions.RayError as error:
                entry.__dict__ |= vars(task.journal.read(entry.key) or entry)
                task.journal.close(entry, "failed", str(error).strip().splitlines()[-1])
            yield entry
