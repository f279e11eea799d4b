"""The reference backend: PyTorch's autograd, for any network, dtype and device."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from iadd.devices import arithmetic
from iadd.engine.base import Backend, Tangent, cross_entropy, joined
from iadd.networks import Statistics


class AutogradBackend(Backend):
    """Every pass by autograd; the tangent by reverse over reverse."""

    @property
    def name(self) -> str:
        rounded = self.device.type == "cuda" and self.network.precision != "float32"
        return f"autograd-{self.network.precision}" if rounded else "autograd"

    def gradient(self, params: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), self._arithmetic():
            leaf = params.detach().requires_grad_()
            loss = cross_entropy(self.network.apply(leaf, images.detach()), targets.detach())
            (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    def tangent(
        self, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
    ) -> Tangent:
        with torch.enable_grad(), self._arithmetic():
            leaves = [z.detach().requires_grad_() for z in (params, images, targets)]
            loss = cross_entropy(self.network.apply(leaves[0], leaves[1]), leaves[2])
            (gradient,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
            h, by_images, by_targets = torch.autograd.grad(gradient, leaves, direction.detach())
        return Tangent(h, by_images, by_targets, torch.dot(gradient.detach(), direction))

    def logits(self, params: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad(), self._arithmetic():
            return self.network.apply(params, images)

    def embed(self, params: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad(), self._arithmetic():
            found = [self.network.embed(params, part) for (part,) in self._parts(images)]
        return joined(found)

    def embed_gradient(self, params: Tensor, images: Tensor, cotangent: Tensor) -> Tensor:
        found: list[Tensor] = []
        for part, along in self._parts(images, cotangent):
            with torch.enable_grad(), self._arithmetic():
                leaf = part.detach().requires_grad_()
                features = self.network.embed(params.detach(), leaf)
                found += torch.autograd.grad(features, leaf, along)
        return joined(found)

    def batch_statistics(self, params: Tensor, images: Tensor) -> Statistics:
        """Mean and variance at every batch norm over images (B, C, H, W), for `Network.fixed`.

        Nothing is rounded to bf16, of which long sums would make little.
        """
        with torch.no_grad(), arithmetic(self.network.precision, self.device, autocast=False):
            return self.network.batch_statistics(params, images)

    def _arithmetic(self) -> AbstractContextManager[None]:
        return arithmetic(self.network.precision, self.device, autocast=True)
