"""What the CUDA path must show on one card, one JSON object a line; see gpu.sh, which calls it.

    python benchmarks/gpu.py [--tasks kernels,outer,memory,experts,precision,packing]
        [--rounds 5] [--dry]

Everything is validated before it is timed. `floor_seconds` is what arithmetic and memory traffic
alone would take at the rates that this card reached in a large matrix product and a large copy.
`--dry` runs the same lines on the CPU with tiny sizes: a rehearsal, its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import gpu_kernels
import reference
import torch
import torch.nn.functional as F
from reference import SETTINGS, Setting
from torch import Tensor

from iadd import devices
from iadd.augment import FAMILIES, Augmentation
from iadd.engine import cuda_block, cuda_graph
from iadd.engine.autograd import AutogradBackend
from iadd.engine.backend import choose_backend
from iadd.engine.student import Step, draw_steps
from iadd.engine.unroll import unroll
from iadd.networks import Network, build_network
from iadd.train import TrainingPlan, train, train_many

OUTER = {  # name -> setting and the least speed-up that is asked
    "a": (SETTINGS["a"], 10.0),
    "cifar10-ipc10": (Setting(3, 32, 3, 128, 100, 30), 5.0),
    "cifar100-ipc10": (Setting(3, 32, 3, 128, 1000, 20, classes=100), 5.0),
    "c": (SETTINGS["c"], None),
}
STEP_SIZE = 0.02
GIB = 2**30
DRY = "--dry" in sys.argv
DEVICE = torch.device("cpu" if DRY else "cuda")


def size(full: int, tiny: int) -> int:
    return tiny if DRY else full


def say(**row: object) -> None:
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}))
    sys.stdout.flush()


# --------------------------------------------------------------------------- The outer iteration


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


def outer(rounds: int) -> None:
    for name, (setting, wanted) in OUTER.items():
        error = validate(setting)
        p, coarse = (Problem(setting, torch.float32, kind) for kind in ("float32", "tf32"))
        mine_bytes, plain_bytes = extra_bytes(p.ours), plain_memory(p)
        ways = [p.ours, lambda p=p: p.ours("replay"), p.plain]
        mine, uncaptured, *plain = interleaved(ways[: 3 if plain_bytes else 2], rounds)
        theirs = plain[0] if plain else None  # where it does not fit
        p.ours()
        path, floor = p.path, floor_seconds(p.network, setting)
        same = all(torch.equal(a, b) for a, b in zip(p.ours(), p.ours(), strict=True))
        (tf32,) = interleaved([coarse.ours], rounds)
        say(
            setting=name,
            speedup=theirs / mine if theirs else None,
            speedup_wanted=wanted,
            memory_ratio=plain_bytes / mine_bytes if plain_bytes else None,
            gib=[mine_bytes / GIB, plain_bytes / GIB if plain_bytes else None],
            seconds=mine,
            seconds_plain=theirs,
            seconds_uncaptured=uncaptured,
            seconds_tf32=tf32,
            floor_seconds=floor,
            times_floor=mine / floor,
            float64_error=error,
            same_bits_twice=same,
            path=path,
            device=devices.describe(DEVICE),
        )


def plain_memory(p: Problem) -> int | None:
    """What the plain way reserves, or None where the card is too small for it."""
    try:
        return extra_bytes(p.plain)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


# ------------------------------------------------------------------------------------- The floor


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


# --------------------------------------------------------------------- Precision, memory, experts


def precision(rounds: int) -> None:
    """One mixed Hessian-vector product and one iteration of setting a in every arithmetic."""
    exact = Problem(SETTINGS["a"], torch.float64)
    g = torch.Generator(device=DEVICE).manual_seed(0)
    # Nothing flips sign without ReLU: the difference is rounding alone.
    name = f"{exact.setting.name}-linear"
    direction = torch.randn(len(exact.start), generator=g, device=DEVICE, dtype=torch.float64)
    for kind in ("float32", "tf32", "bf16"):
        network = build_network(name, 3, exact.setting.resolution, 10, kind)
        given = (exact.start, exact.images, exact.targets, direction)
        fine = AutogradBackend(network, DEVICE, torch.float64).tangent(*given)
        coarse = choose_backend(network, DEVICE).tangent(*(z.float() for z in given))
        errors = [
            float((a.double() - b).norm() / b.norm())
            for a, b in zip(coarse[:3], fine[:3], strict=True)
        ]
        p = Problem(SETTINGS["a"], torch.float32, kind)
        (spent,) = interleaved([p.ours], rounds)
        say(
            setting=f"a-{kind}",
            seconds=spent,
            hvp_error_params=errors[0],
            hvp_error_images=errors[1],
            path=p.path,
        )


def memory() -> None:
    """CIFAR-100's shape at IPC 50: 5,000 images, J = 80, batches of 125, augmented."""
    count, batch = size(5000, 50), size(125, 12)
    setting = Setting(3, 32, 3, 128, count, 80, classes=100)
    p = Problem(setting, torch.float32)
    g = torch.Generator().manual_seed(0)
    families = Augmentation(FAMILIES)
    steps = draw_steps(80, count, batch, lambda count: families.draw(g, count), g)
    reserved = extra_bytes(lambda: p.ours(steps=steps))
    (spent,) = interleaved([lambda: p.ours(steps=steps)], 3)
    say(
        setting="cifar100-ipc50",
        gib=reserved / GIB,
        gib_wanted=8,
        seconds=spent,
        times_floor=spent / floor_seconds(p.network, replace(setting, batch=batch)),
        path=p.path,
    )


def experts() -> None:
    """The rate of CIFAR-10-shaped experts, from an epoch of 50,000 images; 1, 2, 4 at once."""
    g = torch.Generator().manual_seed(0)
    side, count = size(32, 8), size(50_000, 600)
    network = build_network("convnet-w4" if DRY else "convnet", 3, side, 10)
    images = torch.randn(count, 3, side, side, generator=g).to(DEVICE)
    targets = F.one_hot(torch.arange(count) % 10, 10).float().to(DEVICE)
    schedule = TrainingPlan(1, size(256, 25), 0.01)
    rest = (images, targets, schedule, Augmentation(FAMILIES))
    for many in (1, 2, 4):
        starts = torch.stack([network.init(g) for _ in range(many)])
        generators = [torch.Generator().manual_seed(m) for m in range(many)]

        def epoch(
            starts: Tensor = starts, generators: list[torch.Generator] = generators
        ) -> object:
            if len(starts) == 1:
                return train(network, starts[0], *rest, generators[0])
            return train_many(network, starts, *rest, generators)

        seconds(epoch)
        spent = seconds(epoch) / many
        say(
            setting=f"experts-{many}-at-once",
            seconds_an_epoch=spent,
            minutes_for_100_of_50_epochs=spent * 5000 / 60,
            minutes_wanted=30,
            path=choose_backend(network, DEVICE).name,
        )


def judges() -> None:
    """Five networks side by side, 1,000 epochs on 1 and on 10 images a class: a judge's work."""
    g = torch.Generator().manual_seed(0)
    side, epochs = size(32, 8), size(1000, 20)
    network = build_network("convnet-w4" if DRY else "convnet", 3, side, 10)
    for ipc in (1, 10):
        images = torch.randn(10 * ipc, 3, side, side, generator=g).to(DEVICE)
        targets = F.one_hot(torch.arange(10 * ipc) % 10, 10).float().to(DEVICE)
        schedule = TrainingPlan(epochs, 256, 0.01, 0.9, 5e-4, (epochs // 2,))
        starts = torch.stack([network.init(g) for _ in range(5)])
        generators = [torch.Generator().manual_seed(m) for m in range(5)]
        rest = (images, targets, schedule, Augmentation(FAMILIES))
        spent = seconds(lambda s=starts, r=rest, g=generators: train_many(network, s, *r, g))
        say(setting=f"judges-ipc{ipc}", seconds=spent, seconds_wanted=20)


def packing() -> None:
    """A search's trials an hour, 1, 2, 4, 8 of them on the card: setting a, 5,000 iterations."""
    for many in (1, 2, 4, 8):
        command = [sys.executable, __file__, "--tasks", "trial", *["--dry"] * DRY]
        children = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(many)
        ]
        for child in children:  # all have warmed up before any is counted
            assert child.stdout is not None
            child.stdout.readline()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        counts = [float(child.communicate()[0] or 0) for child in children]
        say(
            setting=f"packing-{many}-a-card",
            trials_an_hour=sum(counts) * 3600 / 5000,
            failed=sum(child.returncode != 0 for child in children),
        )


def trial() -> None:
    """Outer iterations a second of setting a, from a line on standard input on."""
    p = Problem(OUTER["a"][0], torch.float32)
    p.ours()
    print("ready", flush=True)
    sys.stdin.readline()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < size(4, 1):
        p.ours()
        devices.synchronize(DEVICE)
        count += 1
    print(count / (time.perf_counter() - began))


def kernels() -> None:
    """Every fused kernel once against its reference."""
    most = gpu_kernels.largest_error(DEVICE)
    say(setting="kernels", max_relative_error=most, fused=cuda_block.fused(DEVICE))
    if not most < 1e-10:
        raise SystemExit("a fused kernel differs from its reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="kernels,outer,memory,experts,judges,precision,packing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="rehearse on the CPU, tiny")
    options = parser.parse_args()
    if not DRY and not torch.cuda.is_available():
        print("gpu.py: no CUDA device here, nothing was measured")
        return
    devices.choose("cpu" if DRY else "cuda:0")
    tasks: dict[str, Callable[[], None]] = {
        "outer": lambda: outer(options.rounds),
        "precision": lambda: precision(options.rounds),
        "memory": memory,
        "experts": experts,
        "kernels": kernels,
        "packing": packing,
        "trial": trial,
        "judges": judges,
    }
    for task in options.tasks.split(","):
        if task not in tasks:
            raise SystemExit(f"task {task!r}: allowed are {', '.join(tasks)}")
        tasks[task]()


if __name__ == "__main__":
    main()
