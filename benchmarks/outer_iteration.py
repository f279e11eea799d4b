"""One outer iteration of trajectory matching: the engine against the plain unroll.

    python benchmarks/outer_iteration.py [--settings a,b,c,d] [--rounds 5] [--threads 2] [--json]

Validates in float64, then times both in turn in one process, here as shipped and in a child process
whose allocator keeps its memory (what tuning alone gives the plain way), and takes each one's
peak memory in a process of its own. Prints medians and the range of the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import reference
import torch
import torch.nn.functional as F
from reference import SETTINGS, Setting
from torch import Tensor

from iadd.networks import Network, build_network
from iadd.unroll import Step, unroll

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
STEP_SIZE = 0.02


class Problem(NamedTuple):
    """An expert's two ends (P,) and a synthetic set (B, C, H, W), (B,)."""

    setting: Setting
    network: Network
    start: Tensor
    target: Tensor
    images: Tensor
    labels: Tensor


def problem(setting: Setting, dtype: torch.dtype = torch.float32) -> Problem:
    g = torch.Generator().manual_seed(0)
    side = setting.resolution
    network = build_network(setting.name, setting.channels, side, setting.classes)
    start = network.init(g)
    target = start + 0.02 * torch.randn(len(start), generator=g)
    images = torch.randn(setting.batch, setting.channels, side, side, generator=g)
    labels = torch.arange(setting.batch) % setting.classes
    return Problem(setting, network, start.to(dtype), target.to(dtype), images.to(dtype), labels)


def ours(p: Problem) -> tuple[Tensor, Tensor, Tensor, str]:
    """Loss, gradients by images and step size, and the path that ran."""
    scale = 1 / F.mse_loss(p.start, p.target, reduction="sum")

    def endpoint(student: Tensor) -> tuple[Tensor, Tensor]:
        apart = student - p.target
        return scale * torch.dot(apart, apart), 2 * scale * apart

    targets = F.one_hot(p.labels, p.setting.classes).to(p.start)
    steps = [Step(None, None)] * p.setting.steps
    result = unroll(p.network, p.start, p.images, targets, STEP_SIZE, steps, endpoint)
    return result.loss, result.images, result.step_size, result.path


def plain(p: Problem) -> tuple[Tensor, Tensor, Tensor]:
    parts = reference.shapes(p.setting)
    alpha = torch.tensor(STEP_SIZE, dtype=p.start.dtype)
    return reference.outer_iteration(p.setting, parts, p.start, p.target, p.images, p.labels, alpha)


def validate(setting: Setting) -> float:
    """Largest relative difference of a shortened problem's results in float64; must be rounding."""
    short = Setting(
        setting.channels, setting.resolution, setting.depth, setting.width, 10, 3, setting.classes
    )
    p = problem(short, torch.float64)
    errors = [
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours(p), plain(p), strict=False)
    ]
    if not max(errors) < 1e-9:
        raise SystemExit(f"the engine's float64 gradient is off by {max(errors):.1e}: not timed")
    return max(errors)


def interleaved(p: Problem, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each way in every round, after one round to warm up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        for spent, way in zip(seconds, (ours, plain), strict=True):
            began = time.perf_counter()
            way(p)
            if i:
                spent.append(time.perf_counter() - began)
    return seconds


def status_bytes(field: str) -> int:
    """VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}: memory is measured on Linux only")


def extra_peak(p: Problem, way: Callable[[Problem], object]) -> int:
    """Bytes that one iteration adds to a process which has everything loaded."""
    way(problem(Setting(1, 8, 1, 4, 4, 2)))
    before = status_bytes("VmRSS")
    way(p)
    return max(status_bytes("VmHWM") - before, 4096)  # a page: the finest there is


def child(task: str, name: str, options: argparse.Namespace, extra: dict[str, str]) -> object:
    """The answer of this script to one task in a process of its own."""
    command = [sys.executable, __file__, "--settings", name, "--task", task]
    command += ["--rounds", str(options.rounds), "--threads", str(options.threads)]
    done = subprocess.run(command, env=os.environ | extra, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def ratio(seconds: tuple[list[float], list[float]] | object) -> tuple[float, float, float]:
    """Least, median and largest of plain / ours over the rounds."""
    mine, theirs = seconds  # type: ignore[misc]
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    return min(ratios), statistics.median(theirs) / statistics.median(mine), max(ratios)


def measure(name: str, options: argparse.Namespace) -> dict[str, object]:
    p = problem(SETTINGS[name])
    error = validate(SETTINGS[name])
    seconds = interleaved(p, options.rounds)
    tuned = child("time", name, options, TUNED)
    memory = [int(str(child(task, name, options, {}))) for task in ("ours", "plain")]
    low, middle, high = ratio(seconds)
    return {
        "setting": name,
        "speedup": round(middle, 2),
        "speedup_range": [round(low, 2), round(high, 2)],
        "speedup_allocator_tuned": round(ratio(tuned)[1], 2),
        "memory_ratio": round(memory[1] / memory[0], 1),
        "memory_bytes": memory,
        "seconds": round(statistics.median(seconds[0]), 5),
        "seconds_plain": round(statistics.median(seconds[1]), 5),
        "float64_error": error,
        "path": ours(problem(SETTINGS["digits-1"]))[3],
        "threads": options.threads,
    }


def show(row: dict[str, object]) -> None:
    low, high = row["speedup_range"]  # type: ignore[misc]
    print(
        f"{row['setting']:>9}  {row['seconds']:8.4f} s  plain {row['seconds_plain']:8.4f} s  "
        f"{row['speedup']:5.1f}x ({low}-{high})  tuned allocator "
        f"{row['speedup_allocator_tuned']:4.1f}x  memory 1/{row['memory_ratio']}  {row['path']}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", default=",".join(SETTINGS), help="of " + ", ".join(SETTINGS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--task", choices=("time", "ours", "plain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.settings.split(","):
        if name not in SETTINGS:
            raise SystemExit(f"setting {name!r}: allowed are {', '.join(SETTINGS)}")
        if options.task:
            p = problem(SETTINGS[name])
            ways = {"ours": ours, "plain": plain}
            timed = options.task == "time"
            print(
                json.dumps(
                    interleaved(p, options.rounds) if timed else extra_peak(p, ways[options.task])
                )
            )
        elif options.json:
            print(json.dumps(measure(name, options)), flush=True)
        else:
            show(measure(name, options))


if __name__ == "__main__":
    main()
