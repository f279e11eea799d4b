"""The backend of the ConvNet family on GPUs: gradient and tangent written out in tensor operations.

No double backward and no graph, but a short fixed list of launches, which a CUDA graph can hold for
a whole unroll. The tangent is forward over reverse (Pearlmutter 1994) in dual numbers. It runs on
CPUs too, where tests compare it with autograd.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.devices import arithmetic
from iadd.engine import cuda_block
from iadd.engine.base import Backend, Tangent
from iadd.engine.cuda_passes import ConvNets


class CudaConvNet(Backend):
    """Passes of a ConvNet; every one takes a leading M of many networks: parameters (M, P).

    Images, targets and cotangents are (B, ...) for all networks or (M, B, ...).
    """

    batched = True

    @property
    def name(self) -> str:
        options, precision = self.network.options, self.network.precision
        normed = options is not None and options.norm == "instancenorm"
        fused = "-fused" if normed and cuda_block.fused(self.device) else ""
        return f"cuda-convnet{fused}" + ("" if precision == "float32" else f"-{precision}")

    @torch.no_grad()
    def gradient(self, params: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        nets = ConvNets(self.network, params)
        with self._arithmetic():
            kept = nets.forward(images)
            log_p = F.log_softmax(kept.logits, 2)  # (M, B, K)
            targets = targets.expand_as(log_p)
            count = log_p.shape[1]
            loss = -(targets * log_p).sum((1, 2)) / count
            by_logits = (log_p.exp() * targets.sum(2, keepdim=True) - targets) / count
            by_params = nets.by_params(kept, by_logits)
        return nets.squeeze(loss), nets.squeeze(by_params)

    @torch.no_grad()
    def tangent(
        self, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
    ) -> Tangent:
        nets = ConvNets(self.network, params, direction)
        with self._arithmetic():
            kept = nets.forward(images)
            logits, along = kept.logits  # (M, B, K) each
            log_p = F.log_softmax(logits, 2)
            targets = targets.expand_as(log_p)
            p, count, mass = log_p.exp(), log_p.shape[1], targets.sum(2, keepdim=True)
            by_logits = (p * mass - targets) / count
            centred = along - (p * along).sum(2, keepdim=True)
            slope = (by_logits * along).sum((1, 2))
            by_params, by_images = nets.dual_backward(kept, p * centred * mass / count, by_logits)
        found = (by_params, by_images, centred / -count, slope)
        return Tangent(*(nets.squeeze(z) for z in found))

    def logits(self, params: Tensor, images: Tensor) -> Tensor:
        return self._forward(params, images)[0]

    def embed(self, params: Tensor, images: Tensor) -> Tensor:
        return self._forward(params, images)[1]

    @torch.no_grad()
    def embed_gradient(self, params: Tensor, images: Tensor, cotangent: Tensor) -> Tensor:
        nets = ConvNets(self.network, params)
        with self._arithmetic():
            kept = nets.forward(images)
            by_images = nets.by_images(kept, cotangent.expand_as(kept.features))
        return nets.squeeze(by_images)

    @torch.no_grad()
    def _forward(self, params: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        nets = ConvNets(self.network, params)
        with self._arithmetic():
            kept = nets.forward(images)
        return nets.squeeze(kept.logits), nets.squeeze(kept.features)

    def _arithmetic(self) -> AbstractContextManager[None]:
        # The passes round to bf16 themselves, at the convolutions.
        return arithmetic(self.network.precision, self.device, autocast=False)
