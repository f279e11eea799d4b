"""One iteration of DC, DSA and DM: hand-written passes against double backward.

    python benchmarks/matching.py [--settings dc,dsa,dm,...] [--rounds 5] [--threads 2]

Width 128 at 32x32x3 with 64 real images a class (settings dc, dsa, dm), and the digits network with
64 (digits-dc, ...); ipc 1. The plain way is the field's: autograd with create_graph. Checked first:
both see the same draws, their image gradients agree to 1 % (ReLU signs may differ).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from first_order import Case, run
from torch import Tensor

from iadd import methods
from iadd.augment import Augmentation, augment
from iadd.methods._gradient import gradient_distance
from iadd.networks import Network, build_network

REAL = 64


def problem(name: str, channels: int, side: int) -> methods.Problem:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(REAL)
    images = torch.randn(len(labels), channels, side, side, generator=g)
    rows = tuple((labels == c).nonzero().flatten() for c in range(10))
    data: Any = SimpleNamespace(
        train=SimpleNamespace(images=images, labels=labels),
        classes=10,
        class_rows=rows,
        augmentation=Augmentation(("scale", "crop")),
    )
    network = build_network(name, channels, side, 10)
    return methods.Problem(data, network, 1)


def plain_gradient_matching(
    task: methods.Problem, images: Tensor, siamese: bool, g: torch.Generator
) -> Tensor:
    network = task.network
    net = network.init(g).requires_grad_()
    leaf = images.detach().requires_grad_()
    total = torch.zeros(())
    for label in range(10):
        rows = task.dataset.class_rows[label]
        rows = rows[torch.randperm(len(rows), generator=g)[:REAL]]
        draw = task.augmentation.draw(g) if siamese else None
        real = augment(task.dataset.train.images[rows], draw)
        truth = torch.full((len(rows),), label)
        loss = F.cross_entropy(network.apply(net, real), truth)
        (g_real,) = torch.autograd.grad(loss, net)
        own = augment(leaf[label : label + 1], draw)
        loss = F.cross_entropy(network.apply(net, own), truth[:1])
        (g_synthetic,) = torch.autograd.grad(loss, net, create_graph=True)
        total = total + gradient_distance(network, g_synthetic, g_real.detach())
    return torch.autograd.grad(total, leaf)[0]


def plain_distribution_matching(
    task: methods.Problem, images: Tensor, g: torch.Generator
) -> Tensor:
    network: Network = task.network
    net = network.init(g)
    leaf = images.detach().requires_grad_()
    total = torch.zeros(())
    for label in range(10):
        rows = task.dataset.class_rows[label]
        rows = rows[torch.randperm(len(rows), generator=g)[:REAL]]
        draw = task.augmentation.draw(g)
        real = network.embed(net, augment(task.dataset.train.images[rows], draw)).detach()
        own = network.embed(net, augment(leaf[label : label + 1], draw))
        total = total + (real.mean(0) - own.mean(0)).square().sum()
    return torch.autograd.grad(total, leaf)[0]


def case(kind: str, name: str, channels: int, side: int) -> Case:
    task = problem(name, channels, side)
    method: Any = methods.find(kind)(methods.find(kind).Params(batch_real=REAL), task)
    images = torch.randn(10, channels, side, side, generator=torch.Generator().manual_seed(5))

    variables = {key: found.value for key, found in method.variables(images).items()}

    def ours() -> Tensor:
        g = torch.Generator().manual_seed(1)
        by_images: Tensor = method.gradients(0, variables, g).by["images"]
        return by_images

    def plain() -> Tensor:
        g = torch.Generator().manual_seed(1)
        if kind == "dm":
            return plain_distribution_matching(task, images, g)
        return plain_gradient_matching(task, images, kind == "dsa", g)

    mine, theirs = ours(), plain()
    apart = float((mine - theirs).norm() / theirs.norm())
    if not apart < 1e-2:
        raise SystemExit(f"{kind}: the two ways differ by {apart:.1e}: not timed")
    return Case(ours, plain, task.network)


if __name__ == "__main__":
    cases = {k: (lambda k=k: case(k, "convnet-d3-w128", 3, 32)) for k in ("dc", "dsa", "dm")}
    cases |= {
        f"digits-{k}": (lambda k=k: case(k, "convnet-d2-w32", 1, 8)) for k in ("dc", "dsa", "dm")
    }
    run(__doc__.splitlines()[0], cases)
