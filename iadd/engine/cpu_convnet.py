"""The backend of the ConvNet family on the CPU: hand-written C++ passes from csrc/cpu_convnet*.

The source is compiled for float32 and float64 and for three instruction sets, of which the newest
that the processor has is chosen at run time. Results have the same bits for any number of threads.

The tangent is forward over reverse (Pearlmutter 1994) in dual numbers, 3x3 convolutions go by
Winograd F(4x4, 3x3) (Lavin & Gray 2015, arXiv:1509.09308), and norm, ReLU and pool are fused per
image and block of channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iadd import extension
from iadd.engine.base import Backend, Tangent, convnet_config
from iadd.networks import Network

MAX_DEPTH = 8  # kMaxDepth in csrc/cpu_convnet.h


def fits(network: Network, device: torch.device, dtype: torch.dtype) -> bool:
    """A network of the ConvNet family on the CPU, where the extension is built."""
    config = convnet_config(network)
    known = config is not None and config[1] <= MAX_DEPTH
    return known and extension.has_cpu_kernels(device, dtype)


class CpuConvNet(Backend):
    """Passes of a ConvNet in C++.

    Raises:
        ValueError: one that does not fit.
    """

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(network, device, dtype)
        if not fits(network, device, dtype):
            reason = f"it is no ConvNet of the family, or {extension.status()['kernels']}"
            raise ValueError(f"network {network.name!r} has no C++ passes: {reason}")
        self._config = convnet_config(network)
        self._operators = torch.ops.iadd

    @property
    def name(self) -> str:
        return f"cpu-convnet-{extension.status()['cpu kernels']}"

    def gradient(self, params: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        out = torch.empty_like(params, memory_format=torch.contiguous_format)
        loss = self._operators.convnet_gradient(params, images, targets, None, self._config, out)
        return loss, out

    def tangent(
        self, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
    ) -> Tangent:
        out = torch.empty_like(params, memory_format=torch.contiguous_format)
        found = self._operators.convnet_tangent(
            params, images, targets, direction, None, self._config, out
        )
        return Tangent(out, *found)

    def step(
        self,
        params: Tensor,
        images: Tensor,
        targets: Tensor,
        step_size: float,
        out: Tensor | None = None,
    ) -> Tensor:
        out = torch.empty_like(params) if out is None else out
        self._operators.convnet_gradient(params, images, targets, step_size, self._config, out)
        return out

    def step_back(
        self, params: Tensor, images: Tensor, targets: Tensor, step_size: float, adjoint: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_images, by_targets, slope = self._operators.convnet_tangent(
            params, images, targets, adjoint, step_size, self._config, adjoint
        )
        return by_images, by_targets, slope

    def logits(self, params: Tensor, images: Tensor) -> Tensor:
        return self._forward(params, images)[0]

    def embed(self, params: Tensor, images: Tensor) -> Tensor:
        return self._forward(params, images)[1]

    def embed_gradient(self, params: Tensor, images: Tensor, cotangent: Tensor) -> Tensor:
        by_images: Tensor = self._operators.convnet_embed_gradient(
            params, images, cotangent, self.network.classes, self._config
        )
        return by_images

    def _forward(self, params: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = self._operators.convnet_forward(
            params, images, self.network.classes, self._config
        )
        return logits, features
