"""How the gradient by all parameters is put together from those by each of them.

On CUDA one kernel (csrc/cuda_sums.cu) for what would be a sum, a copy or a fill each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iadd.engine import cuda_block


def flat_sums(parts: Sequence[Tensor]) -> Tensor:
    """Tensors (S, ...), S summands of each, flat: their sums one after the other, (P,).

    At most five dimensions; S may be 0, for zeros. Terms are added in their order.
    """
    if cuda_block.fused(parts[0].device):
        found: Tensor = torch.ops.iadd.flat_sums(parts)
        return found
    return flat_sums_reference(parts)


def flat_sums_reference(parts: Sequence[Tensor]) -> Tensor:
    """`flat_sums` in plain operators, for any dtype and device."""
    return torch.cat([part.sum(0).flatten() for part in parts])
