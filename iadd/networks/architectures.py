"""The named architectures, each written once as calls of layers, and what names may say.

A first call, with blank parameters, finds the shapes; later ones read the flat vector. All of them
take images (B, C, H, W) of 8x8 to 128x128 pixels to features (B, ...): a pooling step or a stride
is left out where the map's side would fall below 2, because one-pixel maps are constant under
instance norm and would carry nothing. The last pooling of VGG11, which no norm follows, may leave
one pixel. At 32x32 in colour the networks have the shapes of the field's own (DatasetCondensation's
networks.py); SPEC.md tells where not.

A name is an architecture and, separated by dashes, what differs from its defaults:
`convnet-d2-w32`, `mlp`, `vgg11-batchnorm`, `vit-tiny-d6`, `convnet-d4-leakyrelu-maxpool`; or
`torchvision-` and the name of one of its models: `torchvision-resnet18`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.networks.layers import ACTIVATIONS, NORMS, POOLINGS, Layers, Options

TORCHVISION = "torchvision"


def convnet(net: Layers, x: Tensor) -> Tensor:
    """The field's ConvNet-d (Gidaris & Komodakis 2018): d x [conv 3x3, norm, activation, pool]."""
    for _ in range(net.options.depth):
        x = net.pool(net.activation(net.norm(net.conv(x, net.options.width))))
    return x


def mlp(net: Layers, x: Tensor) -> Tensor:
    """Layers of `width` units, `depth` of them, on the image as one vector."""
    x = x.flatten(1)  # (B, C*H*W)
    for _ in range(net.options.depth):
        x = net.activation(net.linear(x, net.options.width))
    return x


def lenet(net: Layers, x: Tensor) -> Tensor:
    """LeNet-5 (LeCun et al., Proceedings of the IEEE 86(11), 1998): two convolutions, two layers.

    Grey images are padded, as 28x28 are; the second convolution is where maps are small.
    """
    x = net.pool(net.activation(net.conv(x, 6, 5, padding=2 if x.shape[1] == 1 else 0)))
    x = net.pool(net.activation(net.conv(x, 16, 5, padding=0 if min(x.shape[2:]) >= 8 else 2)))
    x = net.activation(net.linear(x.flatten(1), 120))
    return net.activation(net.linear(x, 84))


def alexnet(net: Layers, x: Tensor) -> Tensor:
    """The field's small AlexNet (after Krizhevsky et al., NeurIPS 2012): five convolutions.

    They are 1, 1.5, 2, 1.5 and 1.5 times `width` wide.
    """
    width = net.options.width
    x = net.pool(net.activation(net.conv(x, width, 5, padding=2)))
    x = net.pool(net.activation(net.conv(x, width * 3 // 2, 5, padding=2)))
    x = net.activation(net.conv(x, width * 2))
    x = net.activation(net.conv(x, width * 3 // 2))
    return net.pool(net.activation(net.conv(x, width * 3 // 2)))


def vgg11(net: Layers, x: Tensor) -> Tensor:
    """VGG11 (Simonyan & Zisserman 2015, arXiv 1409.1556) with norms and one linear layer."""
    width = net.options.width
    for stage, convolutions in enumerate((1, 1, 2, 2, 2)):
        for _ in range(convolutions):
            x = net.activation(net.norm(net.conv(x, width * min(2**stage, 8))))
        x = net.pool(x, smallest=2 if stage == 4 else 4)
    return x


def resnet18(net: Layers, x: Tensor) -> Tensor:
    """ResNet18 for small images (He et al. 2016, arXiv 1512.03385): (B, 8 * width)."""
    x = net.activation(net.norm(net.conv(x, net.options.width, bias=False)))
    for stage in range(4):
        out = net.options.width * 2**stage
        for block in range(2):
            stride = 2 if stage and not block and min(x.shape[2:]) >= 4 else 1
            y = net.activation(net.norm(net.conv(x, out, stride=stride, bias=False)))
            y = net.norm(net.conv(y, out, bias=False))
            if x.shape != y.shape:
                x = net.norm(net.conv(x, out, 1, stride, padding=0, bias=False))
            x = net.activation(x + y)
    return x.mean((2, 3))


def vit(net: Layers, x: Tensor) -> Tensor:
    """Vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), tiny as DeiT's (2012.12877).

    Patches have 4 pixels a side up to 32x32 images and grow with larger ones: at most 64 of them.
    """
    width = net.options.width
    patch = 4 * -(-x.shape[-1] // 32)
    x = net.conv(x, width, patch, stride=patch, padding=0).flatten(2).transpose(1, 2)  # (B, T, D)
    first = net.parameter("embedding", 1, 1, width).expand(len(x), -1, -1)
    x = torch.cat([first, x], 1)
    x = x + net.parameter("embedding", 1, x.shape[1], width)
    for _ in range(net.options.depth):
        x = x + net.linear(_attention(net.linear(net.token_norm(x), 3 * width)), width)
        x = x + net.linear(F.gelu(net.linear(net.token_norm(x), 4 * width)), width)
    return net.token_norm(x)[:, 0]


def _attention(x: Tensor) -> Tensor:
    """Self-attention of queries, keys and values (B, T, 3 D), in heads of about 64 channels."""
    batch, tokens, width = len(x), x.shape[1], x.shape[2] // 3
    heads = next(h for h in range(max(1, width // 64), 0, -1) if width % h == 0)
    q, k, v = x.view(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (B, heads, T, D / heads)
    # Written out: the fused operator has no second derivative.
    weights: Tensor = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    mixed: Tensor = weights @ v
    return mixed.transpose(1, 2).reshape(batch, tokens, width)


ARCHITECTURES: dict[str, tuple[Callable[[Layers, Tensor], Tensor], Options]] = {
    "convnet": (convnet, Options(depth=3, width=128)),
    "mlp": (mlp, Options(depth=2, width=128, norm="nonorm", pooling="nopool")),
    "lenet": (lenet, Options(depth=2, width=6, norm="nonorm", pooling="maxpool")),
    "alexnet": (alexnet, Options(depth=5, width=128, norm="nonorm", pooling="maxpool")),
    "vgg11": (vgg11, Options(depth=8, width=64, pooling="maxpool")),
    "resnet18": (resnet18, Options(depth=8, width=64)),
    "vit-tiny": (vit, Options(depth=12, width=192, norm="layernorm", pooling="nopool")),
}
_VARIABLE = {  # which parts of a name each architecture listens to
    "convnet": {"depth", "width", "norm", "activation", "pooling"},
    "mlp": {"depth", "width", "activation"},
    "lenet": {"activation", "pooling"},
    "alexnet": {"width", "activation", "pooling"},
    "vgg11": {"width", "norm", "activation", "pooling"},
    "resnet18": {"width", "norm", "activation"},
    "vit-tiny": {"depth", "width"},
}


def architecture_of(name: str) -> str:
    """The part of a network's name before its options: one word, or the two of `vit-tiny`."""
    words = name.split("-")
    two = "-".join(words[:2])
    return two if two in ARCHITECTURES else words[0]


def parse_name(name: str) -> tuple[str, Options]:
    """Split a network's name into its architecture and options.

    Raises:
        ValueError: unknown architecture or a part that it does not take; lists what is allowed.
    """
    architecture = architecture_of(name)
    parts = name.split("-")[1 + architecture.count("-") :]
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
