"""Images of which rows are taken: a tensor, or bytes that are normalised when they are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from iadd.data.transform import Transform


class ImageRows(Protocol):
    """Normalised images (N, C, H, W) float32 that whoever needs some takes by rows.

    A tensor is one; so is `ByteImages`, of which no more than this can be asked.
    """

    @property
    def shape(self) -> torch.Size: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def is_cuda(self) -> bool: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Tensor: ...
    def split(self, size: int, /) -> Any: ...
    def to(self, device: torch.device, /) -> Any: ...
    def cpu(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class ByteImages:
    """Images kept as they were read, 8 bits a value: a quarter of what float32 takes.

    Rows are normalised when they are taken, by the operations that would have normalised them all
    beforehand: the same bits.

    values: (N, C, H, W) uint8. low, high: the range that they stand in.
    """

    values: Tensor
    low: float
    high: float
    transform: Transform
    dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def is_cuda(self) -> bool:
        return self.values.is_cuda

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any, /) -> Tensor:
        """Normalised images float32; `rows` as in a tensor, of its first dimension."""
        taken = self.values[rows]
        images = unit_range(taken.reshape(-1, *self.shape[1:]).float(), self.low, self.high)
        return self.transform.apply(images).reshape(taken.shape)

    def split(self, size: int, /) -> Iterator[Tensor]:
        """All images, `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, device: torch.device, /) -> ByteImages:
        """The same on a device."""
        return replace(self, values=self.values.to(device), transform=self.transform.to(device))

    def cpu(self) -> ByteImages:
        return self.to(torch.device("cpu"))


def unit_range(pixels: Tensor, low: float, high: float) -> Tensor:
    """Values low..high brought to 0..1, in place: divided, as a card would not by a number."""
    if low:
        pixels.sub_(low)
    return pixels.div_(torch.full((), high - low, dtype=pixels.dtype, device=pixels.device))
