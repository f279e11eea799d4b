"""How fast this machine's CPU is, measured: what forecasts are made of."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from iadd.augment import Draw, augment_together
from iadd.engine.backend import choose_backend
from iadd.networks import Network
from iadd.seeds import generator_for

BATCH = 32


def gradient_rate(network: Network) -> float:
    """Seconds an image of a gradient, of a small batch."""
    generator = generator_for("plan")
    params = network.init(generator)
    images = _noise(network.channels, network.resolution, generator)
    targets = torch.full((BATCH, network.classes), 1 / network.classes)
    engine = choose_backend(network, torch.device("cpu"))
    return _median_seconds(lambda: engine.gradient(params, images, targets)) / BATCH


def augmentation_rate(families: tuple[str, ...], channels: int, side: int) -> float:
    """Seconds an image that batches take to be augmented, one by each family."""
    generator = generator_for("plan")
    batches = [_noise(channels, side, generator)] * len(families)
    draws = [Draw(family, torch.rand(BATCH, 3, generator=generator)) for family in families]
    return _median_seconds(lambda: augment_together(batches, draws)) / BATCH / len(families)


def _noise(channels: int, side: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn((BATCH, channels, side, side), generator=generator)


def _median_seconds(work: Callable[[], object]) -> float:
    """Of five times, after one that does not count: processor time of one thread, as jobs run, so
    that other work on the machine does not count either."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _ in range(6):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    torch.set_num_threads(threads)
    return sorted(times[1:])[2]
