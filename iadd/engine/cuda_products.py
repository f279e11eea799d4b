"""The matrix products of a ConvNet's layers on maps with channels last, and how they round.

Tensor cores multiply numbers of 10 bits of mantissa (TF32) several times faster than a GPU's other
units multiply float32. A float32 number is the sum of two TF32 ones but for its last two bits:
x = h + l. So x w = h h' + l h' + h l' to about 2^-22, summed in float32: one product of TF32
numbers whose sums are three times as long. That is what `float32` means here on a GPU (known as
3xTF32; Ootomo and Yokota, IJHPCA 36(4), 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd import extension
from iadd.engine.cuda_block import planes_first, planes_last


def tf32_parts(x: Tensor, inner: int, second: bool) -> Tensor:
    """Float32 of any shape as runs of `inner` elements, each run as three TF32 parts: (n, 3, inner).

    They are h, l, h, or of the second operand of a product h, h, l: part by part the products of
    the two are h h', l h' and h l'.
    """
    if x.is_cuda and extension.has_kernels(x.device):
        parts: Tensor = torch.ops.iadd.tf32_parts(x, inner, second)
        return parts
    bits = x.contiguous().view(torch.int32)
    high = ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    high = torch.where(x.isfinite(), high, x)
    low = torch.where(high.isfinite(), x - high, 0.0)
    order = (high, high, low) if second else (high, low, high)
    return torch.stack([part.reshape(-1, inner) for part in order], 1)


@dataclass(frozen=True)
class Convolution:
    """3x3 convolutions with padding 1, and their two adjoints, on operands made ready before.

    Maps are (B, H, W, C), weights (O, 3, 3, C). `split`: operands are float32 in three TF32 parts,
    which lie along the dimension that a product sums over. `dtype`: what operands are rounded to.
    Results are float32 as they would be of the whole operands.
    """

    split: bool = False
    dtype: torch.dtype | None = None

    def along_channels(self, x: Tensor, second: bool = False) -> Tensor:
        """An operand of a product that sums over its last dimension."""
        if not self.split:
            return self.round(x)
        return tf32_parts(x, x.shape[-1], second).view(*x.shape[:-1], -1)

    def along_batch(self, x: Tensor, second: bool = False) -> Tensor:
        """An operand of a product that sums over its first dimension."""
        if not self.split:
            return self.round(x)
        return tf32_parts(x, x.numel(), second).view(-1, *x.shape[1:])

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Map (B, H, W, O) of an input and a weight, both ready along channels."""
        y = F.conv2d(planes_first(x), planes_first(weight), padding=1)
        return self._widened(planes_last(y))

    def by_input(self, by_y: Tensor, weight: Tensor) -> Tensor:
        """Gradient (B, H, W, C) from that by the output, along channels, and the weight, along O."""
        by_x = F.conv_transpose2d(planes_first(by_y), planes_first(weight), padding=1)
        return self._widened(planes_last(by_x))

    def by_weight(self, by_y: Tensor, x: Tensor) -> Tensor:
        """Gradient (O, C, 3, 3), from that by the output and the input, both along the batch."""
        by_y, x = planes_first(by_y), planes_first(x)
        shape = x.new_empty(1).expand(by_y.shape[1], x.shape[1], 3, 3)  # only its sizes are read
        one, wanted = [1, 1], [False, True, False]
        _, by_weight, _ = torch.ops.aten.convolution_backward(
            by_y, x, shape, None, one, one, one, False, [0, 0], 1, wanted
        )
        return self._widened(by_weight)

    def round(self, x: Tensor) -> Tensor:
        return x if self.dtype is None else x.to(self.dtype)

    def _widened(self, x: Tensor) -> Tensor:
        return x if self.dtype is None else x.float()


class Patches:
    """The images (B, C, H, W) of a first convolution as a matrix, a row a pixel: (B H W, 9 C).

    Images have so few channels that a product of matrices beats a convolution.
    """

    def __init__(self, images: Tensor, convolution: Convolution) -> None:
        batch, channels, *self.side = images.shape
        windows = F.pad(images, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # (B, C, H, W, 3, 3)
        rows = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, 9 * channels)
        self.round = convolution.round
        self.rows, self.batch = self.round(rows), batch

    def forward(self, weights: list[Tensor]) -> Tensor:
        """Maps (n, B, H, W, O) of n weights (O, C, 3, 3)."""
        flat = [self.round(weight.flatten(1)).T for weight in weights]
        y = self.rows.new_empty(len(flat), len(self.rows), flat[0].shape[1])
        for out, weight in zip(y, flat, strict=True):
            torch.mm(self.rows, weight, out=out)
        return y.view(len(flat), self.batch, *self.side, -1).to(weights[0].dtype)

    def by_weight(self, by_y: Tensor) -> Tensor:
        """Gradient (O, 9 C) from that by the output (B, H, W, O)."""
        return (self.round(by_y).flatten(0, 2).T @ self.rows).to(by_y.dtype)

    def by_images(self, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Gradient (B, C, H, W): the sum over outputs (B, H, W, O) and weights (O, C, 3, 3)."""
        by_rows, *more = (
            (self.round(by_y).flatten(0, 2) @ self.round(weight.flatten(1))).to(by_y.dtype)
            for by_y, weight in pairs
        )
        for term in more:
            by_rows += term
        columns = by_rows.view(self.batch, -1, by_rows.shape[1]).transpose(1, 2)
        return F.fold(columns, self.side, 3, padding=1)
