"""Training one evaluation network on a distilled set and testing it, against the usual loop.

    python benchmarks/evaluation.py [--settings a,digits-1,lenet-8-100] [--rounds 5] [--threads 2]

ConvNets of the settings a to d and of the digits, and <network>-<side>-<images> in grey.
SGD with momentum 0.9 and weight decay 5e-4 for 20 epochs (b: 5) on the whole set, then 1,000 test
images; without augmentation, which costs the same in both. Validated first by the parameters.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from first_order import Case, run
from reference import PLAIN, SETTINGS, ConvNet, Setting, accuracy, train_epoch
from torch import nn

from iadd.augment import Augmentation
from iadd.networks import Network, build_network
from iadd.train import Schedule, train
from iadd.train import accuracy as judge


def case(network: Network, model: nn.Module, count: int, epochs: int) -> Case:
    """`network`, and `model` that is the same by the usual means, on `count` random images."""
    g = torch.Generator().manual_seed(0)
    shape = network.channels, network.resolution, network.resolution
    images = torch.randn(count, *shape, generator=g)
    labels = torch.arange(count) % network.classes
    test = torch.randn(1000, *shape, generator=g)
    truth = torch.arange(1000) % network.classes
    start, targets = network.init(g), F.one_hot(labels, network.classes).float()
    ends: dict[str, torch.Tensor] = {}

    def ours() -> float:
        schedule = Schedule(epochs, 256, 0.01, 0.9, 5e-4)
        order = torch.Generator().manual_seed(1)
        ends["ours"] = train(network, start, images, targets, schedule, Augmentation(()), order)
        return judge(network, ends["ours"], test, truth)

    def plain() -> float:
        torch.nn.utils.vector_to_parameters(start.clone(), model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
        order = torch.Generator().manual_seed(1)
        for _ in range(epochs):
            train_epoch(model, optimizer, images, labels, 256, order)
        ends["plain"] = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        return accuracy(model, test, truth)

    ours(), plain()
    apart = float((ends["ours"] - ends["plain"]).abs().max())
    if not apart < 1e-2:
        raise SystemExit(f"the two ways end {apart:.1e} apart: not timed")
    return Case(ours, plain, network)


def convnet(setting: Setting, epochs: int) -> Case:
    network = build_network(setting.name, setting.channels, setting.resolution, setting.classes)
    return case(network, ConvNet(setting), setting.batch, epochs)


def plain_network(name: str, channels: int, side: int, count: int) -> Case:
    return case(build_network(name, channels, side, 10), PLAIN[name](channels, side), count, 20)


if __name__ == "__main__":
    cases = {
        name: lambda name=name: convnet(SETTINGS[name], 5 if name == "b" else 20)
        for name in ("a", "b", "c", "d", "digits-1", "digits-10")
    }
    for name in PLAIN:
        for side, count in ((8, 10), (8, 100), (28, 100)):
            cases[f"{name}-{side}-{count}"] = partial(plain_network, name, 1, side, count)
    run(__doc__.splitlines()[0], cases)
