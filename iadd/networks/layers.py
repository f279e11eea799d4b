"""Layers of which the named architectures are made, over one flat parameter vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NORMS = ("instancenorm", "batchnorm", "groupnorm", "layernorm", "nonorm")
ACTIVATIONS = ("relu", "leakyrelu", "sigmoid", "linear")
POOLINGS = ("avgpool", "maxpool", "nopool")

Moments = tuple[Tensor, Tensor]
"""Mean and variance of every channel, (C,) each."""
Statistics = list[Moments]
"""Of every batch norm of a network: what fixes it for inference."""


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, fixed: Moments | None = None, eps: float = 1e-5
) -> tuple[Tensor, Moments]:
    """Batch norm of (B, C, ...) by the batch's own moments or by fixed ones, and the moments used.

    In centred form, which takes less time and memory in second order than `x.var` would.
    """
    dims = [0, *range(2, x.dim())]
    per_channel = (-1, *[1] * (x.dim() - 2))
    mean = x.mean(dims) if fixed is None else fixed[0]
    centred = x - mean.view(per_channel)
    variance = (centred * centred).mean(dims) if fixed is None else fixed[1]
    scale = weight * (variance + eps).rsqrt()
    return centred * scale.view(per_channel) + bias.view(per_channel), (mean, variance)


@dataclass(frozen=True)
class Options:
    """What a network's name says: depth in blocks, width in channels, norm, activation, pooling."""

    depth: int
    width: int
    norm: str = "instancenorm"
    activation: str = "relu"
    pooling: str = "avgpool"


class Layers:
    """Hands an architecture its parameters in order; without parameters it records their shapes."""

    def __init__(
        self, options: Options, tensors: Iterator[Tensor] | None, statistics: Statistics | None
    ) -> None:
        self.options = options
        self.shapes: list[tuple[str, tuple[int, ...]]] = []
        self.batch_statistics: Statistics = []
        self.kept: list[Tensor] | None = None
        """What the activations put out, where a list is put here."""
        self._tensors = tensors
        self._fixed = iter(statistics) if statistics else None

    def parameter(self, kind: str, *shape: int) -> Tensor:
        """The next parameter tensor; without parameters a blank one, whose shape is recorded."""
        if self._tensors is not None:
            return next(self._tensors)
        self.shapes.append((kind, shape))
        return torch.zeros(()).expand(shape)

    def conv(
        self,
        x: Tensor,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
        bias: bool = True,
    ) -> Tensor:
        """Maps (B, C, H, W) -> (B, out, H', W')."""
        weight = self.parameter("conv.weight", out, x.shape[1], kernel, kernel)
        added = self.parameter("conv.bias", out) if bias else None
        return F.conv2d(x, weight, added, stride, padding)

    def linear(self, x: Tensor, out: int) -> Tensor:
        """(..., F) -> (..., out)."""
        weight = self.parameter("linear.weight", out, x.shape[-1])
        return F.linear(x, weight, self.parameter("linear.bias", out))

    def norm(self, x: Tensor) -> Tensor:
        """The norm that the options name, of maps (B, C, H, W), a weight and a bias a channel."""
        kind, channels = self.options.norm, x.shape[1]
        if kind == "nonorm":
            return x
        weight = self.parameter("norm.weight", channels)
        bias = self.parameter("norm.bias", channels)
        if kind == "batchnorm":
            return self._batch_norm(x, weight, bias)
        groups = {"instancenorm": channels, "layernorm": 1, "groupnorm": math.gcd(channels, 4)}
        return F.group_norm(x, groups[kind], weight, bias)

    def token_norm(self, x: Tensor) -> Tensor:
        """Layer norm of each token of (B, T, D) by itself."""
        weight = self.parameter("norm.weight", x.shape[-1])
        bias = self.parameter("norm.bias", x.shape[-1])
        return F.layer_norm(x, x.shape[-1:], weight, bias)

    def _batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        fixed = next(self._fixed) if self._fixed is not None else None
        y, moments = batch_norm(x, weight, bias, fixed)
        if fixed is None:
            self.batch_statistics.append(moments)
        return y

    def activation(self, x: Tensor) -> Tensor:
        """The non-linearity that the options name, each value by itself."""
        functions: dict[str, Callable[[Tensor], Tensor]] = {
            "relu": F.relu,
            "leakyrelu": lambda z: F.leaky_relu(z, 0.01),
            "sigmoid": torch.sigmoid,
            "linear": lambda z: z,
        }
        y = functions[self.options.activation](x)
        if self.kept is not None:
            self.kept.append(y)
        return y

    def pool(self, x: Tensor, smallest: int = 4) -> Tensor:
        """Halve maps (B, C, H, W) of at least `smallest` pixels a side; smaller ones stay."""
        if self.options.pooling == "nopool" or min(x.shape[2:]) < smallest:
            return x
        if self.options.pooling == "maxpool":
            return F.max_pool2d(x, 2)
        return F.avg_pool2d(x, 2)
