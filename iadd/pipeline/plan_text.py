"""`iadd plan`: jobs, disk and hours of a benchmark as text."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from iadd.artifacts import counted
from iadd.pipeline.expert_check import expert_lines
from iadd.pipeline.few_tested import few_tested
from iadd.pipeline.forecast import Forecast
from iadd.pipeline.plan import Plan
from iadd.pipeline.remaining import remaining, replacing


def print_plan(plan: Plan) -> None:
    """Print jobs, disk and estimated hours of a benchmark, once its data are checked.

    Raises:
        ValueError: the data or a submission cannot be read, or have too few images for an ipc.
    """
    plan.check_submissions()
    forecast = Forecast(plan)
    for line in forecast.too_large():
        raise ValueError(f"{plan.config.origin}: {line}")
    for key in forecast.stale:  # what is left is what is not made from the data of now
        plan.foresee(key, forecast.abouts[key])
    rows, (left, replaced) = forecast.rows, remaining(plan)
    table = Table(
        "data set", "stage", "jobs", "left", "disk", "core time", box=None, pad_edge=False
    )
    seconds = 0.0
    for row in rows:
        waiting = min(left[row.dataset, row.stage], row.jobs)
        seconds += row.seconds * waiting / max(row.jobs, 1)
        cost = bytes_text(row.disk), _duration(row.seconds)
        table.add_row(row.dataset, row.stage, str(row.jobs), str(waiting), *cost)
    Console().print(table)
    for key, about in forecast.abouts.items():
        told = [f"{key}: {line}" for line in about.told()]
        for line in (*told, *expert_lines(plan, key), *few_tested(about)):
            print(line)
    free = shutil.disk_usage(existing(plan.root)).free
    disk, precision = sum(row.disk for row in rows), plan.config.precision
    where = "this machine" if precision == "float32" else f"this machine's CPU (not {precision})"
    print(
        f"{counted(sum(row.jobs for row in rows), 'job{s}')}, of which {left.total()} are left; "
        f"{bytes_text(disk)} on disk ({bytes_text(free)} free); about {_duration(seconds)} of core "
        f"time left on {where}, without start-up and waiting"
    )
    if replaced:
        print(replacing(plan.config.benchmark, replaced))


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def bytes_text(count: float) -> str:
    """A size in the unit that people would use."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def existing(path: Path) -> Path:
    """A path, or the nearest folder above that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
