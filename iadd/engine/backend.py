"""Choosing the backend: which implementation computes a network's passes, decided once a run."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from iadd.engine import cpu_convnet, cuda_convnet
from iadd.engine.autograd import AutogradBackend
from iadd.engine.base import Backend, Tangent, convnet_config, cross_entropy
from iadd.networks import Network, Statistics

__all__ = ["Backend", "Tangent", "backend_under", "choose_backend", "cross_entropy"]


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
    if device.type == "cuda" and convnet_config(network):
        return cuda_convnet.CudaConvNet(network, device, dtype)
    return AutogradBackend(network, device, dtype)


def backend_under(statistics: Statistics | None, network: Network, params: Tensor) -> Backend:
    """What computes the passes of parameters (P,); batch norms by `statistics` where given."""
    if statistics is None:
        return choose_backend(network, params.device, params.dtype)
    return AutogradBackend(network.fixed(statistics), params.device, params.dtype)
