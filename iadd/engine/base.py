"""What a backend gives: the passes over a network that all training and distilling is made of.

A pass is a pure function of plain tensors; autograd records nothing of it. The central ones are the
gradient of the loss, and its tangent along a direction: the mixed Hessian-vector product by which
`unroll` differentiates a student's training.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.networks import Network

FEATURE_PIXELS = 1 << 20
"""Of a batch whose features are taken at once: 1,024 images of CIFAR's size, half a GiB for each
map of 128 channels. Distribution matching asks for those of every class's batch together."""


class Tangent(NamedTuple):
    """Derivatives of <gradient(theta, x, y), direction>: by theta (P,), x (B, C, H, W), y (B, K).

    `slope` is that inner product () itself.
    """

    params: Tensor
    images: Tensor
    targets: Tensor
    slope: Tensor


class Backend(ABC):
    """The passes of one network on one device in one dtype.

    Parameters are flat vectors (P,), images (B, C, H, W), targets label probabilities (B, K), all
    of the backend's dtype and on its device. The loss is `cross_entropy`.
    """

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype) -> None:
        self.network, self.device, self.dtype = network, device, dtype

    @property
    @abstractmethod
    def name(self) -> str:
        """What ran, for tables and traces: the backend, and the instruction set or precision."""

    @abstractmethod
    def gradient(self, params: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss () and its gradient (P,)."""

    @abstractmethod
    def tangent(
        self, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
    ) -> Tangent:
        """The derivatives of <gradient, direction> for a direction (P,)."""

    @abstractmethod
    def logits(self, params: Tensor, images: Tensor) -> Tensor:
        """Logits (B, K)."""

    @abstractmethod
    def embed(self, params: Tensor, images: Tensor) -> Tensor:
        """Features (B, F) before the classifier."""

    @abstractmethod
    def embed_gradient(self, params: Tensor, images: Tensor, cotangent: Tensor) -> Tensor:
        """Gradient by the images (B, C, H, W) of <features, cotangent (B, F)>."""

    def _parts(self, *batches: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """`parts` of at most `FEATURE_PIXELS`; batches are whole where batch norms look at them,
        through which images see each other."""
        together = self.network.has_batch_norm and self.network.statistics is None
        return iter([batches]) if together else parts(FEATURE_PIXELS, *batches)

    def step(
        self,
        params: Tensor,
        images: Tensor,
        targets: Tensor,
        step_size: float,
        out: Tensor | None = None,
    ) -> Tensor:
        """Parameters (P,) after one step of SGD, in `out` if given."""
        _, gradient = self.gradient(params, images, targets)
        return torch.sub(params, gradient, alpha=step_size, out=out)

    def step_back(
        self, params: Tensor, images: Tensor, targets: Tensor, step_size: float, adjoint: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Backpropagate `adjoint` (P,) through `step` at `params`, in place.

        Returns the derivatives of <gradient, adjoint as it came> by images and by targets, and that
        inner product () itself; times -step_size they are the step's share of the whole gradient.
        """
        h = self.tangent(params, images, targets, adjoint)
        adjoint.sub_(h.params, alpha=step_size)
        return h.images, h.targets, h.slope


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Batch mean of -sum_k targets log softmax(logits), (); targets are probabilities (B, K)."""
    return -(targets * F.log_softmax(logits, 1)).sum(1).mean()


@cache
def convnet_config(network: Network) -> list[int] | None:
    """Width, depth, and whether norm, ReLU and pool are there, of a network of the ConvNet family.

    That is: ConvNets with instance norm or none, ReLU or none, average pooling or none; else None.
    """
    options = network.options
    if options is None or network.architecture != "convnet":
        return None
    choices = (
        (options.norm, ("nonorm", "instancenorm")),
        (options.activation, ("linear", "relu")),
        (options.pooling, ("nopool", "avgpool")),
    )
    if any(value not in allowed for value, allowed in choices):
        return None
    return [options.width, options.depth, *(allowed.index(value) for value, allowed in choices)]


def parts(pixels: int, *batches: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Batches (B, ...), the first of images, in equal parts of at most so many pixels."""
    most = max(1, pixels // math.prod(batches[0].shape[2:]))
    count = max(1, -(-len(batches[0]) // most))
    return zip(*(batch.chunk(count) for batch in batches), strict=True)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Parts of a batch as one tensor; a single one is not copied."""
    return torch.cat(tuple(parts)) if len(parts) > 1 else parts[0]
