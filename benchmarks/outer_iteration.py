"""One outer iteration of trajectory matching: the engine against the plain unroll.

    python benchmarks/outer_iteration.py [--settings a,b,c,d] [--rounds 5] [--threads 2] [--json]
    python benchmarks/outer_iteration.py --settings generic         # networks by autograd

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import reference
import torch
import torch.nn.functional as F
from reference import SETTINGS, Setting
from torch import Tensor

from iadd.engine.backend import Backend, choose_backend
from iadd.engine.student import Step
from iadd.engine.unroll import unroll
from iadd.networks import Network, build_network

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
STEP_SIZE = 0.02


@dataclass(frozen=True)
class Generic:
    """A network whose passes are autograd's; the plain way takes the same function."""

    name: str
    channels: int
    resolution: int
    batch: int
    steps: int
    classes: int = 10


GENERIC = {
    "convnet-batchnorm": Generic("convnet-d3-w128-batchnorm", 3, 32, 10, 20),
    "alexnet": Generic("alexnet", 3, 32, 10, 50),
    "vgg11": Generic("vgg11", 3, 32, 10, 60),
    "resnet18": Generic("resnet18", 3, 32, 10, 40),
    "resnet18-batchnorm": Generic("resnet18-batchnorm", 3, 32, 10, 40),
}
KNOWN: dict[str, Setting | Generic] = {**SETTINGS, **GENERIC}


class Problem(NamedTuple):
    """An expert's two ends (P,) and a synthetic set (B, C, H, W), (B,)."""

    setting: Setting | Generic
    network: Network
    backend: Backend
    start: Tensor
    target: Tensor
    images: Tensor
    labels: Tensor


def problem(
    setting: Setting | Generic, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Problem:
    g = torch.Generator().manual_seed(seed)
    side = setting.resolution
    network = build_network(setting.name, setting.channels, side, setting.classes)
    start = network.init(g)
    target = start + 0.02 * torch.randn(len(start), generator=g)
    images = torch.randn(setting.batch, setting.channels, side, side, generator=g)
    labels = torch.arange(setting.batch) % setting.classes
    backend = choose_backend(network, start.device, dtype)
    ends = start.to(dtype), target.to(dtype)
    return Problem(setting, network, backend, *ends, images.to(dtype), labels)


def ours(p: Problem) -> tuple[Tensor, Tensor, Tensor, str]:
    """Loss, gradients by images and step size, and the path that ran."""
    scale = 1 / F.mse_loss(p.start, p.target, reduction="sum")

    def endpoint(student: Tensor) -> tuple[Tensor, Tensor]:
        apart = student - p.target
        return scale * torch.dot(apart, apart), 2 * scale * apart

    targets = F.one_hot(p.labels, p.setting.classes).to(p.start)
    steps = [Step(None, None)] * p.setting.steps
    result = unroll(p.backend, p.start, p.images, targets, STEP_SIZE, steps, endpoint)
    return result.loss, result.images, result.step_size, result.path


def plain(p: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """The same three by autograd through the whole unroll."""
    own = isinstance(p.setting, Generic)
    apply = p.network.apply if own else reference.functional(p.setting)
    alpha = torch.tensor(STEP_SIZE, dtype=p.start.dtype)
    return reference.outer_iteration(
        apply, p.setting.steps, p.start, p.target, p.images, p.labels, alpha
    )


def validate(setting: Setting | Generic) -> float:
    """Largest relative difference of a shortened problem's results in float64; must be rounding."""
    p = problem(replace(setting, batch=min(setting.batch, 10), steps=3), torch.float64)
    errors = [
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours(p), plain(p), strict=False)
    ]
    if not max(errors) < 1e-9:
        raise SystemExit(f"the engine's float64 gradient is off by {max(errors):.1e}: not timed")
    return max(errors)


def interleaved(p: Problem, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each way in every round; `warm` comes before."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for spent, way in zip(seconds, (ours, plain), strict=True):
            began = time.perf_counter()
            way(p)
            spent.append(time.perf_counter() - began)
    return seconds


def warm(p: Problem) -> str:
    """One round that is not timed; the engine's path."""
    path = ours(p)[3]
    plain(p)
    return path


def status_bytes(field: str) -> int:
    """VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}: memory is measured on Linux only")


def extra_peak(p: Problem, way: Callable[[Problem], object]) -> int:
    """Bytes that one iteration adds to a process which has everything loaded."""
    native = isinstance(p.setting, Setting)
    way(problem(Setting(1, 8, 1, 4, 4, 2) if native else Generic("lenet", 1, 8, 4, 2)))
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
    p = problem(KNOWN[name])
    error = validate(KNOWN[name])
    path = warm(p)
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
        "time_ratio": round(1 / middle, 2),
        "seconds": round(statistics.median(seconds[0]), 5),
        "seconds_plain": round(statistics.median(seconds[1]), 5),
        "float64_error": error,
        "path": path,
        "threads": options.threads,
    }


def show(row: dict[str, object]) -> None:
    low, high = row["speedup_range"]  # type: ignore[misc]
    print(
        f"{row['setting']:>18}  {row['seconds']:8.4f} s  plain {row['seconds_plain']:8.4f} s  "
        f"{row['speedup']:5.1f}x ({low}-{high})  tuned allocator "
        f"{row['speedup_allocator_tuned']:4.1f}x  memory 1/{row['memory_ratio']}  {row['path']}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ", ".join(KNOWN)
    parser.add_argument("--settings", default=",".join(SETTINGS), help=f"of generic, {names}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--task", choices=("time", "ours", "plain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wanted = options.settings.replace("generic", ",".join(GENERIC)).split(",")
    for name in wanted:
        if name not in KNOWN:
            raise SystemExit(f"setting {name!r}: allowed are generic, {names}")
        if options.task:
            p = problem(KNOWN[name])
            ways = {"ours": ours, "plain": plain}
            if options.task == "time":
                warm(p)
                print(json.dumps(interleaved(p, options.rounds)))
            else:
                print(json.dumps(extra_peak(p, ways[options.task])))
            continue
        row = measure(name, options)
        print(json.dumps(row), flush=True) if options.json else show(row)


if __name__ == "__main__":
    main()
