"""Choosing the backend: which implementation computes a network's passes, decided once a run."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from iadd.engine import cpu_convnet, cuda_convnet
from iadd.engine.autograd import AutogradBackend
from iadd.engine.base import Backend, Tangent, cross_entropy
from iadd.networks import Network

__all__ = ["Backend", "Tangent", "choose_backend", "cross_entropy"]


@lru_cache(maxsize=64)
def choose_backend(
    network: Network, device: torch.device, dtype: torch.dtype = torch.float32
) -> Backend:
    """The fastest backend that computes this network's passes on this device in this dtype.

    The ConvNet family has hand-written passes for CPUs, where the extension is built, and for GPUs;
    everything else, and everything under IADD_KERNELS=reference on a CPU, goes by autograd.
    """
    if cpu_convnet.fits(network, device, dtype):
        return cpu_convnet.CpuConvNet(network, device, dtype)
    if device.type == "cuda" and cuda_convnet.fits(network):
        return cuda_convnet.CudaConvNet(network, device, dtype)
    return AutogradBackend(network, device, dtype)


# Thin wrappers for callers that have no backend yet; they go when everybody has.


def _of(network: Network, params: Tensor) -> Backend:
    return choose_backend(network, params.device, params.dtype)


def path(network: Network, params: Tensor) -> str:
    return _of(network, params).name


def batched(network: Network, params: Tensor) -> bool:
    return _of(network, params).batched


def gradient(
    network: Network, params: Tensor, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    return _of(network, params).gradient(params, images, targets)


def tangent(
    network: Network, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
) -> Tangent:
    return _of(network, params).tangent(params, images, targets, direction)


def logits(network: Network, params: Tensor, images: Tensor) -> Tensor:
    return _of(network, params).logits(params, images)


def embed(network: Network, params: Tensor, images: Tensor) -> Tensor:
    return _of(network, params).embed(params, images)


def embed_gradient(network: Network, params: Tensor, images: Tensor, cotangent: Tensor) -> Tensor:
    return _of(network, params).embed_gradient(params, images, cotangent)


def gradient_reference(
    network: Network, params: Tensor, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    return AutogradBackend(network, params.device, params.dtype).gradient(params, images, targets)
