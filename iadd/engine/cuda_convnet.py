"""The backend of the ConvNet family on GPUs: gradient and tangent written out in tensor operations.

No double backward and no graph, but a short fixed list of launches, which a CUDA graph can hold for
a whole unroll. The tangent is forward over reverse (Pearlmutter 1994) in dual numbers. It runs on
CPUs too, where tests compare it with autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property, reduce

import torch
from torch import Tensor

from iadd.devices import arithmetic
from iadd.engine import cuda_block
from iadd.engine.base import Backend, Tangent, joined, parts
from iadd.engine.cuda_loss import cross_entropy, cross_entropy_dual
from iadd.engine.cuda_passes import ConvNet
from iadd.engine.cuda_products import Convolution

CHUNK_PIXELS = 200 * 32 * 32
"""Of a batch that is taken at once: 200 images of CIFAR's size fill a card, more only take memory,
and cuDNN chooses slower algorithms for them. Of dual numbers, which are two maps, half as many."""


class CudaConvNet(Backend):
    """Passes of a ConvNet."""

    @property
    def name(self) -> str:
        options, precision = self.network.options, self.network.precision
        normed = options is not None and options.norm == "instancenorm"
        fused = "-fused" if normed and cuda_block.fused(self.device) else ""
        return f"cuda-convnet{fused}" + ("" if precision == "float32" else f"-{precision}")

    @cached_property
    def convolution(self) -> Convolution:
        """Float32 in parts on a GPU; elsewhere, and in float64, as it is."""
        precision, single = self.network.precision, self.dtype == torch.float32
        parts = precision == "float32" and single and self.device.type == "cuda"
        return Convolution(precision, parts)

    @torch.no_grad()
    def gradient(self, params: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        net, count, found = self._net(params), len(images), []
        with self._arithmetic():
            for seen, labels in parts(CHUNK_PIXELS, images, targets):
                kept = net.forward(seen)
                sums, bias = net.loss_input(kept)
                losses, by_logits = cross_entropy(sums, bias, labels, count)
                found.append((losses.sum(), net.by_params(kept, by_logits)))
        loss, by_params = (_sum(each) for each in zip(*found, strict=True))
        return loss, by_params

    @torch.no_grad()
    def tangent(
        self, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
    ) -> Tangent:
        net, count, found = self._net(params, direction), len(images), []
        with self._arithmetic():
            for seen, labels in parts(CHUNK_PIXELS // 2, images, targets):
                kept = net.forward(seen)
                sums, moving, bias, bias_dot = net.loss_input(kept)
                dual = cross_entropy_dual(sums, moving, bias, bias_dot, labels, count)
                by_params, by_images = net.dual_backward(kept, dual.by_logits)
                found.append((by_params, by_images, dual.by_targets, dual.slopes.sum()))
        every = list(zip(*found, strict=True))  # by params, images, targets; slopes
        return Tangent(_sum(every[0]), joined(every[1]), joined(every[2]), _sum(every[3]))

    @torch.no_grad()
    def logits(self, params: Tensor, images: Tensor) -> Tensor:
        net = self._net(params)
        with self._arithmetic():
            return net.logits(net.forward(images))

    @torch.no_grad()
    def embed(self, params: Tensor, images: Tensor) -> Tensor:
        net = self._net(params)
        with self._arithmetic():
            return joined([net.forward(part).features for (part,) in self._parts(images)])

    @torch.no_grad()
    def embed_gradient(self, params: Tensor, images: Tensor, cotangent: Tensor) -> Tensor:
        net = self._net(params)
        with self._arithmetic():
            pairs = self._parts(images, cotangent)
            return joined([net.by_images(net.forward(part), along) for part, along in pairs])

    def _net(self, params: Tensor, direction: Tensor | None = None) -> ConvNet:
        return ConvNet(self.network, params, direction, self.convolution)

    def _arithmetic(self) -> AbstractContextManager[None]:
        # The passes round to bf16 themselves.
        return arithmetic(self.network.precision, self.device, autocast=False)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, parts)
