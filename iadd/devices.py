"""Where the work runs: choosing a device, and how it rounds.

Randomness never depends on the device: generators are the CPU's, and what they draw is moved.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from iadd import cards

VARIABLE = "IADD_DEVICE"
ALLOWED = "cpu, cuda, cuda:<number> or auto"


def check_name(name: str) -> None:
    """ValueError for what names no device, whether it is there or not."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError(f"device {name!r}: allowed are {ALLOWED}")


def check_environment() -> None:
    """ValueError where `IADD_DEVICE` names no device."""
    check_name(os.environ.get(VARIABLE, "auto"))


def choose(name: str = "auto", need: int | None = 0) -> torch.device:
    """The device of that name, ready for work: `auto` is a card if there is one, else the CPU.

    `cuda` and `auto` lease one of the cards that this process may see (`iadd.cards`), and wait
    until one has room.

    Args:
        need: bytes of a card's memory that the work takes; None: all of it.

    Raises:
        ValueError: an unknown name, or a card that is not there.
    """
    check_name(name)
    numbered = name.partition(":")[2]
    if name != "cpu" and not numbered and _before_cuda() and (seen := cards.listed()):
        os.environ[cards.VISIBLE] = cards.lease(seen, need).name
        numbered = "0"
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise ValueError(f"device {name!r}: no usable CUDA device here; allowed are cpu or auto")
    every = [cards.Card(str(index)) for index in range(count)]
    index = int(numbered or cards.lease(every).name)
    if index >= count:
        raise ValueError(f"device {name!r}: this machine has cuda:0 to cuda:{count - 1}")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    torch.backends.cudnn.deterministic = True
    _set_products("ieee")
    return device


def _before_cuda() -> bool:
    """Whether this PyTorch knows cards, and has not asked which there are: then it can be told."""
    return bool(torch.backends.cuda.is_built()) and not torch.cuda.is_initialized()


def threads() -> int:
    """Threads that one job or call computes with on a CPU: OMP_NUM_THREADS, else 1.

    Jobs run side by side, and of small networks several threads mostly wait for each other.
    """
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def describe(device: torch.device) -> str:
    """A device's name for tables: `cpu`, or what the card calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def synchronize(device: torch.device) -> None:
    """Wait for what was launched: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """The most memory that tensors of this process took on a card; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device, *, autocast: bool) -> Iterator[None]:
    """How matrix products and convolutions round on a card within this block.

    `float32` is IEEE throughout (torch alone would use TF32 in convolutions); `tf32` and `bf16`
    round the operands to 10 and 7 bits of mantissa and sum in float32. `autocast`: torch does the
    rounding to bf16; else whoever is called does. CPUs are left alone.
    """
    if device.type != "cuda":
        yield
        return
    before = _set_products("tf32" if precision == "tf32" else "ieee")
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast and precision == "bf16"):
            yield
    finally:
        _set_products(*before)


def _set_products(products: str, convolutions: str | None = None) -> tuple[str, str]:
    """Set the rounding of matrix products and convolutions; the settings that were."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = (matmul.fp32_precision, conv.fp32_precision)
    matmul.fp32_precision, conv.fp32_precision = products, convolutions or products
    return before
