"""Training one evaluation network on a distilled set and testing it, against the usual loop.

    python benchmarks/evaluation.py [--settings a,digits-1] [--rounds 5] [--threads 2]

SGD with momentum 0.9 and weight decay 5e-4 for 20 epochs (b: 5) on the whole set, then 1,000 test
images; without augmentation, which costs the same in both. Validated first by the parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from first_order import Case, run
from reference import SETTINGS, ConvNet, Setting, accuracy, train_epoch

from iadd.augment import Augmentation
from iadd.networks import build_network
from iadd.train import TrainingPlan, predict, train


def case(setting: Setting, epochs: int) -> Case:
    """The setting's network, and the same by the usual means, on random images."""
    network = build_network(setting.name, setting.channels, setting.resolution, setting.classes)
    model, count = ConvNet(setting), setting.batch
    g = torch.Generator().manual_seed(0)
    shape = network.channels, network.resolution, network.resolution
    images = torch.randn(count, *shape, generator=g)
    labels = torch.arange(count) % network.classes
    test = torch.randn(1000, *shape, generator=g)
    truth = torch.arange(1000) % network.classes
    start, targets = network.init(g), F.one_hot(labels, network.classes).float()
    ends: dict[str, torch.Tensor] = {}

    def ours() -> float:
        schedule = TrainingPlan(epochs, 256, 0.01, 0.9, 5e-4)
        order = torch.Generator().manual_seed(1)
        ends["ours"] = train(network, start, images, targets, schedule, Augmentation(()), order)
        hits = predict(network, ends["ours"], test).argmax(1) == truth
        return float(hits.double().mean())

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


if __name__ == "__main__":
    cases = {
        name: lambda name=name: case(SETTINGS[name], 5 if name == "b" else 20)
        for name in ("a", "b", "c", "d", "digits-1", "digits-10")
    }
    run(__doc__.splitlines()[0], cases)
