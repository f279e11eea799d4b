"""The nearest training image of each of some images, in pixels and in a network's features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from iadd.data import Dataset, ImageRows, Transform
from iadd.networks import Network
from iadd.train import embeddings, fixed_statistics

COPY = 1 / 512
"""Images that differ by less, half a grey level of 8 bits on average, are the same image."""
PART = 1024
"""Training images that are looked at together."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """Of each of M images the nearest reference: its row (M,) int64, the distance (M,) float32."""

    rows: Tensor
    distances: Tensor


def nearest(images: Tensor, references: Iterable[Tensor]) -> Nearest:
    """The nearest reference of each image by Euclidean distance, the first one among equals.

    Args:
        images: (M, D) float.
        references: (N, D) in parts (B, D), so that they need not be in memory together.

    The distance of the pair is taken from the difference itself: a copy has 0, not the rounding
    error of the matrix product by which the pair was found.
    """
    rows = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    best = torch.full((len(images),), torch.inf, device=images.device)
    start = 0
    for part in references:
        close = torch.cdist(images, part).argmin(1)
        exact = (images - part[close]).norm(dim=1)
        nearer = exact < best
        rows[nearer], best[nearer] = close[nearer] + start, exact[nearer]
        start += len(part)
    return Nearest(rows.cpu(), best.cpu())


def nearest_pixels(images: Tensor, dataset: Dataset, transform: Transform | None = None) -> Nearest:
    """The nearest training images in pixel space; distances are root mean squares over pixels.

    Args:
        images: (M, C, H, W), normalised by `transform`; what lies outside [0, 1] is cut.
        transform: default: the data set's own.
    """
    seen = (transform or dataset.transform).invert(images).clamp(0, 1).flatten(1)
    inverted = (dataset.transform.invert(part) for part in dataset.train.images.split(PART))
    found = nearest(seen, (part.clamp(0, 1).flatten(1) for part in inverted))
    return Nearest(found.rows, found.distances / sqrt(seen.shape[1]))


def nearest_features(
    images: Tensor,
    dataset: Dataset,
    network: Network,
    params: Tensor,
    transform: Transform | None = None,
) -> Nearest:
    """The nearest training images in the features of a trained network (P,), Euclidean.

    Args:
        images: (M, C, H, W), normalised by `transform`.
        params: on the data's device. Batch norm, where the network has it, is fixed by statistics
            over training images.
        transform: default: the data set's own.
    """
    if transform is not None and not transform.same(dataset.transform):
        images = dataset.transform.apply(transform.invert(images))
    statistics = fixed_statistics(network, params, dataset.train.images)

    def embedded(those: ImageRows) -> Iterator[Tensor]:
        return embeddings(network, params, those, statistics, PART)

    return nearest(torch.cat([*embedded(images)]), embedded(dataset.train.images))


def copies(pixels: Nearest) -> Tensor:
    """The training rows (n,) that stand among the images as they are, ascending, each once."""
    found: Tensor = torch.unique(pixels.rows[pixels.distances < COPY])
    return found
