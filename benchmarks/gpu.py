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
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import gpu_kernels
import torch
import torch.nn.functional as F
from gpu_problem import (
    DEVICE,
    DRY,
    GIB,
    Problem,
    extra_bytes,
    floor_seconds,
    interleaved,
    seconds,
    size,
    validate,
)
from reference import SETTINGS, Setting
from torch import Tensor

from iadd import devices
from iadd.augment import FAMILIES, Augmentation
from iadd.engine import cuda_block
from iadd.engine.autograd import AutogradBackend
from iadd.engine.backend import choose_backend
from iadd.engine.student import draw_steps
from iadd.networks import build_network
from iadd.train import TrainingPlan, train, train_many

OUTER = {  # name -> setting and the least speed-up that is asked
    "a": (SETTINGS["a"], 10.0),
    "cifar10-ipc10": (Setting(3, 32, 3, 128, 100, 30), 5.0),
    "cifar100-ipc10": (Setting(3, 32, 3, 128, 1000, 20, classes=100), 5.0),
    "c": (SETTINGS["c"], None),
}


def say(**row: object) -> None:
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}))
    sys.stdout.flush()


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
