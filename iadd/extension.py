"""The compiled extension `iadd/_C*.so`: finding it, loading it, and saying what it can do."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


@cache
def _extension() -> dict[str, str]:
    """Load iadd/_C*.so: what it is, or under `reason` why it is not used."""
    mode = os.environ.get("IADD_KERNELS", "fused")
    if mode not in ("fused", "reference"):
        raise ValueError(f"IADD_KERNELS={mode}: allowed are fused, reference")
    if mode == "reference":
        return {"reason": "IADD_KERNELS=reference"}
    found = sorted(Path(__file__).parent.glob("_C*.so"))
    if not found:
        return _without("it is not built (python setup.py build_ext --inplace)")
    try:
        torch.ops.load_library(found[0])
        info = dict(word.split("=") for word in torch.ops.iadd.kernel_info().split())
    except (OSError, AttributeError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        return _without(f"{found[0].name} does not load: {reason}")
    if info["torch"] != torch.__version__.partition("+")[0]:
        return _without(
            f"{found[0].name} was built for torch {info['torch']}, this is {torch.__version__}"
        )
    return info | {"file": found[0].name}


def _without(reason: str) -> dict[str, str]:
    logging.getLogger("iadd").warning("plain PyTorch instead of the fused kernels: %s", reason)
    return {"reason": reason}


@cache
def _without_cuda() -> None:
    _without("the extension was built without CUDA (make setup CUDA=1)")


def has_kernels(device: torch.device) -> bool:
    """Whether kernels for the device are there; the first time they are not, says why."""
    info = _extension()
    if "reason" in info:
        return False
    if device.type == "cuda" and info["cuda"] == "0":
        _without_cuda()
        return False
    return device.type in ("cpu", "cuda")


def has_cpu_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the extension is there for tensors of float32 or float64 on the CPU.

    IADD_KERNELS=reference turns it off. IADD_ISA=avx2 or generic keeps it from the newer
    instructions that the processor has.
    """
    known = device.type == "cpu" and dtype in (torch.float32, torch.float64)
    return known and has_kernels(device)


def kernel_name(tensor: Tensor) -> str:
    """Which implementation runs for tensors on its device: cpu-fused, cuda-fused or reference."""
    return f"{tensor.device.type}-fused" if has_kernels(tensor.device) else "reference"


def status() -> dict[str, str]:
    """What `iadd doctor` shows: file, torch, devices and instruction set, or why there are none."""
    info = _extension()
    if "reason" in info:
        return {"kernels": f"reference: {info['reason']}"}
    without = "cpu, built without cuda (make setup CUDA=1)"
    devices = "cpu and cuda" if info["cuda"] == "1" else without
    return {
        "kernels": f"fused for {devices}",
        "extension": f"{info['file']}, torch {info['torch']}",
        "cpu kernels": info["cpu"],
    }
