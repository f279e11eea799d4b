"""The step between what a distilled set stores and what networks are trained on.

A decoding is plain data that travels with the set: None, where images are used as they are stored,
or `{"kind": "partition", "factor": f}`: an image is f x f small ones, each enlarged to its size
(multi-formation: Kim et al., ICML 2022, arXiv 2205.14959; IDM: Zhao et al., CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Decoding = Mapping[str, Any]


def partition(factor: int) -> Decoding | None:
    """Images of factor x factor small ones; of one, no decoding at all."""
    return {"kind": "partition", "factor": factor} if factor > 1 else None


def check(decoding: Decoding | None, side: int) -> None:
    """Raise ValueError, one line, for a decoding that images with this side cannot have."""
    if decoding is not None and decoding not in map(partition, _divisors(side)):
        allowed = f"partition by a factor of {', '.join(map(str, _divisors(side)))}"
        raise ValueError(f"decoding {dict(decoding)}: allowed are none and {allowed}")


def _divisors(side: int) -> list[int]:
    return [factor for factor in range(2, side + 1) if side % factor == 0]


def compose(parts: Sequence[Tensor], decoding: Decoding | None) -> Tensor:
    """Stored images (N, C, H, W) of M parts, (N, C, H, W) each, in the order of `decode`.

    Made small bilinearly, as `decode` enlarges.
    """
    if decoding is None:
        return parts[0]
    factor, side = int(decoding["factor"]), parts[0].shape[-1]
    small = [F.interpolate(part, (side // factor,) * 2, mode="bilinear") for part in parts]
    columns = [torch.cat(small[k : k + factor], 2) for k in range(0, len(small), factor)]
    return torch.cat(columns, 3)


def decode(images: Tensor, labels: Tensor, decoding: Decoding | None) -> tuple[Tensor, Tensor]:
    """What networks are trained on: images (M N, C, H, W) and labels (M N, ...) of N stored ones.

    M is factor^2: all upper left parts first, then those below, column after column. Enlarged
    bilinearly; differentiable.
    """
    if decoding is None:
        return images, labels
    factor, side = int(decoding["factor"]), images.shape[-1]
    parts = [part for column in images.chunk(factor, 3) for part in column.chunk(factor, 2)]
    whole = F.interpolate(torch.cat(parts), size=(side, side), mode="bilinear")
    return whole, labels.repeat(len(parts), *[1] * (labels.dim() - 1))
