"""Named architectures, each a pure function of one flat parameter vector.

An architecture is written once, as a walk over layers (`convnet`, `vgg11`, ...). A first walk, with
blank parameters, finds their shapes; later ones read the flat vector. Every network works from
8x8 to 128x128 inputs: a pooling step or a stride is left out where the map's side would fall below
2, because one-pixel maps are constant under instance norm and would carry nothing.

A name is an architecture and, separated by dashes, what differs from its defaults:
`convnet-d2-w32`, `mlp`, `vgg11-batchnorm`, `resnet18-w16`, `convnet-d4-leakyrelu-maxpool`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

Statistics = list[tuple[Tensor, Tensor]]

NORMS = ("instancenorm", "batchnorm", "groupnorm", "layernorm", "nonorm")
ACTIVATIONS = ("relu", "leakyrelu", "sigmoid", "linear")
POOLINGS = ("avgpool", "maxpool", "nopool")
PRECISIONS = ("float32", "tf32", "bf16")


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
        self._tensors = tensors
        self._fixed = iter(statistics) if statistics else None

    def parameter(self, kind: str, *shape: int) -> Tensor:
        if self._tensors is not None:
            return next(self._tensors)
        self.shapes.append((kind, shape))
        return torch.zeros(()).expand(shape)

    def conv(
        self, x: Tensor, out: int, kernel: int = 3, stride: int = 1, padding: int = 1
    ) -> Tensor:
        weight = self.parameter("conv.weight", out, x.shape[1], kernel, kernel)
        bias = self.parameter("conv.bias", out)
        keeps_size = stride == 1 and 2 * padding + 1 == kernel
        if keeps_size and _smaller_as_matrix(x, kernel):
            return _convolve_as_matrix(x, weight, bias)
        return F.conv2d(x, weight, bias, stride, padding)

    def linear(self, x: Tensor, out: int) -> Tensor:
        weight = self.parameter("linear.weight", out, x.shape[1])
        return F.linear(x, weight, self.parameter("linear.bias", out))

    def norm(self, x: Tensor) -> Tensor:
        kind, channels = self.options.norm, x.shape[1]
        if kind == "nonorm":
            return x
        weight = self.parameter("norm.weight", channels)
        bias = self.parameter("norm.bias", channels)
        if kind == "batchnorm":
            return self._batch_norm(x, weight, bias)
        groups = {"instancenorm": channels, "layernorm": 1, "groupnorm": math.gcd(channels, 4)}
        return F.group_norm(x, groups[kind], weight, bias)

    def _batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, variance = next(self._fixed) if self._fixed is not None else (x.mean((0, 2, 3)), None)
        centred = x - mean[:, None, None]
        if variance is None:
            # x.var would take several times as long, a square more memory in second order.
            variance = (centred * centred).mean((0, 2, 3))
            self.batch_statistics.append((mean, variance))
        scale = weight * (variance + 1e-5).rsqrt()
        return centred * scale[:, None, None] + bias[:, None, None]

    def activation(self, x: Tensor) -> Tensor:
        functions: dict[str, Callable[[Tensor], Tensor]] = {
            "relu": F.relu,
            "leakyrelu": lambda z: F.leaky_relu(z, 0.01),
            "sigmoid": torch.sigmoid,
            "linear": lambda z: z,
        }
        return functions[self.options.activation](x)

    def pool(self, x: Tensor) -> Tensor:
        if self.options.pooling == "nopool" or min(x.shape[2:]) < 4:
            return x
        if self.options.pooling == "maxpool":
            return F.max_pool2d(x, 2)
        return F.avg_pool2d(x, 2)


def _smaller_as_matrix(x: Tensor, kernel: int) -> bool:
    """Whether one matrix over all pixels takes a fifth fewer multiplications than the kernel.

    It is so for large batches of maps smaller than the kernel, where many a tap meets padding. A
    pair of channels takes pixels^2 of them an image, and kernel^2 pixels^2 to lay the matrix out,
    against kernel^2 pixels. On CPUs only: a card's libraries have kernels of their own for it.
    """
    count, pixels, taps = len(x), x.shape[2] * x.shape[3], kernel**2
    return x.device.type == "cpu" and 5 * pixels * (count + taps) <= 4 * count * taps


def _convolve_as_matrix(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution that keeps the size of maps (B, I, H, W), as one product of matrices."""
    out, channels, kernel, _ = weight.shape
    height, width = x.shape[2:]
    pixels = height * width
    places = _places(kernel, height, width).to(weight)  # (kernel^2, pixels^2)
    laid = (weight.reshape(out * channels, -1) @ places).view(out, channels, pixels, pixels)
    matrix = laid.permute(1, 2, 0, 3).reshape(channels * pixels, out * pixels)
    y = (x.flatten(1) @ matrix).view(-1, out, height, width)
    return y + bias[:, None, None]


@cache
def _places(kernel: int, height: int, width: int) -> Tensor:
    """1 where a tap leads from an input pixel to an output pixel: (kernel^2, pixels^2)."""

    def along(side: int) -> Tensor:
        tap = torch.arange(side)[:, None] - torch.arange(side) + kernel // 2  # (from, to)
        return (tap == torch.arange(kernel)[:, None, None]).float()

    return torch.einsum("pac,qbd->pqabcd", along(height), along(width)).reshape(kernel**2, -1)


def convnet(net: Layers, x: Tensor) -> Tensor:
    """ConvNet-d of Gidaris & Komodakis, the field's own: d x [conv 3x3, norm, activation, pool]."""
    for _ in range(net.options.depth):
        x = net.pool(net.activation(net.norm(net.conv(x, net.options.width))))
    return x


def mlp(net: Layers, x: Tensor) -> Tensor:
    x = x.flatten(1)  # (B, C*H*W)
    for _ in range(net.options.depth):
        x = net.activation(net.linear(x, net.options.width))
    return x


def lenet(net: Layers, x: Tensor) -> Tensor:
    """LeNet-5; the second convolution is padded where the map would fall below 4 pixels."""
    x = net.pool(net.activation(net.conv(x, 6, 5, padding=2)))
    x = net.pool(net.activation(net.conv(x, 16, 5, padding=0 if min(x.shape[2:]) >= 8 else 2)))
    x = net.activation(net.linear(x.flatten(1), 120))
    return net.activation(net.linear(x, 84))


def alexnet(net: Layers, x: Tensor) -> Tensor:
    """The field's small AlexNet: five convolutions, widths 1, 1.5, 2, 1.5, 1.5 times `width`."""
    width = net.options.width
    x = net.pool(net.activation(net.conv(x, width, 5, padding=2)))
    x = net.pool(net.activation(net.conv(x, width * 3 // 2, 5, padding=2)))
    x = net.activation(net.conv(x, width * 2))
    x = net.activation(net.conv(x, width * 3 // 2))
    return net.pool(net.activation(net.conv(x, width * 3 // 2)))


def vgg11(net: Layers, x: Tensor) -> Tensor:
    width = net.options.width
    for stage, convolutions in enumerate((1, 1, 2, 2, 2)):
        for _ in range(convolutions):
            x = net.activation(net.norm(net.conv(x, width * min(2**stage, 8))))
        x = net.pool(x)
    return x


def resnet18(net: Layers, x: Tensor) -> Tensor:
    x = net.activation(net.norm(net.conv(x, net.options.width)))
    for stage in range(4):
        out = net.options.width * 2**stage
        for block in range(2):
            stride = 2 if stage and not block and min(x.shape[2:]) >= 4 else 1
            y = net.activation(net.norm(net.conv(x, out, stride=stride)))
            y = net.norm(net.conv(y, out))
            if x.shape != y.shape:
                x = net.norm(net.conv(x, out, kernel=1, stride=stride, padding=0))
            x = net.activation(x + y)
    return x.mean((2, 3))  # (B, 8 * width)


ARCHITECTURES: dict[str, tuple[Callable[[Layers, Tensor], Tensor], Options]] = {
    "convnet": (convnet, Options(depth=3, width=128)),
    "mlp": (mlp, Options(depth=2, width=128, norm="nonorm", pooling="nopool")),
    "lenet": (lenet, Options(depth=2, width=6, norm="nonorm", pooling="maxpool")),
    "alexnet": (alexnet, Options(depth=5, width=128, norm="nonorm", pooling="maxpool")),
    "vgg11": (vgg11, Options(depth=8, width=64, pooling="maxpool")),
    "resnet18": (resnet18, Options(depth=8, width=64)),
}
_VARIABLE = {  # which parts of a name each architecture listens to
    "convnet": {"depth", "width", "norm", "activation", "pooling"},
    "mlp": {"depth", "width", "activation"},
    "lenet": {"activation", "pooling"},
    "alexnet": {"width", "activation", "pooling"},
    "vgg11": {"width", "norm", "activation", "pooling"},
    "resnet18": {"width", "norm", "activation"},
}


def parse_name(name: str) -> tuple[str, Options]:
    """Split a network's name into its architecture and options.

    Raises:
        ValueError: unknown architecture or a part that it does not take; lists what is allowed.
    """
    architecture, *parts = name.split("-")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(ARCHITECTURES)}")
    options = ARCHITECTURES[architecture][1]
    for part in parts:
        key, value = _option(part)
        if key not in _VARIABLE[architecture]:
            allowed = ", ".join(sorted(_VARIABLE[architecture]))
            raise ValueError(
                f"network {name!r}: {part!r} does not apply; {architecture} takes {allowed} "
                "(d<blocks>, w<channels>, <kind>norm, an activation, <kind>pool)"
            )
        options = replace(options, **{key: value})  # type: ignore[arg-type]
    return architecture, options


def _option(part: str) -> tuple[str, int | str]:
    if number := re.fullmatch(r"([dw])([1-9]\d*)", part):
        return ("depth" if number[1] == "d" else "width"), int(number[2])
    for key, choices in (("norm", NORMS), ("activation", ACTIVATIONS), ("pooling", POOLINGS)):
        if part in choices:
            return key, part
    return "an unknown option", part


@dataclass(frozen=True)
class Network:
    """One architecture for one input size: `init` draws parameters, `apply` maps images to logits.

    Everything is stateless over a flat float vector (P,). Batch norm, where asked for, uses the
    statistics of the batch unless `statistics` (from `batch_statistics`) are given.
    """

    name: str
    channels: int
    resolution: int
    classes: int
    options: Options = field(repr=False)
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = field(repr=False)
    features: int
    """Length of the embedding before the classifier."""
    precision: str = "float32"
    """Arithmetic of matrix products on a GPU, one of `PRECISIONS`; CPUs know float32 alone."""

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for _, shape in self.shapes]

    @property
    def num_parameters(self) -> int:
        return sum(self.sizes)

    @property
    def architecture(self) -> str:
        return self.name.split("-")[0]

    def init(self, generator: torch.Generator) -> Tensor:
        """Fresh float32 parameters (P,) as torch draws them: U(+-1/sqrt(fan_in)), norms 1 and 0."""
        bounds, centres, fan_in = [], [], 1
        for kind, shape in self.shapes:
            if kind in ("conv.weight", "linear.weight"):
                fan_in = math.prod(shape[1:])
            norm = kind.startswith("norm")
            bounds.append(0.0 if norm else 1 / math.sqrt(fan_in))
            centres.append(1.0 if kind == "norm.weight" else 0.0)
        sizes = torch.tensor(self.sizes)
        uniform = torch.rand(self.num_parameters, generator=generator) * 2 - 1
        spread = torch.tensor(bounds).repeat_interleave(sizes)
        return uniform * spread + torch.tensor(centres).repeat_interleave(sizes)

    def apply(self, params: Tensor, images: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) under parameters (P,)."""
        layers = self._layers(params, statistics)
        return layers.linear(self._embed(layers, images), self.classes)

    def embed(self, params: Tensor, images: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Features (B, F) before the classifier, of images (B, C, H, W)."""
        return self._embed(self._layers(params, statistics), images)

    def batch_statistics(self, params: Tensor, images: Tensor) -> Statistics:
        """Mean and variance at every batch norm over `images`: fixes the network for inference.

        Taken over the whole training set in one pass, they replace running averages, which would be
        a state (precise batch norm, Wu & Johnson 2021, arXiv 2105.07576). Empty without batch norm.
        """
        layers = self._layers(params, None)
        self._embed(layers, images)
        return layers.batch_statistics

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

    def _layers(self, params: Tensor, statistics: Statistics | None) -> Layers:
        return Layers(self.options, iter(self.split(params)), statistics)

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
    layers = Layers(options, None, None)
    # A real one-image walk: meta tensors would load torch's decompositions, a second a process.
    images = torch.zeros(1, channels, resolution, resolution)
    embedding = ARCHITECTURES[architecture][0](layers, images).flatten(1)
    layers.linear(embedding, classes)
    shapes = tuple(layers.shapes)
    features = embedding.shape[1]
    return Network(name, channels, resolution, classes, options, shapes, features, precision)
