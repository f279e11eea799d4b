"""What a network is to everything else: a pure function of one flat parameter vector."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from iadd.networks.architectures import architecture_of
from iadd.networks.layers import Options, Statistics

PRECISIONS = ("float32", "tf32", "bf16")


@dataclass(frozen=True)
class Network(ABC):
    """One network for one input size: `init` draws parameters, `apply` maps images to logits.

    Everything is stateless over a flat float vector (P,). Batch norm, where there is one, uses the
    statistics of the batch unless `statistics` (from `batch_statistics`) are given, or the network
    is `fixed`.
    """

    name: str
    channels: int
    resolution: int
    classes: int
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = field(repr=False)
    """Name or kind, and shape of every parameter tensor, in order."""
    features: int
    """Length of the embedding before the classifier."""
    precision: str = "float32"
    """Arithmetic of matrix products on a GPU, one of `PRECISIONS`; CPUs know float32 alone."""
    options: Options | None = field(default=None, repr=False)
    """What the name of one of our own architectures says; None for others."""
    statistics: Statistics | None = field(default=None, repr=False)
    """Of its batch norms where they are fixed; None: those of each batch."""

    @property
    def sizes(self) -> list[int]:
        """Number of parameters of each tensor, in order."""
        return [math.prod(shape) for _, shape in self.shapes]

    @property
    def num_parameters(self) -> int:
        """P, the length of the flat vector."""
        return sum(self.sizes)

    @property
    def architecture(self) -> str:
        """The name without its options."""
        return architecture_of(self.name)

    @property
    @abstractmethod
    def has_batch_norm(self) -> bool:
        """Whether it is judged with `batch_statistics`."""

    @abstractmethod
    def init(self, generator: torch.Generator) -> Tensor:
        """Fresh float32 parameters (P,), a function of the generator alone."""

    @abstractmethod
    def apply(self, params: Tensor, images: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) under parameters (P,)."""

    @abstractmethod
    def embed(self, params: Tensor, images: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Features (B, F) before the classifier, of images (B, C, H, W)."""

    def activations(self, params: Tensor, images: Tensor) -> list[Tensor]:
        """What the non-linear layers put out, (B, ...) each, in order, and last the features.

        Of a network whose layers are not ours the features alone. Differentiable by autograd.
        """
        return [self.embed(params, images)]

    @abstractmethod
    def batch_statistics(self, params: Tensor, images: Tensor) -> Statistics:
        """Mean and variance at every batch norm over `images`: fixes the network for inference.

        Taken over the whole training set in one pass, they replace running averages, which would be
        a state (precise batch norm, Wu & Johnson 2021, arXiv 2105.07576). Empty without batch norm.
        """

    def fixed(self, statistics: Statistics) -> Network:
        """This network with batch norms that have these statistics unless others are given."""
        return replace(self, statistics=statistics)

    def split(self, flat: Tensor) -> list[Tensor]:
        """The parameter tensors as views of a flat vector (P,), in order."""
        parts = flat.split_with_sizes(self.sizes)
        return [part.view(shape) for part, (_, shape) in zip(parts, self.shapes, strict=True)]

    def offsets(self, granularity: str) -> Tensor:
        """Segment boundaries int64 (S + 1,) that cut (P,) into tensors or output filters."""
        if granularity not in ("tensor", "filter"):
            raise ValueError(f"granularity {granularity!r}: allowed are tensor, filter")
        rows = [
            shape[0] if granularity == "filter" and len(shape) > 1 else 1
            for _, shape in self.shapes
        ]
        lengths = [
            size // row for size, row in zip(self.sizes, rows, strict=True) for _ in range(row)
        ]
        return torch.tensor([0, *lengths]).cumsum(0)
