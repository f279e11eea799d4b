"""Gradient matching: the loop and the layer-wise distance that DC and DSA share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from iadd.augment import Augmentation, augment, augment_adjoint
from iadd.engine.backend import Backend
from iadd.methods._base import Gradients, Iterative, IterativeParams, Rate, Workload
from iadd.methods._variables import Variable
from iadd.networks import Network
from iadd.train import TrainingPlan, train


class GradientParams(IterativeParams):
    """Settings of DC's outer and inner loops."""

    iterations: int = Field(1000, ge=1, description="Networks, freshly drawn, one after the other.")
    lr_img: Rate = Field(0.1, gt=0, description="Learning rate of the pixels (SGD).")
    batch_real: int = Field(256, ge=1, description="Real images a class and update.")
    outer_steps: int = Field(1, ge=1, description="Updates of the images with each network.")
    inner_epochs: int = Field(
        1, ge=0, description="Epochs of training the network on the updated set between two."
    )
    lr_net: Rate = Field(0.01, gt=0, description="Learning rate of that training.")

    @property
    def updates(self) -> int:
        return self.iterations * self.outer_steps


class GradientMatching(Iterative):
    """Match, class by class, the gradients of real and synthetic batches on fresh networks.

    Zhao, Mopuri, Bilen, ICLR 2021, arXiv 2006.05929, algorithm 1: update the images, then train the
    network on them. The gradient by the synthetic images is one tangent pass along dD/dg_S, so no
    double backward is needed.
    """

    Params = GradientParams
    space: ClassVar = {
        "lr_img": ("log", 1e-2, 1e2),
        "batch_real": [32, 64, 128, 256],
        "inner_epochs": ("int", 0, 50),
        "lr_net": ("log", 1e-3, 1e-1),
    }
    siamese = False
    """Whether real and synthetic batches go through the same augmentation."""

    def variables(self, images: Tensor) -> dict[str, Variable]:
        net = torch.zeros(self.problem.network.num_parameters, device=images.device)
        return super().variables(images) | {"net": Variable(net, None)}

    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients:
        problem, images, net = self.problem, variables["images"], variables["net"]
        targets = problem.one_hot()
        if iteration % self.params.outer_steps == 0:
            net.copy_(problem.network.init(generator))
        elif self.params.inner_epochs:
            net.copy_(self.trained(net, images, targets, generator))
        loss, parts, backend = 0.0, [], problem.for_classes(net, generator)
        for label, rows in enumerate(torch.arange(len(images)).split(problem.ipc)):
            value, part = self.match(backend, net, label, images[rows], targets[rows], generator)
            loss += value
            parts.append(part)
        return Gradients(loss, {"images": torch.cat(parts)}, backend.name)

    def trained(
        self, net: Tensor, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The network (P,) after its epochs on the present images."""
        plan = TrainingPlan(self.params.inner_epochs, 256, self.params.lr_net)
        seen_as = self.problem.augmentation if self.siamese else Augmentation(())
        return train(self.problem.network, net, images, targets, plan, seen_as, generator)

    def match(
        self,
        backend: Backend,
        net: Tensor,
        label: int,
        images: Tensor,
        targets: Tensor,
        generator: torch.Generator,
    ) -> tuple[float, Tensor]:
        """One class: the distance D(g_S, g_T) and its gradient by the synthetic images."""
        problem = self.problem
        real = problem.batch(label, self.params.batch_real, generator)
        draw = problem.augmentation.draw(generator) if self.siamese else None
        of_real = targets[:1].expand(len(real), -1).contiguous()
        _, g_real = backend.gradient(net, augment(real, draw), of_real)
        seen = augment(images, draw)
        _, g_synthetic = backend.gradient(net, seen, targets)
        g_leaf = g_synthetic.requires_grad_()
        with torch.enable_grad():
            distance = gradient_distance(problem.network, g_leaf, g_real)
            (direction,) = torch.autograd.grad(distance, g_leaf)
        h = backend.tangent(net, seen, targets, direction).images
        return float(distance.detach()), augment_adjoint(h, draw)

    @classmethod
    def forecast(cls, params: Any, work: Workload) -> float:
        a_class = work.classes * params.batch_real + 4 * work.synthetic
        inner = params.inner_epochs * work.synthetic * (params.outer_steps - 1)
        return float(
            (params.updates * a_class + params.iterations * inner) * work.seconds_per_image
        )


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
