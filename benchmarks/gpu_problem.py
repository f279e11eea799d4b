"""What the benchmarks of a card iterate over, and how long that takes and would take at best.

With `--dry` among a script's words all runs on the CPU with tiny sizes: a rehearsal, whose numbers
mean nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import reference
import torch
import torch.nn.functional as F
from reference import Setting
from torch import Tensor

from iadd import devices
from iadd.engine import cuda_graph
from iadd.engine.backend import choose_backend
from iadd.engine.student import Step
from iadd.engine.unroll import unroll
from iadd.networks import Network, build_network

STEP_SIZE = 0.02
GIB = 2**30
DRY = "--dry" in sys.argv
DEVICE = torch.device("cpu" if DRY else "cuda")


def size(full: int, tiny: int) -> int:
    return tiny if DRY else full


class Problem:
    """An expert's two ends and a synthetic set on a device, in one dtype."""

    def __init__(self, setting: Setting, dtype: torch.dtype, precision: str = "float32") -> None:
        g = torch.Generator().manual_seed(0)
        if DRY:
            setting = replace(setting, resolution=8, depth=2, width=4, steps=3)
        side, self.setting = setting.resolution, setting
        shape = (setting.channels, side, setting.classes)
        self.network = build_network(setting.name, *shape, precision)
        start = self.network.init(g)
        target = start + 0.02 * torch.randn(len(start), generator=g)
        images = torch.randn(setting.batch, setting.channels, side, side, generator=g)
        labels = torch.arange(setting.batch) % setting.classes
        self.start, self.target, self.images = (
            z.to(DEVICE, dtype) for z in (start, target, images)
        )
        self.labels = labels.to(DEVICE)
        self.targets = F.one_hot(self.labels, setting.classes).to(self.start)
        self.apply = reference.functional(setting)
        self.alpha = torch.tensor(STEP_SIZE, dtype=dtype, device=DEVICE)

    def endpoint(self, student: Tensor) -> tuple[Tensor, Tensor]:
        scale = 1 / (self.start - self.target).square().sum()
        apart = student - self.target
        return scale * torch.dot(apart, apart), 2 * scale * apart

    def ours(self, mode: str = "auto", steps: list[Step] | None = None) -> tuple[Tensor, ...]:
        steps = steps or [Step(None, None)] * self.setting.steps
        found = unroll(
            choose_backend(self.network, self.start.device, self.start.dtype),
            self.start,
            self.images,
            self.targets,
            STEP_SIZE,
            steps,
            self.endpoint,
            mode,
        )
        self.path = found.path
        return found.loss, found.images, found.step_size

    def plain(self) -> tuple[Tensor, ...]:
        given = (self.start, self.target, self.images, self.labels, self.alpha)
        return reference.outer_iteration(self.apply, self.setting.steps, *given)


def validate(setting: Setting) -> float:
    """Largest relative difference in float64 of a shortened problem; must be rounding."""
    p = Problem(replace(setting, batch=10, steps=3), torch.float64)
    errors = [
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(p.ours(), p.plain(), strict=True)
    ]
    if not max(errors) < 1e-9:
        raise SystemExit(f"the engine's float64 gradient is off by {max(errors):.1e}: not timed")
    return max(errors)


def seconds(way: Callable[[], object]) -> float:
    devices.synchronize(DEVICE)
    began = time.perf_counter()
    way()
    devices.synchronize(DEVICE)
    return time.perf_counter() - began


def interleaved(ways: list[Callable[[], object]], rounds: int) -> list[float]:
    """Medians, after two rounds to warm up."""
    spent: list[list[float]] = [[] for _ in ways]
    for i in range(rounds + 2):
        for times, way in zip(spent, ways, strict=True):
            taken = seconds(way)
            if i > 1:
                times.append(taken)
    return [statistics.median(times) for times in spent]


def extra_bytes(way: Callable[[], object]) -> int:
    """Device memory that a first call reserves: what another job cannot have."""
    cuda_graph._iteration.cache_clear()
    if DRY:
        way()
        return 1
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    way()
    torch.cuda.synchronize()
    return max(torch.cuda.max_memory_reserved() - before, 1)


@cache
def rates() -> tuple[float, float]:
    """FLOP/s of a large float32 product and bytes/s of a large copy on this card."""
    side, count = size(8192, 64), size(GIB // 4, 1000)
    a = torch.randn(side, side, device=DEVICE)
    b = torch.empty(count, device=DEVICE)
    c = torch.empty_like(b)
    products, copies = interleaved([lambda: a @ a, lambda: c.copy_(b)], 5)
    return 2 * side**3 / products, 8 * count / copies


def floor_seconds(network: Network, setting: Setting) -> float:
    """Every convolution and block pass at the rate that bounds it, once a step."""
    flops_rate, bytes_rate = rates()
    total, side, channels = 0.0, setting.resolution, setting.channels
    for layer in range(setting.depth):
        pixels, pooled = side * side, (side // 2) ** 2 if side >= 4 else side * side
        into, out = channels * pixels * setting.batch, setting.width * pixels * setting.batch
        products = 2 * 9 * channels * out
        # Products of the gradient and of its tangent; the images themselves need fewer.
        count = 11 if layer else 7
        total += count * max(products / flops_rate, 4 * (into + out) / bytes_rate)
        small = setting.width * pooled * setting.batch
        maps = 3 * (out + small) + 3 * out  # forward and backward, plain and twice in duals
        total += 4 * (maps + 2 * out) / bytes_rate
        side, channels = side // 2 if side >= 4 else side, setting.width
    vectors = 12 * 4 * network.num_parameters / bytes_rate  # theta, lambda, gradients
    return setting.steps * (total + vectors)
