"""The native first-order pass of plain feed-forward networks on the CPU: MLP, LeNet, AlexNet.

What evaluation spends its time on beside the ConvNets. Built from `csrc/chain*` and chosen, like
`native`, at run time; float32 and float64, the same bits for any number of threads. The reference
is autograd's, which the tangent of these networks is left to.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import torch
from torch import Tensor

from iadd.engine import cpu_convnet
from iadd.networks import ARCHITECTURES, Layers, Network, Options

PLAIN = ("mlp", "lenet", "alexnet")
"""Architectures that are nothing but a chain of stages."""
MAX_STAGES = 16  # kMaxStages in csrc/chain.h
IMAGE_NUMBERS = 1024
"""Of larger images PyTorch's own kernels are as good, or better: measured up to 32x32 in colour."""


class _Recorder(Layers):
    """Writes down what an architecture's walk does, a stage for every layer with parameters."""

    def __init__(self, options: Options) -> None:
        super().__init__(options, None, None)
        self.stages: list[list[int]] = []

    def conv(
        self, x: Tensor, out: int, kernel: int = 3, stride: int = 1, padding: int = 1
    ) -> Tensor:
        self.stages.append([out, kernel, padding, 0, 0])
        return super().conv(x, out, kernel, stride, padding)

    def linear(self, x: Tensor, out: int) -> Tensor:
        self.stages.append([out, 0, 0, 0, 0])  # a kernel as large as the map
        return super().linear(x, out)

    def activation(self, x: Tensor) -> Tensor:
        self.stages[-1][3] = int(self.options.activation == "relu")
        return x

    def pool(self, x: Tensor) -> Tensor:
        pooled = super().pool(x)
        if pooled.shape != x.shape:
            self.stages[-1][4] = ("maxpool", "avgpool").index(self.options.pooling) + 1
        return pooled


@cache
def _stages(network: Network) -> list[int] | None:
    """The operator's description of a network, or None if it is not of the kind."""
    options = network.options
    if network.architecture not in PLAIN or options.activation not in ("relu", "linear"):
        return None
    walk = _Recorder(options)
    images = torch.zeros(1, network.channels, network.resolution, network.resolution)
    embedding = ARCHITECTURES[network.architecture][0](walk, images).flatten(1)
    walk.linear(embedding, network.classes)
    if len(walk.stages) > MAX_STAGES:
        return None
    return [number for stage in walk.stages for number in stage]


def path(network: Network, params: Tensor) -> str | None:
    """Name of the pass for parameters like these, `chain-<instruction set>`; None if none."""
    small = network.channels * network.resolution**2 <= IMAGE_NUMBERS
    if not (small and cpu_convnet.takes(params)) or _stages(network) is None:
        return None
    return f"chain-{cpu_convnet.instruction_set()}"


def _known(network: Network) -> list[int]:
    stages = _stages(network)
    if stages is None or cpu_convnet.unavailable():
        raise ValueError(
            f"network {network.name!r} has no native chain: {cpu_convnet.unavailable()}"
        )
    return stages


def gradient(
    network: Network, params: Tensor, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean soft-target cross-entropy () and its gradient (P,).

    Args:
        params: (P,); images: (B, C, H, W); targets: probabilities (B, K), of one dtype.
    """
    stages = _known(network)  # first: it loads the operators
    loss, grad = torch.ops.iadd.chain_gradient(params, images, targets, stages)
    return loss, grad


def forward(network: Network, params: Tensor, images: Tensor) -> Tensor:
    """Logits (B, K) of images (B, C, H, W)."""
    stages = _known(network)
    return cast(Tensor, torch.ops.iadd.chain_forward(params, images, stages))
