"""The backend of the ConvNet family on the CPU: hand-written C++ passes from csrc/cpu_convnet*.

The source is compiled for float32 and float64 and for three instruction sets, of which the newest
that the processor has is chosen at run time. Results have the same bits for any number of threads.

The tangent is forward over reverse (Pearlmutter 1994) in dual numbers, 3x3 convolutions go by
Winograd F(4x4, 3x3) (Lavin & Gray 2015, arXiv:1509.09308), and norm, ReLU and pool are fused per
image and block of channels.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from iadd import extension
from iadd.engine.base import Backend, Tangent
from iadd.networks import Network

MAX_DEPTH = 8  # kMaxDepth in csrc/cpu_convnet.h


@cache
def unavailable() -> str | None:
    """Why the C++ passes cannot run in this process, in one line; None if they can.

    IADD_KERNELS=reference turns them off, with every other kernel. IADD_ISA=avx2 or generic keeps
    them from the newer instructions that the processor has.
    """
    status = extension.status()
    if "extension" not in status:
        return status["kernels"]
    if not hasattr(torch.ops.iadd, "convnet_gradient"):
        return f"{status['extension']} was built without the ConvNet passes"
    return None


@cache
def _config(network: Network) -> list[int] | None:
    """The operators' description of a network, or None outside the family."""
    options = network.options
    if options is None or network.architecture != "convnet" or options.depth > MAX_DEPTH:
        return None
    try:
        norm = ("nonorm", "instancenorm").index(options.norm)
        relu = ("linear", "relu").index(options.activation)
        pool = ("nopool", "avgpool").index(options.pooling)
    except ValueError:
        return None
    return [options.width, options.depth, norm, relu, pool]


def fits(network: Network, device: torch.device, dtype: torch.dtype) -> bool:
    """A ConvNet with instance norm or none, ReLU or none, average pooling or none, on the CPU."""
    return (
        device.type == "cpu"
        and dtype in (torch.float32, torch.float64)
        and _config(network) is not None
        and unavailable() is None
    )


class CpuConvNet(Backend):
    """Passes of a ConvNet in C++.

    Raises:
        ValueError: a network outside the family, or the extension is not there.
    """

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(network, device, dtype)
        config = _config(network)
        if config is None or unavailable():
            reason = unavailable() or "it is no ConvNet of the family"
            raise ValueError(f"network {network.name!r} has no C++ passes: {reason}")
        self._config = config
        self._operators = torch.ops.iadd

    @property
    def name(self) -> str:
        return f"cpu-convnet-{instruction_set()}"

    def gradient(self, params: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = self._operators.convnet_gradient(params, images, targets, self._config)
        return loss, gradient

    def tangent(
        self, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
    ) -> Tangent:
        found = self._operators.convnet_tangent(params, images, targets, direction, self._config)
        return Tangent(*found)

    def step(
        self,
        params: Tensor,
        images: Tensor,
        targets: Tensor,
        step_size: float,
        out: Tensor | None = None,
    ) -> Tensor:
        out = torch.empty_like(params) if out is None else out
        self._operators.convnet_step(params, images, targets, step_size, self._config, out)
        return out

    def step_back(
        self, params: Tensor, images: Tensor, targets: Tensor, step_size: float, adjoint: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_images, by_targets, slope = self._operators.convnet_step_back(
            params, images, targets, step_size, self._config, adjoint
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


@cache
def instruction_set() -> str:
    """The newest that the processor has a build for: avx512, avx2 or generic."""
    return str(torch.ops.iadd.convnet_isa())
