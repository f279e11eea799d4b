"""The usual way, written plainly: what every benchmark here is compared with.

A functional ConvNet over a flat parameter vector, students unrolled with `create_graph=True`,
autograd through the whole unroll (trajectory matching as in Cazenavette et al. 2022,
arXiv:2203.11932), and `nn.Module` loops for training experts and evaluation networks. Nothing is
tuned and nothing is slowed down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Apply = Callable[[Tensor, Tensor], Tensor]
"""Maps flat parameters (P,) and images (B, C, H, W) to logits (B, K)."""


@dataclass(frozen=True)
class Setting:
    """One benchmark setting: images, ConvNet, images a class and the student's steps."""

    channels: int
    resolution: int
    depth: int
    width: int
    batch: int
    steps: int
    classes: int = 10

    @property
    def name(self) -> str:
        return f"convnet-d{self.depth}-w{self.width}"


# a to d are those of the published figures; digits-1 and digits-10 are the default benchmark.
SETTINGS = {
    "a": Setting(3, 32, 3, 128, 10, 50),
    "b": Setting(3, 32, 3, 128, 100, 10),
    "c": Setting(1, 16, 3, 32, 10, 50),
    "d": Setting(1, 16, 3, 32, 100, 20),
    "digits-1": Setting(1, 8, 2, 32, 10, 20),
    "digits-10": Setting(1, 8, 2, 32, 100, 15),
}


class ConvNet(nn.Module):
    """Blocks of convolution, instance norm, ReLU and average pool, then a linear head."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side, width = setting.channels, setting.resolution, setting.width
        for _ in range(setting.depth):
            layers += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.GroupNorm(width, width, affine=True),
                nn.ReLU(inplace=True),
            ]
            if side >= 4:
                layers.append(nn.AvgPool2d(2))
                side //= 2
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * side * side, setting.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def shapes(setting: Setting) -> list[torch.Size]:
    """Shapes of the parameter tensors in the flat vector's order."""
    return [p.shape for p in ConvNet(setting).parameters()]


def functional(setting: Setting) -> Apply:
    """The setting's ConvNet as a function of flat parameters and images."""
    return partial(apply, setting, shapes(setting))


def apply(setting: Setting, parts: Sequence[torch.Size], flat: Tensor, x: Tensor) -> Tensor:
    """Logits (B, K) of images (B, C, H, W) under the flat parameters (P,)."""
    pieces = zip(flat.split([s.numel() for s in parts]), parts, strict=True)
    tensors = iter(piece.view(shape) for piece, shape in pieces)
    for _ in range(setting.depth):
        x = F.conv2d(x, next(tensors), next(tensors), padding=1)
        x = F.relu(F.group_norm(x, setting.width, next(tensors), next(tensors)))
        if x.shape[-1] >= 4:
            x = F.avg_pool2d(x, 2)
    return F.linear(x.flatten(1), next(tensors), next(tensors))


def outer_iteration(
    apply: Apply,
    steps: int,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    step_size: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and its gradients by images (B, C, H, W) and step size through all student steps.

    Args:
        apply: the functional network.
        start, target: the expert's parameters (P,) at the two ends.
        labels: class indices (B,).
    """
    images = images.detach().requires_grad_()
    step_size = step_size.detach().requires_grad_()
    student = start.detach().clone().requires_grad_()
    for _ in range(steps):
        loss = F.cross_entropy(apply(student, images), labels)
        (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
        student = student - step_size * gradient
    distance = F.mse_loss(student, target, reduction="sum")
    loss = distance / F.mse_loss(start, target, reduction="sum")
    by_images, by_step_size = torch.autograd.grad(loss, (images, step_size))
    return loss.detach(), by_images, by_step_size


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    batch: int,
    generator: torch.Generator,
) -> None:
    """One epoch of SGD over shuffled minibatches: experts and evaluation networks alike."""
    for rows in torch.randperm(len(images), generator=generator).split(batch):
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 256) -> float:
    """Fraction of images (N, C, H, W) whose arg max is the label (N,)."""
    correct = 0
    with torch.no_grad():
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            correct += int((model(x).argmax(1) == y).sum())
    return correct / len(images)
