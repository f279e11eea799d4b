"""What is installed, which kernels run, on which devices and threads: `iadd doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil

import torch
from rich.console import Console
from rich.table import Table

from iadd import devices, extension
from iadd.engine import cuda_block

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
    devices.check_environment()
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
