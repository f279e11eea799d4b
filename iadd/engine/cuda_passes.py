"""The forward and backward passes of ConvNets in tensor operations, for `cuda_convnet`.

M networks go side by side, their channels in grouped convolutions; the dual passes carry values and
derivatives along a direction of the parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.engine import cuda_block
from iadd.engine.cuda_block import Affine, Form
from iadd.networks import Network


class _Layer(NamedTuple):
    weight: Tensor  # (M * O, C, 3, 3)
    bias: Tensor  # (M * O,)
    affine: Affine  # of what follows the convolution


class Activations(NamedTuple):
    """What a backward pass needs: every block's input, convolution and moments; the head's."""

    inputs: list[Tensor]
    convolved: list[Tensor]
    stats: list[Tensor | None]
    features: Tensor  # (M, B, F); dual: (2, M, B, F)
    logits: Tensor  # (M, B, K); dual: (2, M, B, K)


@dataclass
class ConvNets:
    """M ConvNets of one architecture, and the direction that their parameters move along."""

    network: Network
    params: Tensor
    direction: Tensor | None = None

    def __post_init__(self) -> None:
        self.many = self.params.dim() == 2
        self.params = self.params.detach().reshape(-1, self.network.num_parameters)  # (M, P)
        self.count = len(self.params)
        options = self.network.options
        assert options is not None
        self.norm = options.norm == "instancenorm"
        sides = [self.network.resolution]
        self.forms = []
        for _ in range(options.depth):
            pool = options.pooling == "avgpool" and sides[-1] >= 4
            self.forms.append(Form(options.activation == "relu", pool))
            sides.append(sides[-1] // 2 if pool else sides[-1])
        self.side = sides[-1]
        half = self.network.precision == "bf16"
        self.convolution = _Convolution(self.count, torch.bfloat16 if half else None)

    @cached_property
    def values(self) -> tuple[list[_Layer], Tensor, Tensor]:
        return self._read(self.params)

    @cached_property
    def tangents(self) -> tuple[list[_Layer], Tensor, Tensor]:
        assert self.direction is not None
        return self._read(self.direction.detach().reshape_as(self.params))

    def _read(self, flat: Tensor) -> tuple[list[_Layer], Tensor, Tensor]:
        """The blocks' layers, and the head's weight (M, K, F) and bias (M, 1, K)."""
        shapes = [shape for _, shape in self.network.shapes]
        parts = [
            part.reshape(self.count * shape[0], *shape[1:])
            for part, shape in zip(flat.split(self.network.sizes, 1), shapes, strict=True)
        ]
        step = 4 if self.norm else 2
        layers = []
        for k in range(0, len(parts) - 2, step):
            weight, bias = parts[k : k + 2]
            # Instance norm takes the convolution's bias away again: it is never added.
            affine = Affine(*parts[k + 2 : k + 4]) if self.norm else Affine(None, bias)
            layers.append(_Layer(weight, bias, affine))
        classes, features = shapes[-2]
        head = parts[-2].view(self.count, classes, features)
        return layers, head, parts[-1].view(self.count, 1, classes)

    def squeeze(self, result: Tensor) -> Tensor:
        return result if self.many else result.squeeze(0)

    def _lay_out(self, images: Tensor) -> Tensor:
        """Every student's images beside one another: (B, M * C, H, W)."""
        if images.dim() == 4:
            images = images.expand(self.count, *images.shape)
        return images.detach().transpose(0, 1).flatten(1, 2).contiguous()

    def _apart(self, maps: Tensor) -> Tensor:
        """(..., B, M * C, H, W) -> (..., M, B, C, H, W)."""
        *lead, batch, channels, height, width = maps.shape
        apart = maps.view(*lead, batch, self.count, channels // self.count, height, width)
        return apart.transpose(-5, -4)

    def forward(self, images: Tensor) -> Activations:
        """Through the blocks and the head: with a direction in dual numbers; images stand still."""
        layers, head, bias = self.values
        moving = self.tangents[0] if self.direction is not None else [None] * len(layers)
        x = self._lay_out(images)
        inputs: list[Tensor] = []
        convolved: list[Tensor] = []
        moments: list[Tensor | None] = []
        for layer, along, form in zip(layers, moving, self.forms, strict=True):
            inputs.append(x)
            still = x.dim() == 4
            y = self.convolution.forward(x if still else x.flatten(0, 1), layer.weight)
            if along is not None:
                y_dot = self.convolution.forward(x if still else x[0], along.weight)
                if still:
                    y = torch.stack((y, y_dot))  # (2, B, M * O, H, W)
                else:
                    y = y.view(2, -1, *y.shape[1:])
                    y[1] += y_dot
            convolved.append(y)
            x, stats = cuda_block.forward(y, layer.affine, form, along and along.affine)
            moments.append(stats)
        features = self._apart(x).flatten(-3)  # (M, B, F) or (2, M, B, F)
        if self.direction is None:
            logits = torch.baddbmm(bias, features, head.transpose(1, 2))
        else:
            (f, f_dot), (_, head_dot, bias_dot) = features, self.tangents
            z_dot = torch.baddbmm(bias_dot, f_dot, head.transpose(1, 2))
            z_dot = z_dot.baddbmm(f, head_dot.transpose(1, 2))
            logits = torch.stack((torch.baddbmm(bias, f, head.transpose(1, 2)), z_dot))
        return Activations(inputs, convolved, moments, features, logits)

    def by_params(self, kept: Activations, by_logits: Tensor) -> Tensor:
        """Gradient by params (M, P) from that by logits."""
        layers, head, _ = self.values
        by_head = [by_logits.transpose(1, 2) @ kept.features, by_logits.sum(1)]
        found = []
        for k, by_x, by_affine in self._backward(kept, by_logits @ head):
            by_weight = self.convolution.by_weight(by_x, kept.inputs[k], layers[k].weight)
            found.append(self._one(by_weight, by_affine))
        return self._gather(found[::-1], by_head)

    def by_images(self, kept: Activations, by_features: Tensor) -> Tensor:
        """Gradient by images (M, B, C, H, W) from that by features."""
        *_, (_, by_x, _) = self._backward(kept, by_features)
        by_images = self.convolution.by_input(by_x, kept.inputs[0], self.values[0][0].weight)
        return self._apart(by_images)

    def _backward(
        self, kept: Activations, by_features: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each block's number, and the gradients by its convolution and affine map; last first."""
        by_y, (layers, _, _) = self._maps(by_features), self.values
        for k in reversed(range(len(layers))):
            layer = layers[k]
            by_x, by_affine = cuda_block.backward(
                kept.convolved[k], kept.stats[k], layer.affine, by_y, self.forms[k]
            )
            yield k, by_x, by_affine
            if k:
                by_y = self.convolution.by_input(by_x, kept.inputs[k], layer.weight)

    def dual_backward(
        self, kept: Activations, by_logits_dot: Tensor, by_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tangents of the gradients by params (M, P) and images (M, B, C, H, W)."""
        layers, head, _ = self.values
        moving, head_dot, _ = self.tangents
        f, f_dot = kept.features
        adjoints, paired = torch.cat((by_logits_dot, by_logits), 1), torch.cat((f, f_dot), 1)
        by_head = [adjoints.transpose(1, 2) @ paired, by_logits_dot.sum(1)]
        by_f_dot = torch.baddbmm(by_logits_dot @ head, by_logits, head_dot)
        by_y = torch.stack([self._maps(z) for z in (by_f_dot, by_logits @ head)])
        found = []
        for k in reversed(range(len(layers))):
            layer, along, x = layers[k], moving[k], kept.inputs[k]
            by_x, by_affine = cuda_block.backward(
                kept.convolved[k], kept.stats[k], layer.affine, by_y, self.forms[k], along.affine
            )
            # Pairs tangent adjoints with values and adjoints with tangents. Images stand still.
            pair = (by_x.flatten(0, 1), x.flatten(0, 1)) if k else (by_x[0], x)
            by_weight = self.convolution.by_weight(*pair, layer.weight)
            found.append(self._one(by_weight, by_affine))
            by_y = self.convolution.by_input(*pair, layer.weight)
            by_y = by_y.view(-1, len(kept.inputs[0]), *by_y.shape[1:])
            by_y[0] += self.convolution.by_input(by_x[1], x[0] if k else x, along.weight)
        return self._gather(found[::-1], by_head), self._apart(by_y[0])

    def _maps(self, features: Tensor) -> Tensor:
        """(M, B, F) -> (B, M * C, h, w)."""
        return features.transpose(0, 1).reshape(features.shape[1], -1, self.side, self.side)

    def _one(self, by_weight: Tensor, by_affine: Tensor) -> list[Tensor]:
        by_scale, by_shift = by_affine.unbind(1)
        if self.norm:  # a bias before an instance norm changes nothing
            return [by_weight, torch.zeros_like(by_shift), by_scale, by_shift]
        return [by_weight, by_shift]

    def _gather(self, found: list[list[Tensor]], by_head: list[Tensor]) -> Tensor:
        parts = [part for block in found for part in block] + by_head
        return torch.cat([part.reshape(self.count, -1) for part in parts], 1)


@dataclass(frozen=True)
class _Convolution:
    """3x3 convolutions with padding 1 in `groups` groups, and their two adjoints.

    `dtype`: what their operands are rounded to; results and sums stay as the operands were.
    """

    groups: int
    dtype: torch.dtype | None

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        y = F.conv2d(self._round(x), self._round(weight), None, 1, 1, 1, self.groups)
        return y.to(x.dtype)

    def by_input(self, by_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return self._backward(by_y, x, weight, 0)

    def by_weight(self, by_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return self._backward(by_y, x, weight, 1)

    def _backward(self, by_y: Tensor, x: Tensor, weight: Tensor, wanted: int) -> Tensor:
        operands = (self._round(by_y), self._round(x), self._round(weight))
        one, mask = [1, 1], [wanted == 0, wanted == 1, False]
        found: Tensor = torch.ops.aten.convolution_backward(
            *operands, None, one, one, one, False, [0, 0], self.groups, mask
        )[wanted]
        return found.to(by_y.dtype)

    def _round(self, x: Tensor) -> Tensor:
        return x if self.dtype is None else x.to(self.dtype)
