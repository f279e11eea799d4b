"""The native passes of the ConvNet family: gradient, tangent, forward and pull-back on the CPU.

Built from `csrc/` into `iadd/_C*.so`. One text serves float32 and float64 and three instruction
sets, chosen at run time. Results are bit-identical for any number of threads. Nothing here is
recorded by autograd: callers hand over plain tensors and get plain tensors.

Forward over reverse (Pearlmutter 1994) in dual numbers, 3x3 convolutions by Winograd F(4x4, 3x3)
(Lavin & Gray 2015, arXiv:1509.09308), norm, ReLU and pool fused per image and channel block.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from iadd import extension
from iadd.networks import Network

MAX_DEPTH = 8  # kMaxDepth in csrc/convnet.h


@cache
def unavailable() -> str | None:
    """Why the native passes cannot run in this process, in one line; None if they can.

    IADD_KERNELS=reference turns them off, with every other kernel. IADD_ISA=avx2 or generic keeps
    them from the newer instructions that the processor has.
    """
    status = extension.status()
    if "extension" not in status:
        return status["kernels"]
    if not hasattr(torch.ops.iadd, "convnet_gradient"):
        return f"{status['extension']} was built without the ConvNet passes"
    return None


def takes(params: Tensor) -> bool:
    """Whether native passes take such parameters: float32 or float64 on the CPU, where built."""
    return extension.has_cpu_kernels(params) and unavailable() is None


@cache
def _config(network: Network) -> list[int] | None:
    """The operators' description of a network, or None outside the family."""
    options = network.options
    if network.architecture != "convnet" or options.depth > MAX_DEPTH:
        return None
    try:
        norm = ("nonorm", "instancenorm").index(options.norm)
        relu = ("linear", "relu").index(options.activation)
        pool = ("nopool", "avgpool").index(options.pooling)
    except ValueError:
        return None
    return [options.width, options.depth, norm, relu, pool]


def path(network: Network, params: Tensor) -> str | None:
    """Name of the native path for parameters like these, `native-<instruction set>`; None if none.

    A ConvNet with instance norm or none, ReLU or none, average pooling or none, in float32 or
    float64 on the CPU.
    """
    if not takes(params) or _config(network) is None:
        return None
    return f"native-{instruction_set()}"


@cache
def instruction_set() -> str:
    """The newest that the processor has a build for: avx512, avx2 or generic."""
    return str(torch.ops.iadd.convnet_isa())


def _known(network: Network) -> list[int]:
    config = _config(network)
    if config is None or unavailable():
        raise ValueError(f"network {network.name!r} has no native pass here: {unavailable()}")
    return config


def gradient(
    network: Network, params: Tensor, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean soft-target cross-entropy () and its gradient (P,).

    Args:
        params: (P,), or (M, P) for M students; every result then has a leading M.
        images: (B, C, H, W) for all students or (M, B, C, H, W).
        targets: probabilities (B, K) or (M, B, K).
    """
    config = _known(network)  # first: it loads the operators
    loss, grad = torch.ops.iadd.convnet_gradient(params, images, targets, config)
    return loss, grad


def tangent(
    network: Network, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Derivatives of <gradient, direction> by params (P,), images (B, C, H, W), targets (B, K).

    Shapes as in `gradient`; `direction` is like `params`. The last is <gradient, direction> itself.
    """
    config = _known(network)
    h, h_images, h_targets, slope, _ = torch.ops.iadd.convnet_tangent(
        params, images, targets, direction, config
    )
    return h, h_images, h_targets, slope


def step(
    network: Network,
    params: Tensor,
    images: Tensor,
    targets: Tensor,
    rate: float,
    carry: Tensor,
    into: Tensor,
) -> None:
    """Parameters after a step, params - rate * gradient, in `into` (P,), which may be `params`.

    `carry` (P,) is as in `passes.advance`.
    """
    config = _known(network)
    torch.ops.iadd.convnet_step(params, images, targets, rate, config, carry, into)


def pull(
    network: Network, params: Tensor, images: Tensor, targets: Tensor, rate: float, adjoint: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`tangent` along `adjoint` (P,), which moves by -rate times the first part, in place."""
    config = _known(network)
    h_images, h_targets, slope, _ = torch.ops.iadd.convnet_pull(
        params, images, targets, rate, config, adjoint
    )
    return h_images, h_targets, slope


def forward(network: Network, params: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and the embedding before the head (B, F); a leading M as in `gradient`."""
    config = _known(network)
    logits, features = torch.ops.iadd.convnet_forward(params, images, network.classes, config)
    return logits, features


def pull_back(
    network: Network,
    params: Tensor,
    images: Tensor,
    cotangent: Tensor,
    *,
    at_features: bool = False,
    need_params: bool = True,
    need_images: bool = True,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by params (P,) and images (B, C, H, W) of <logits, cotangent>.

    Args:
        cotangent: (B, K), or (B, F) of the embedding with `at_features`.
        need_params, need_images: what to compute; the other is None.
    """
    config = _known(network)
    needs = (at_features, need_params, need_images)
    by_params, by_images = torch.ops.iadd.convnet_backward(
        params, images, cotangent, network.classes, *needs, config
    )
    return (by_params if need_params else None), (by_images if need_images else None)
