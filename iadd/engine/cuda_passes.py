"""The forward and backward passes of a ConvNet in tensor operations, for `cuda_convnet`.

Maps have their channels last. The dual passes carry values and derivatives along a direction of the
parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from iadd.engine import cuda_block
from iadd.engine.cuda_block import Affine, Form
from iadd.engine.cuda_graph import Aside
from iadd.engine.cuda_products import Convolution, Operands, Patches, long_products
from iadd.engine.cuda_sums import flat_sums
from iadd.networks import Network


class _Layer(NamedTuple):
    weight: Tensor  # (O, C, 3, 3)
    bias: Tensor  # (O,)
    affine: Affine  # of what follows the convolution


class Activations(NamedTuple):
    """What a backward pass needs: every block's input, convolution, moments; the features."""

    patches: Patches
    inputs: list[Tensor]  # of the second block on
    convolved: list[Tensor]
    stats: list[Tensor | None]
    features: Tensor  # (B, F); dual: (2, B, F)


@dataclass
class ConvNet:
    """A ConvNet at `params` (P,), and the direction (P,) that they move along."""

    network: Network
    params: Tensor
    direction: Tensor | None
    convolution: Convolution

    def __post_init__(self) -> None:
        options = self.network.options
        assert options is not None
        self.norm = options.norm == "instancenorm"
        side, self.forms = self.network.resolution, []
        for _ in range(options.depth):
            pool = options.pooling == "avgpool" and side >= 4
            self.forms.append(Form(options.activation == "relu", pool))
            side = side // 2 if pool else side
        self.side = side

    @cached_property
    def values(self) -> tuple[list[_Layer], Tensor, Tensor]:
        return self._read(self.params)

    @cached_property
    def tangents(self) -> tuple[list[_Layer], Tensor, Tensor]:
        assert self.direction is not None
        return self._read(self.direction)

    @cached_property
    def operands(self) -> tuple[list[Operands], list[Operands]]:
        """Of the later blocks' convolutions, and of those that they move along, if they do."""
        moving = [] if self.direction is None else self.tangents[0][1:]
        layers = self.values[0][1:]
        found = self.convolution.ready_weights([layer.weight for layer in (*layers, *moving)])
        return found[: len(layers)], found[len(layers) :]

    def _read(self, flat: Tensor) -> tuple[list[_Layer], Tensor, Tensor]:
        """The blocks' layers, and the head's weight (K, F) and bias (K,)."""
        shapes = [shape for _, shape in self.network.shapes]
        sizes = flat.detach().split(self.network.sizes)
        parts = [part.view(shape) for part, shape in zip(sizes, shapes, strict=True)]
        step = 4 if self.norm else 2
        layers = []
        for k in range(0, len(parts) - 2, step):
            weight, bias = parts[k : k + 2]
            # Instance norm takes the convolution's bias away again: it is never added.
            affine = Affine(*parts[k + 2 : k + 4]) if self.norm else Affine(None, bias)
            layers.append(_Layer(weight, bias, affine))
        return layers, parts[-2], parts[-1]

    def forward(self, images: Tensor) -> Activations:
        """Through the blocks and the head: with a direction in dual numbers; images stand still."""
        first, *layers = self.values[0]
        still = self.direction is None
        (first_dot, *moving) = self.tangents[0] if not still else [None] * len(self.forms)
        patches = Patches(images.detach(), self.convolution)
        y = patches.forward([first.weight] + ([first_dot.weight] if first_dot else []))
        y = y[0] if still else y  # (B, H, W, O) or (2, B, H, W, O)
        x, stats = cuda_block.forward(
            y, first.affine, self.forms[0], first_dot and first_dot.affine
        )
        inputs, convolved, moments = [], [y], [stats]
        for k, (layer, along) in enumerate(zip(layers, moving, strict=True)):
            inputs.append(x)
            y = self._convolved(k, x)
            convolved.append(y)
            form = self.forms[k + 1]
            x, stats = cuda_block.forward(y, layer.affine, form, along and along.affine)
            moments.append(stats)
        return Activations(patches, inputs, convolved, moments, self._features(x))

    def logits(self, kept: Activations) -> Tensor:
        """(B, K), without a direction."""
        return self.loss_input(kept)[0].sum(0) + self.values[2]

    def loss_input(self, kept: Activations) -> tuple[Tensor, ...]:
        """The logits as `cuda_loss` takes them: sums and bias; with a direction, both twice."""
        _, head, bias = self.values
        sums = long_products(kept.features.flatten(0, -2), head.T)
        if self.direction is None:
            return sums, bias
        _, head_dot, bias_dot = self.tangents
        moving = long_products(kept.features[0], head_dot.T)
        return sums.unflatten(1, (2, -1)), moving, bias, bias_dot

    def _convolved(self, k: int, x: Tensor) -> Tensor:
        """The convolution of a map, or of a map in dual numbers, by the later block k."""
        product, (weights, moving) = self.convolution, self.operands
        if not moving:
            return product.forward(product.ready(x), weights[k].forward)
        both, count = product.ready(x.flatten(0, 1)), x.shape[1]
        y = product.forward(both, weights[k].forward)
        y[count:].add_(product.forward(both[:count], moving[k].forward))
        return y.view(2, count, *y.shape[1:])

    def by_params(self, kept: Activations, by_logits: Tensor) -> Tensor:
        """Gradient by params (P,) from that by logits."""
        head, aside = self.values[1], Aside(by_logits.device)
        by_head = [(by_logits.T @ kept.features)[None], by_logits]
        found, held = [], []  # what a branch reads stays until it has been joined
        for k, by_x, by_affine in self._backward(kept, by_logits @ head):
            held.append(by_x)
            with aside.branch():
                by_weight = self._by_weight(kept, k, by_x)
            found.append(self._one(by_weight, by_affine))
        aside.join()
        return _gathered(found, by_head)

    def by_images(self, kept: Activations, by_features: Tensor) -> Tensor:
        """Gradient by images (B, C, H, W) from that by features."""
        *_, (_, by_x, _) = self._backward(kept, by_features)
        return kept.patches.by_images([(by_x, self.values[0][0].weight)])

    def _by_weight(self, kept: Activations, k: int, by_x: Tensor) -> Tensor:
        """Summands (S, ...) of the gradient by block k's weight, from that by its convolution."""
        if not k:
            return kept.patches.by_weight(by_x)
        x = kept.inputs[k - 1]
        x = x if self.direction is None else x.flatten(0, 1)
        return self.convolution.by_weight(by_x, x)[None]

    def _backward(
        self, kept: Activations, by_features: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each block's number, and gradients by its convolution and affine map; last first."""
        by_y, (layers, _, _) = self._maps(by_features), self.values
        for k in reversed(range(len(layers))):
            layer = layers[k]
            by_x, by_affine = cuda_block.backward(
                kept.convolved[k], kept.stats[k], layer.affine, by_y, self.forms[k]
            )
            yield k, by_x, by_affine
            if k:
                product, (weights, _) = self.convolution, self.operands
                by_y = product.forward(product.ready(by_x), weights[k - 1].flipped)

    def dual_backward(self, kept: Activations, by_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Tangents of the gradients by params (P,) and images (B, C, H, W).

        `by_logits` (2, B, K): the tangent of the gradient by logits, and that gradient.
        """
        layers, head, _ = self.values
        moving, head_dot, _ = self.tangents
        flat = by_logits.flatten(0, 1)
        by_head_dot = flat.T @ kept.features.flatten(0, 1)  # pairs tangents with values, too
        by_f = (flat @ head).view_as(kept.features)
        by_f[0].addmm_(by_logits[1], head_dot)
        by_y = self._maps(by_f)
        found, held, aside = [], [], Aside(by_logits.device)  # as in `by_params`
        for k in reversed(range(len(layers))):
            layer, along = layers[k], moving[k]
            by_x, by_affine = cuda_block.backward(
                kept.convolved[k], kept.stats[k], layer.affine, by_y, self.forms[k], along.affine
            )
            held.append(by_x)
            with aside.branch():  # pairs tangent adjoints with values, adjoints with tangents
                by_weight = self._by_weight(kept, k, by_x.flatten(0, 1) if k else by_x[0])
            found.append(self._one(by_weight, by_affine))
            if k:
                by_y = self._by_input(k - 1, by_x)
        by_images = kept.patches.by_images(
            [(by_x[0], layers[0].weight), (by_x[1], moving[0].weight)]
        )
        aside.join()
        return _gathered(found, [by_head_dot[None], by_logits[0]]), by_images

    def _by_input(self, k: int, by_x: Tensor) -> Tensor:
        """Adjoints (2, B, H, W, C) of the later block k's input from those of its convolution."""
        product, (weights, moving), count = self.convolution, self.operands, by_x.shape[1]
        both = product.ready(by_x.flatten(0, 1))
        by_y = product.forward(both, weights[k].flipped)
        by_y[:count].add_(product.forward(both[count:], moving[k].flipped))
        return by_y.view(2, count, *by_y.shape[1:])

    def _features(self, x: Tensor) -> Tensor:
        """(..., B, h, w, C) -> (..., B, F), in the order of a map with channels first."""
        return x.movedim(-1, -3).flatten(-3)

    def _maps(self, features: Tensor) -> Tensor:
        """(..., B, F) -> (..., B, h, w, C)."""
        maps: Tensor = features.unflatten(-1, (-1, self.side, self.side))
        return maps.movedim(-3, -1).contiguous()

    def _one(self, by_weight: Tensor, by_affine: Tensor) -> list[Tensor]:
        """A block's gradients, as summands of `flat_sums`."""
        by_scale, by_shift = by_affine.unbind(-1)  # (B, C)
        if self.norm:  # a bias before an instance norm changes nothing
            return [by_weight, by_shift[:0], by_scale, by_shift]
        return [by_weight, by_shift]


def _gathered(blocks: list[list[Tensor]], by_head: list[Tensor]) -> Tensor:
    """The gradient (P,) of the blocks', last first, and the head's."""
    return flat_sums([part for block in blocks[::-1] for part in block] + by_head)
