"""Gradient matching: the loop and the layer-wise distance that DC and DSA share."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from iadd.augment import Augmentation, augment, augment_adjoint
from iadd.engine import backend
from iadd.methods._base import Matching, MatchingParams, MethodParams, Outer, Space
from iadd.networks import Network
from iadd.train import Schedule, train


class GradientParams(MatchingParams):
    """Settings of DC's outer and inner loops."""

    iterations: int = Field(1000, ge=1, description="Updates of the images.")
    lr_img: float = Field(0.1, gt=0, description="Learning rate of the pixels (SGD).")
    batch_real: int = Field(256, ge=1, description="Real images a class and update.")
    outer_steps: int = Field(
        1, ge=1, description="Updates of the images for each freshly drawn network."
    )
    inner_epochs: int = Field(
        1, ge=0, description="Epochs of training that network on the synthetic set between updates."
    )
    lr_net: float = Field(0.01, gt=0, description="Learning rate of that training.")

    changing: ClassVar[frozenset[str]] = MatchingParams.changing | {
        *("batch_real", "outer_steps", "inner_epochs", "lr_net")
    }


class GradientMatching(Matching):
    """Match, class by class, the gradients of real and synthetic batches on fresh networks.

    Zhao, Mopuri, Bilen, ICLR 2021, arXiv 2006.05929, algorithm 1. The gradient by the synthetic
    images is one tangent pass along dD/dg_S, so no double backward is needed.
    """

    Params: ClassVar[type[MethodParams]] = GradientParams
    space: ClassVar[Space] = {
        "lr_img": ("log", 1e-2, 1e2),
        "batch_real": [32, 64, 128, 256],
        "outer_steps": ("int", 1, 20),
        "inner_epochs": ("int", 0, 50),
    }
    siamese = False
    """Whether real and synthetic batches go through the same augmentation."""
    count = 0

    def outer(self, images: Tensor, step_size: float, generator: torch.Generator) -> Outer:
        problem, network = self.problem, self.problem.network
        if self.count % self.params.outer_steps == 0:
            self.net = network.init(generator).to(images.device)
        labels = self.labels()
        targets = F.one_hot(labels, network.classes).float().to(images.device)
        loss, gradient = 0.0, torch.zeros_like(images)
        for label in range(network.classes):
            rows = (labels == label).nonzero().flatten()
            value, gradient[rows] = self.match(label, images[rows], targets[rows], generator)
            loss += value
        self.count += 1
        if self.count % self.params.outer_steps and self.params.inner_epochs:
            schedule = Schedule(self.params.inner_epochs, 256, self.params.lr_net)
            inner = problem.augmentation if self.siamese else Augmentation(())
            self.net = train(network, self.net, images, targets, schedule, inner, generator)
        return Outer(loss, loss, gradient, 0.0, backend.path(network, self.net))

    def match(
        self, label: int, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[float, Tensor]:
        """One class: the distance D(g_S, g_T) and its gradient by the synthetic images."""
        problem, network = self.problem, self.problem.network
        rows = problem.class_rows(label)
        rows = rows[torch.randperm(len(rows), generator=generator)[: self.params.batch_real]]
        real = problem.dataset.train.images[rows]
        draw = problem.augmentation.draw(generator) if self.siamese else None
        _, g_real = backend.gradient(
            network, self.net, augment(real, draw), targets[:1].expand(len(real), -1).contiguous()
        )
        seen = augment(images, draw)
        _, g_synthetic = backend.gradient(network, self.net, seen, targets)
        g_leaf = g_synthetic.requires_grad_()
        with torch.enable_grad():
            distance = gradient_distance(network, g_leaf, g_real)
            (direction,) = torch.autograd.grad(distance, g_leaf)
        h = backend.tangent(network, self.net, seen, targets, direction).images
        return float(distance.detach()), augment_adjoint(h, draw)

    def state(self) -> dict[str, Tensor]:
        net = getattr(self, "net", torch.zeros(self.problem.network.num_parameters))
        return {"net": net, "count": torch.tensor(self.count)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.net, self.count = state["net"], int(state["count"])


def gradient_distance(network: Network, synthetic: Tensor, real: Tensor) -> Tensor:
    """Sum over layers and output rows of 1 - cosine of two gradients (P,); equation 8 of DC.

    Convolution weights count as (out, in*h*w) rows; one-dimensional tensors are left out.
    """
    total = synthetic.new_zeros(())
    for a, b in zip(network.split(synthetic), network.split(real), strict=True):
        if a.dim() > 1:
            a, b = a.flatten(1), b.flatten(1)  # (out, in*h*w)
            norms = a.norm(dim=1) * b.norm(dim=1) + 1e-6
            total = total + (1 - (a * b).sum(1) / norms).sum()
    return total
