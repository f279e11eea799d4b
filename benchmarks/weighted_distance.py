"""The weighted parameter distance: loss and student gradient, fused against eager PyTorch.

    python benchmarks/weighted_distance.py [--json] [--sizes 20000 11000000] [--device cpu]

Every variant is validated against float64 first, then all are timed in turns in one process
(medians), and the machine's own copy with them. Variants:

    eager      ((w * (s - t)) ** 2).sum() / ((o - t) ** 2).sum() and its backward
    compiled   the same under torch.compile
    autograd   iadd.engine.distance.distance and its backward

GB/s are those of `autograd`, 28 bytes a parameter (four arrays read, one written, and that one
scaled); its ratio to the copy (8 bytes a parameter) is what it leaves to gain. Fresh memory
dominates eager on Linux: its page faults go away with THP_MEM_ALLOC_ENABLE=1 in the environment,
the other baseline to quote.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from iadd import extension
from iadd.engine.distance import distance

SIZES = (20_000, 320_010, 11_000_000, 100_000_000)
TOLERANCE = 1e-6
SLICE = 1 << 22


def eager(student, start, target, weights):
    return ((weights * (student - target)) ** 2).sum() / ((start - target) ** 2).sum()


class Case:
    """Inputs of one size on one device, and the variants: each returns loss and gradient."""

    def __init__(self, size, device):
        generator = torch.Generator().manual_seed(size)
        self.target = torch.randn(size, generator=generator).to(device)
        self.start = self.target + torch.randn(size, generator=generator).to(device) * 0.1
        self.student = self.target + torch.randn(size, generator=generator).to(device) * 0.05
        self.weights = torch.rand(size, generator=generator).to(device) * 2
        self.student.requires_grad_()
        self.buffer = torch.empty_like(self.target)
        compiled = torch.compile(eager, dynamic=False)
        self.variants = {
            "eager": lambda: self.by_autograd(eager),
            "compiled": lambda: self.by_autograd(compiled),
            "autograd": lambda: self.by_autograd(lambda *given: distance(*given).weighted),
        }

    def by_autograd(self, function):
        loss = function(self.student, self.start, self.target, self.weights)
        return loss, torch.autograd.grad(loss, self.student)[0]

    def copy(self):
        self.buffer.copy_(self.target)

    def error(self, loss, gradient):
        """Largest relative error of the loss and, to its largest element, of the gradient."""
        slices = [slice(i, i + SLICE) for i in range(0, len(self.target), SLICE)]

        def residual(at):
            target = self.target[at].double()
            return self.student.detach()[at].double() - target, self.start[at].double() - target

        numerator = denominator = 0.0
        for at in slices:
            d, e = residual(at)
            numerator += float((self.weights[at].double() * d).square().sum())
            denominator += float(e.square().sum())
        wrong = largest = 0.0
        for at in slices:
            exact = 2 / denominator * self.weights[at].double().square() * residual(at)[0]
            wrong = max(wrong, float((gradient[at].double() - exact).abs().max()))
            largest = max(largest, float(exact.abs().max()))
        exact_loss = numerator / denominator
        return max(abs(float(loss.detach().double()) / exact_loss - 1), wrong / largest)


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(functions, device, seconds):
    """Median seconds of each function, called in turns for about that long."""
    once = 0.0
    for function in functions:
        function()
        synchronize(device)
        began = time.perf_counter()
        function()
        synchronize(device)
        once += time.perf_counter() - began
    rounds = min(2000, max(5, int(seconds / once)))
    inner = 20 if device.type == "cuda" and once < 2e-3 else 1  # a queue hides the host's part
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, times, strict=True):
            synchronize(device)
            began = time.perf_counter()
            for _ in range(inner):
                function()
            synchronize(device)
            taken.append((time.perf_counter() - began) / inner)
    return [statistics.median(taken) for taken in times]


def graph_seconds(function, device):
    """Seconds of one call inside a CUDA graph; None elsewhere."""
    if device.type != "cuda":
        return None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return timed([graph.replay], device, 0.5)[0]


class Count(TorchDispatchMode):
    """Counts operators that compute something."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        quiet = func.is_view or func.overloadpacket.__name__ in ("empty_like", "ones_like")
        self.total += not quiet
        return func(*args, **(kwargs or {}))


def launches(function, device):
    """CUDA kernels of one call, counted by the profiler; on the CPU its operators before fusion."""
    if device.type == "cuda":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            function()
            synchronize(device)
        averages = profile.key_averages()
        return sum(e.count for e in averages if e.device_type == torch.autograd.DeviceType.CUDA)
    with Count() as count:
        function()
    return count.total


def peak_bytes(function, device):
    """Largest extra memory while the function runs; None where it cannot be had."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = resident("VmRSS")
        function()
        return max(0, resident("VmHWM") - before)
    except OSError:
        return None


def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure(size, device, seconds):
    case = Case(size, device)
    errors = {}
    for name, run in list(case.variants.items()):
        try:
            errors[name] = case.error(*run())
        except Exception as reason:
            if name != "compiled":
                raise
            print(f"compiled: not measured: {str(reason).splitlines()[0]}", file=sys.stderr)
            del case.variants[name]
            continue
        if errors[name] > TOLERANCE and name == "autograd":
            raise SystemExit(f"{name}, P = {size}: error {errors[name]:.1e} above {TOLERANCE}")
    names = list(case.variants)
    *medians, copy = timed([*case.variants.values(), case.copy], device, seconds)
    times = dict(zip(names, medians, strict=True))
    graph = graph_seconds(case.variants["autograd"], device)
    found = {n: (launches(f, device), peak_bytes(f, device)) for n, f in case.variants.items()}
    best = times["autograd"]
    row = {
        "device": device_name(device),
        "parameters": size,
        "speedup_eager": times["eager"] / best,
        "speedup_compiled": times["compiled"] / best if "compiled" in times else None,
        "bandwidth_ratio": (28 * size / best) / (8 * size / copy),
        "gigabytes_per_second": 28 * size / best / 1e9,
        "copy_gigabytes_per_second": 8 * size / copy / 1e9,
        "microseconds": best * 1e6,
        "graph_microseconds": None if graph is None else graph * 1e6,
        "max_relative_error": errors["autograd"],
        "kernel": extension.kernel_name(case.target),
    }
    for name in names:
        row[f"microseconds_{name}"] = times[name] * 1e6
        row[f"launches_{name}"], row[f"peak_bytes_{name}"] = found[name]
    return row


def device_name(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {torch.get_num_threads()} threads"


def show(row):
    print(
        f"\nP = {row['parameters']:,} on {row['device']}, {row['kernel']}, "
        f"torch {torch.__version__}"
    )
    print(f"{'':10}{'time':>12}{'against eager':>15}{'operators':>11}{'extra peak':>12}")
    for name in ("eager", "compiled", "autograd"):
        if f"microseconds_{name}" not in row:
            print(f"{name:10}{'not measured':>12}")
            continue
        taken, peak = row[f"microseconds_{name}"], row[f"peak_bytes_{name}"]
        ratio = row["microseconds_eager"] / taken
        megabytes = "" if peak is None else f"{peak / 1e6:,.0f} MB"
        print(
            f"{name:10}{taken:>9,.1f} us{ratio:>14.1f}x{row[f'launches_{name}']:>11}{megabytes:>12}"
        )
    print(
        f"autograd {row['gigabytes_per_second']:.1f} GB/s, copy "
        f"{row['copy_gigabytes_per_second']:.1f} GB/s, ratio {row['bandwidth_ratio']:.2f}; "
        f"largest relative error {row['max_relative_error']:.1e}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one object a size, a line each")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="parameters P")
    parser.add_argument("--device", nargs="+", help="default: cpu, and cuda where there is one")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own")
    parser.add_argument("--seconds", type=float, default=8.0, help="of timing a size, about")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for name in args.device or ["cpu", "cuda"][: 1 + torch.cuda.is_available()]:
        for size in args.sizes:
            row = measure(size, torch.device(name), args.seconds)
            print(json.dumps(row), flush=True) if args.json else show(row)


if __name__ == "__main__":
    main()
