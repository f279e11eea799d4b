"""The backend of the ConvNet family on GPUs: gradient and tangent written out in tensor operations.

No double backward and no graph, but a short fixed list of launches, which a CUDA graph can hold for
a whole unroll. The tangent is forward over reverse (Pearlmutter 1994) in dual numbers. It runs on
CPUs too, where tests compare it with autograd.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.devices import arithmetic
from iadd.engine import cuda_block
from iadd.engine.base import Backend, Tangent
from iadd.engine.cuda_passes import ConvNet
from iadd.engine.cuda_products import Convolution


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
        split = precision == "float32" and single and self.device.type == "cuda"
        return Convolution(split, torch.bfloat16 if precision == "bf16" else None)

    @torch.no_grad()
    def gradient(self, params: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        net = self._net(params)
        with self._arithmetic():
            kept = net.forward(images)
            log_p = F.log_softmax(kept.logits, 1)  # (B, K)
            loss = -(targets * log_p).sum() / len(log_p)
            by_logits = (log_p.exp() * targets.sum(1, keepdim=True) - targets) / len(log_p)
            return loss, net.by_params(kept, by_logits)

    @torch.no_grad()
    def tangent(
        self, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
    ) -> Tangent:
        net = self._net(params, direction)
        with self._arithmetic():
            kept = net.forward(images)
            logits, along = kept.logits  # (B, K) each
            p, count, mass = logits.softmax(1), len(logits), targets.sum(1, keepdim=True)
            by_logits = (p * mass - targets) / count
            centred = along - (p * along).sum(1, keepdim=True)
            slope = (by_logits * along).sum()
            by_params, by_images = net.dual_backward(kept, p * centred * mass / count, by_logits)
        return Tangent(by_params, by_images, centred / -count, slope)

    def logits(self, params: Tensor, images: Tensor) -> Tensor:
        return self._forward(params, images)[0]

    def embed(self, params: Tensor, images: Tensor) -> Tensor:
        return self._forward(params, images)[1]

    @torch.no_grad()
    def embed_gradient(self, params: Tensor, images: Tensor, cotangent: Tensor) -> Tensor:
        net = self._net(params)
        with self._arithmetic():
            return net.by_images(net.forward(images), cotangent)

    @torch.no_grad()
    def _forward(self, params: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        with self._arithmetic():
            kept = self._net(params).forward(images)
        return kept.logits, kept.features

    def _net(self, params: Tensor, direction: Tensor | None = None) -> ConvNet:
        return ConvNet(self.network, params, direction, self.convolution)

    def _arithmetic(self) -> AbstractContextManager[None]:
        # The passes round to bf16 themselves; operands in parts are TF32 already.
        precision = "parts" if self.convolution.split else self.network.precision
        return arithmetic(precision, self.device, autocast=False)
