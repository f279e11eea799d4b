"""The matrix products of a ConvNet's layers on maps with channels last, and how they round.

Tensor cores multiply numbers of 10 bits of mantissa (TF32) several times faster than a GPU's other
units multiply float32. A float32 number is the sum of two TF32 ones but for its last two bits:
x = h + l. So x w = h h' + l h' + h l' to about 2^-22, summed in float32: one convolution of TF32
numbers with three times the channels. That is how `float32` runs on a GPU here (known as 3xTF32;
Ootomo and Yokota, IJHPCA 36(4), 2022), but for weights' gradients, whose sums go over pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.devices import arithmetic
from iadd.engine import cuda_block
from iadd.engine.cuda_block import planes_first, planes_last

LONG_PARTS = 128
"""Of a long sum, at most; a power of two."""
SHORTEST_PART = 64
"""Terms of a part of a long sum, at least."""


def tf32_parts(x: Tensor) -> Tensor:
    """Float32 (..., C) in TF32 parts h, l, h beside one another: (..., 3 C)."""
    if cuda_block.fused(x.device):
        parts: Tensor = torch.ops.iadd.tf32_parts(x)
        return parts
    high, low = _split(x)
    return torch.cat((high, low, high), -1)


class Operands(NamedTuple):
    """A weight (O, C, 3, 3) with its inputs last, and that of the adjoint convolution."""

    forward: Tensor  # (O, 3, 3, n C)
    flipped: Tensor  # (C, 3, 3, n O)


def conv_operands(weights: Sequence[Tensor], in_parts: bool) -> list[Operands]:
    """Weights as they are (n = 1), or float32 ones in TF32 parts h, h, l of their inputs (n = 3).

    Part by part their products with `tf32_parts` are h h', l h' and h l'.
    """
    if weights and weights[0].dtype == torch.float32 and cuda_block.fused(weights[0].device):
        found = torch.ops.iadd.conv_operands(weights, in_parts)
        return list(map(Operands, found[::2], found[1::2]))
    return [Operands(*(_operand(z, in_parts) for z in (w, _adjoint(w)))) for w in weights]


def _adjoint(weight: Tensor) -> Tensor:
    return weight.flip(2, 3).transpose(0, 1)


def _operand(weight: Tensor, in_parts: bool) -> Tensor:
    last = planes_last(weight)
    if not in_parts:
        return last
    high, low = _split(last)
    return torch.cat((high, high, low), -1)


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    bits = x.contiguous().view(torch.int32)
    high = ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    high = torch.where(x.isfinite(), high, x)
    return high, torch.where(high.isfinite(), x - high, 0.0)


@dataclass(frozen=True)
class Convolution:
    """3x3 convolutions with padding 1, and their two adjoints, of operands made ready before.

    Maps are (B, H, W, C), weights (O, C, 3, 3). `precision`: how products round, one of
    `iadd.networks.PRECISIONS`. `parts`: float32 operands go in TF32 parts.
    """

    precision: str = "float32"
    parts: bool = False

    def ready(self, x: Tensor) -> Tensor:
        """A map as an operand of `forward`."""
        return tf32_parts(x) if self.parts else self.round(x)

    def ready_weights(self, weights: Sequence[Tensor]) -> list[Operands]:
        """Weights as operands of `forward`, and flipped of its adjoint by the input."""
        found = conv_operands(weights, self.parts)
        return [Operands(*map(self.round, one)) for one in found]

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Map (B, H, W, O) of an input and a weight; by a flipped one, an output's gradient."""
        with self._tensor_cores(x.device):
            y = F.conv2d(planes_first(x), planes_first(weight), padding=1)
        return self._widened(planes_last(y))

    def by_weight(self, by_y: Tensor, x: Tensor) -> Tensor:
        """Gradient (O, C, 3, 3) from that by the output and the input, as they are."""
        by_y, x = planes_first(self.round(by_y)), planes_first(self.round(x))
        shape = x.new_empty(1).expand(by_y.shape[1], x.shape[1], 3, 3)  # only its sizes are read
        one, wanted = [1, 1], [False, True, False]
        _, by_weight, _ = torch.ops.aten.convolution_backward(
            by_y, x, shape, None, one, one, one, False, [0, 0], 1, wanted
        )
        return self._widened(by_weight)

    def round(self, x: Tensor) -> Tensor:
        """As the operands of a product are rounded."""
        return x.bfloat16() if self.precision == "bf16" else x

    def _widened(self, x: Tensor) -> Tensor:
        return x.float() if self.precision == "bf16" else x

    def _tensor_cores(self, device: torch.device) -> AbstractContextManager[None]:
        """Operands in parts are TF32 numbers already: their products may be taken as such."""
        return arithmetic("tf32" if self.parts else self.precision, device, autocast=False)


class Patches:
    """The images (B, C, H, W) of a first convolution as a matrix, a row a pixel: (B H W, 9 C).

    Images have so few channels that a product of matrices beats a convolution.
    """

    def __init__(self, images: Tensor, convolution: Convolution) -> None:
        self.round, self.shape = convolution.round, images.shape
        self.rows = self.round(patches(images))

    def forward(self, weights: list[Tensor]) -> Tensor:
        """Maps (n, B, H, W, O) of n weights (O, C, 3, 3)."""
        flat = [self.round(weight.flatten(1)).T for weight in weights]
        y = self.rows.new_empty(len(flat), len(self.rows), flat[0].shape[1])
        for out, weight in zip(y, flat, strict=True):
            torch.mm(self.rows, weight, out=out)
        batch, _, height, width = self.shape
        return y.view(len(flat), batch, height, width, -1).to(weights[0].dtype)

    def by_weight(self, by_y: Tensor) -> Tensor:
        """Summands (S, O, 9 C) of the gradient, from that by the output (B, H, W, O)."""
        return long_products(self.round(by_y).flatten(0, 2).T, self.rows).to(by_y.dtype)

    def by_images(self, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Gradient (B, C, H, W): the sum over outputs (B, H, W, O) and weights (O, C, 3, 3)."""
        by_rows, *more = (
            (self.round(by_y).flatten(0, 2) @ self.round(weight.flatten(1))).to(by_y.dtype)
            for by_y, weight in pairs
        )
        for term in more:
            by_rows += term
        return patches_adjoint(by_rows, self.shape)


def patches(images: Tensor) -> Tensor:
    """The 3x3 windows of images (B, C, H, W), with zeros around them: (B H W, 9 C)."""
    if cuda_block.fused(images.device):
        rows: Tensor = torch.ops.iadd.patches(images)
        return rows
    return F.unfold(images, 3, padding=1).transpose(1, 2).flatten(0, 1)


def patches_adjoint(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Gradient by images of that shape (B, C, H, W) from that by their patches (B H W, 9 C)."""
    batch, _, height, width = shape
    if cuda_block.fused(rows.device):
        images: Tensor = torch.ops.iadd.patches_adjoint(rows, batch, height, width)
        return images
    columns = rows.view(batch, height * width, -1).transpose(1, 2)
    return F.fold(columns, (height, width), 3, padding=1)


def long_products(a: Tensor, b: Tensor) -> Tensor:
    """Products (S, M, N) of (M, K) and (K, N), whose sum over S parts of K is a b.

    Where sums are long and few, one block of threads a tile of (M, N) would leave most of a card
    idle: parts of them go beside one another.
    """
    length = a.shape[1]
    parts = math.gcd(length, LONG_PARTS)
    while parts > 1 and length // parts < SHORTEST_PART:
        parts //= 2
    return torch.bmm(a.unflatten(1, (parts, -1)).transpose(0, 1), b.unflatten(0, (parts, -1)))
