"""One epoch of expert training: the hand-written first-order pass against the usual nn.Module loop.

    python benchmarks/experts.py [--settings width128,width32,digits] [--rounds 5] [--threads 2]

Plain SGD on 512 images in batches of 128 (digits: 1147 in batches of 64), without augmentation,
which costs the same in both. Validated first: same order, same parameters to 1e-3 after an epoch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from first_order import Case, run
from reference import ConvNet, Setting, train_epoch

from iadd.augment import Augmentation
from iadd.networks import build_network
from iadd.train import TrainingPlan, train

SETTINGS = {
    "width128": (Setting(3, 32, 3, 128, 128, 0), 512),
    "width32": (Setting(1, 16, 3, 32, 128, 0), 2048),
    "digits": (Setting(1, 8, 2, 32, 64, 0), 1147),
}


def case(setting: Setting, count: int) -> Case:
    g = torch.Generator().manual_seed(0)
    side = setting.resolution
    images = torch.randn(count, setting.channels, side, side, generator=g)
    labels = torch.arange(count) % setting.classes
    network = build_network(setting.name, setting.channels, side, setting.classes)
    start, targets = network.init(g), F.one_hot(labels, setting.classes).float()
    model = ConvNet(setting)

    def ours() -> torch.Tensor:
        schedule = TrainingPlan(1, setting.batch, 0.01)
        order = torch.Generator().manual_seed(1)
        return train(network, start, images, targets, schedule, Augmentation(()), order)

    def plain() -> torch.Tensor:
        torch.nn.utils.vector_to_parameters(start.clone(), model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        order = torch.Generator().manual_seed(1)
        train_epoch(model, optimizer, images, labels, setting.batch, order)
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach()

    apart = float((ours() - plain()).abs().max())
    if not apart < 1e-3:
        raise SystemExit(f"the two ways end {apart:.1e} apart: not timed")
    return Case(ours, plain, network)


if __name__ == "__main__":
    cases = {name: lambda s=s, n=n: case(s, n) for name, (s, n) in SETTINGS.items()}
    run(__doc__.splitlines()[0], cases)
