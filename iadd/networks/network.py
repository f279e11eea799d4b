"""The named networks: our own architectures, and torchvision's by name."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from iadd.networks.architectures import ARCHITECTURES, TORCHVISION, parse_name
from iadd.networks.base import PRECISIONS, Network
from iadd.networks.layers import Layers, Options, Statistics
from iadd.networks.modules import torchvision_network


@dataclass(frozen=True)
class LayeredNetwork(Network):
    """One of `ARCHITECTURES`, whose layers read the flat vector in order."""

    @property
    def has_batch_norm(self) -> bool:
        return self._options.norm == "batchnorm"

    def init(self, generator: torch.Generator) -> Tensor:
        """Fresh float32 parameters (P,) as torch draws them: U(+-1/sqrt(fan_in)), norms 1 and 0.

        Embeddings have a standard deviation of 0.02, as those of vision transformers.
        """
        bounds, centres, fan_in = [], [], 1
        for kind, shape in self.shapes:
            if kind in ("conv.weight", "linear.weight"):
                fan_in = math.prod(shape[1:])
            scale = {"norm": 0.0, "embedding": 0.02 * math.sqrt(3)}
            bounds.append(scale.get(kind.split(".")[0], 1 / math.sqrt(fan_in)))
            centres.append(1.0 if kind == "norm.weight" else 0.0)
        sizes = torch.tensor(self.sizes)
        uniform = torch.rand(self.num_parameters, generator=generator) * 2 - 1
        spread = torch.tensor(bounds).repeat_interleave(sizes)
        return uniform * spread + torch.tensor(centres).repeat_interleave(sizes)

    def apply(self, params: Tensor, images: Tensor, statistics: Statistics | None = None) -> Tensor:
        layers = self._layers(params, statistics or self.statistics)
        return layers.linear(self._embed(layers, images), self.classes)

    def embed(self, params: Tensor, images: Tensor, statistics: Statistics | None = None) -> Tensor:
        return self._embed(self._layers(params, statistics or self.statistics), images)

    def activations(self, params: Tensor, images: Tensor) -> list[Tensor]:
        layers = self._layers(params, self.statistics)
        layers.kept = []
        features = self._embed(layers, images)
        return [*layers.kept, features]

    def batch_statistics(self, params: Tensor, images: Tensor) -> Statistics:
        layers = self._layers(params, None)
        self._embed(layers, images)
        return layers.batch_statistics

    @property
    def _options(self) -> Options:
        assert self.options is not None
        return self.options

    def _layers(self, params: Tensor, statistics: Statistics | None) -> Layers:
        return Layers(self._options, iter(self.split(params)), statistics)

    def _embed(self, layers: Layers, images: Tensor) -> Tensor:
        return ARCHITECTURES[self.architecture][0](layers, images).flatten(1)


def build_network(
    name: str, channels: int, resolution: int, classes: int, precision: str = "float32"
) -> Network:
    """The named network for square images of `resolution` pixels.

    Raises:
        ValueError: unknown name or precision, or a size outside 8..128 pixels, 1 or 3 channels,
            >= 2 classes.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: allowed are {', '.join(PRECISIONS)}")
    architecture, options = parse_name(name)
    if not 8 <= resolution <= 128:
        raise ValueError(f"network {name!r}: resolution {resolution} is outside 8..128")
    if channels not in (1, 3) or classes < 2:
        raise ValueError(
            f"network {name!r}: {channels} channels and {classes} classes; "
            "allowed are 1 or 3 channels and at least 2 classes"
        )
    if architecture == TORCHVISION:
        return torchvision_network(name, channels, resolution, classes, precision)
    layers = Layers(options, None, None)
    # One real image: meta tensors would load torch's decompositions, a second a process.
    images = torch.zeros(1, channels, resolution, resolution)
    embedding = ARCHITECTURES[architecture][0](layers, images).flatten(1)
    layers.linear(embedding, classes)
    shapes = tuple(layers.shapes)
    features = embedding.shape[1]
    return LayeredNetwork(name, channels, resolution, classes, shapes, features, precision, options)
