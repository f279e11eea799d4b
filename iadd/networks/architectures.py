"""The named architectures, each written once as calls of layers, and what names may say.

A first call, with blank parameters, finds the shapes; later ones read the flat vector. All of them
work from 8x8 to 128x128 inputs: a pooling step or a stride is left out where the map's side would
fall below 2, because one-pixel maps are constant under instance norm and would carry nothing.

A name is an architecture and, separated by dashes, what differs from its defaults:
`convnet-d2-w32`, `mlp`, `vgg11-batchnorm`, `resnet18-w16`, `convnet-d4-leakyrelu-maxpool`; or
`torchvision-` and the name of one of its models: `torchvision-resnet18`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from iadd.networks.layers import ACTIVATIONS, NORMS, POOLINGS, Layers, Options

TORCHVISION = "torchvision"


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
    if architecture == TORCHVISION and len(parts) == 1:
        return architecture, Options(depth=0, width=0)
    if architecture not in ARCHITECTURES:
        known = ", ".join([*ARCHITECTURES, f"{TORCHVISION}-<model>"])
        raise ValueError(f"unknown network {name!r}; known: {known}")
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
