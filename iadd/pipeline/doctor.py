"""What is installed and what it would cost: `iadd doctor` and `iadd plan`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from iadd import extension, methods
from iadd.engine import backend, cpu_convnet, cuda_block
from iadd.networks import Network, build_network
from iadd.pipeline.plan import Plan
from iadd.pipeline.stages import open_dataset, open_network
from iadd.seeds import generator_for

PACKAGES = [
    "iadd",
    "torch",
    "torchvision",
    "numpy",
    "safetensors",
    "scikit-learn",
    "pyarrow",
    "pandas",
    "pydantic",
    "snakemake",
    "ray",
    "optuna",
]


def print_report() -> None:
    """Print versions, kernels, devices and threads."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        table.add_row(name, _version(name))
    table.add_row(
        "cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads by default"
    )
    for k in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(k)
        table.add_row(f"cuda:{k}", f"{card.name}, {card.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        table.add_row("cuda", "no usable device")
    for name, value in extension.status().items():
        table.add_row(name, value)
    table.add_row(
        "native passes",
        cpu_convnet.unavailable() or "for ConvNets, on the CPU",
    )
    if torch.cuda.is_available():
        fused = "fused blocks" if cuda_block.fused(torch.device("cuda")) else "plain blocks"
        table.add_row("cuda passes", f"for the ConvNet family, {fused}, in CUDA graphs")
    for tool in ("nvcc", "snakemake", "sbatch"):
        table.add_row(tool, shutil.which(tool) or "not found")
    Console().print(table)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def print_plan(plan: Plan) -> None:
    """Print jobs, disk and estimated hours of a benchmark, from steps timed on this machine."""
    config = plan.config
    jobs, disk, hours = 0, 0, 0.0
    table = Table("data set", "stage", "jobs", "disk", "core hours", box=None, pad_edge=False)
    for d in config.datasets:
        dataset, _ = open_dataset(config, d.key)
        network = open_network(config, dataset)
        rate = _image_seconds(network)
        size = len(dataset.train)
        rows: list[tuple[str, int, int, float]] = []
        if plan.expert_epochs:
            width = 4 if config.experts.recipe.dtype == "float32" else 2
            count = config.experts.count
            snapshots = count * (plan.expert_epochs + 1) * network.num_parameters * width
            seconds = count * plan.expert_epochs * size * rate
            rows.append(("experts", len(plan.shards(d.key)), snapshots, seconds))
        pixels = dataset.channels * dataset.resolution**2 * 4
        for method in config.methods:
            seconds, images, runs = 0.0, 0, 0
            for ipc in config.ipcs(method):
                count = size if method == "whole" else ipc * dataset.classes
                params = config.params(method, ipc)
                seconds += config.seeds * _distill_seconds(
                    params, count, dataset.classes, rate, size
                )
                images += config.seeds * count
                runs += config.seeds
            rows.append((f"distill {method}", runs, images * pixels, seconds))
            seconds = 0.0
            for e in config.evaluations:
                for name, networks in e.networks.items():
                    judge = build_network(
                        name, dataset.channels, dataset.resolution, dataset.classes
                    )
                    epochs = e.whole_epochs if method == "whole" else e.epochs
                    seconds += networks * epochs * images * _image_seconds(judge)
            rows.append((f"evaluate {method}", runs, runs * 20_000, seconds))
        for stage, count, size_bytes, seconds in rows:
            jobs, disk, hours = jobs + count, disk + size_bytes, hours + seconds / 3600
            table.add_row(d.key, stage, str(count), _bytes(size_bytes), f"{seconds / 3600:.2f}")
    Console().print(table)
    free = shutil.disk_usage(_existing(plan.root)).free
    print(
        f"{jobs + 2} jobs, {_bytes(disk)} on disk ({_bytes(free)} free), "
        f"about {hours:.1f} core hours on this machine, without start-up and waiting"
    )


def _distill_seconds(
    params: methods.MethodParams, count: int, classes: int, rate: float, size: int
) -> float:
    """Estimated seconds of one distillation: a tangent costs about three gradients."""
    given = params.model_dump()
    iterations = given.get("iterations", 0)
    if "unrolled_steps" in given:
        return float(
            iterations * given["unrolled_steps"] * 4 * (given["batch_syn"] or count) * rate
        )
    if "batch_real" in given:
        return float(iterations * (classes * given["batch_real"] + 4 * count) * rate)
    return float(given.get("epochs", 0) * size * rate)


_SECONDS: dict[str, float] = {}


def _image_seconds(network: Network) -> float:
    """Seconds of one gradient per image, from a short measurement with a batch of 32."""
    if network.name not in _SECONDS:
        generator = generator_for("plan")
        params = network.init(generator)
        images = torch.randn(
            32, network.channels, network.resolution, network.resolution, generator=generator
        )
        targets = torch.full((32, network.classes), 1 / network.classes)
        backend.gradient(network, params, images, targets)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            backend.gradient(network, params, images, targets)
            times.append(time.perf_counter() - began)
        _SECONDS[network.name] = sorted(times)[2] / 32
    return _SECONDS[network.name]


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
