"""The two passes that all training is made of: a gradient, and its tangent along a direction.

`gradient` is one first-order pass. `tangent` is the mixed Hessian-vector product that the unrolled
engine replays: the derivative of the gradient along a direction in parameter space, and by symmetry
of that inner product, its derivatives with respect to images and targets. The plain reference
below works for every network; the ConvNet family has a native pass on CPUs (`native`) and one for
GPUs (`tangents`), plain networks a native gradient on CPUs (`chain`), all checked against it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.devices import arithmetic
from iadd.engine import chain, cpu_convnet, cuda_convnet
from iadd.networks import Network


class Tangent(NamedTuple):
    """Derivatives of <gradient(theta, x, y), direction>: by theta (P,), x (B, C, H, W), y (B, K).

    `slope` is that inner product () itself.
    """

    params: Tensor
    images: Tensor
    targets: Tensor
    slope: Tensor


class Tape(NamedTuple):
    """A first-order pass whose graph is kept: the gradient (P,), and theta, x and y under it."""

    gradient: Tensor
    leaves: list[Tensor]


def path(network: Network, params: Tensor) -> str:
    """Which implementation runs: `native-<instructions>`, `tangents-cuda-fused`, `autograd`...

    `chain-<instructions>+autograd`: the gradient by the one, the tangent by the other.
    """
    if found := cpu_convnet.path(network, params):
        return found
    if _by_hand(network, params):
        return cuda_convnet.path(network, params)
    if found := chain.path(network, params):
        return f"{found}+autograd"
    rounded = params.is_cuda and network.precision != "float32"
    return f"autograd-{network.precision}" if rounded else "autograd"


def _by_hand(network: Network, params: Tensor) -> bool:
    return params.is_cuda and cuda_convnet.fits(network)


def _arithmetic(network: Network, params: Tensor) -> AbstractContextManager[None]:
    return arithmetic(network.precision, params.device, autocast=not cuda_convnet.fits(network))


def batched(network: Network, params: Tensor) -> bool:
    """Whether `gradient` takes several students at once: (M, P), (M, B, C, H, W), (M, B, K)."""
    return cpu_convnet.path(network, params) is not None or _by_hand(network, params)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Batch mean of -sum_k targets log softmax(logits); targets are probabilities (B, K)."""
    return -(targets * F.log_softmax(logits, 1)).sum(1).mean()


def gradient(
    network: Network, params: Tensor, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss () and its gradient (P,) at parameters (P,) on images (B, C, H, W), targets (B, K)."""
    if cpu_convnet.path(network, params):
        return cpu_convnet.gradient(network, params, images, targets)
    if chain.path(network, params):
        return chain.gradient(network, params, images, targets)
    with _arithmetic(network, params):
        if _by_hand(network, params):
            return cuda_convnet.gradient(network, params, images, targets)
        return gradient_reference(network, params, images, targets)


def tangent(
    network: Network, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
) -> Tangent:
    """The mixed Hessian-vector product at (params, images, targets) in `direction` (P,)."""
    if cpu_convnet.path(network, params):
        return Tangent(*cpu_convnet.tangent(network, params, images, targets, direction))
    with _arithmetic(network, params):
        if _by_hand(network, params):
            return Tangent(*cuda_convnet.tangent(network, params, images, targets, direction))
        return tangent_reference(network, params, images, targets, direction)


def step(
    network: Network,
    params: Tensor,
    images: Tensor,
    targets: Tensor,
    rate: float,
    carry: Tensor,
    into: Tensor | None = None,
) -> Tensor:
    """Parameters (P,) after a step of SGD, in `into` if given; `carry` is as in `advance`."""
    if cpu_convnet.path(network, params):
        into = torch.empty_like(params) if into is None else into
        cpu_convnet.step(network, params, images, targets, rate, carry, into)
        return into
    _, grad = gradient(network, params, images, targets)
    return advance(params, grad, rate, carry, into)


def advance(
    params: Tensor,
    grad: Tensor,
    rate: float | Tensor,
    carry: Tensor,
    into: Tensor | None = None,
) -> Tensor:
    """params - rate * grad (P,), in `into` if given: one of many steps added up as if unrounded.

    `carry` (P,) begins as zeros. It holds what rounding took off the steps before, is added to this
    one, and takes up what rounding takes off it (Kahan 1965, doi:10.1145/363707.363723).
    """
    if isinstance(rate, Tensor):
        carry.addcmul_(rate, grad, value=-1)
    else:
        carry.sub_(grad, alpha=rate)
    end = torch.add(params, carry, out=into)
    carry.sub_(end - params)
    return end


def pull(
    network: Network, params: Tensor, images: Tensor, targets: Tensor, rate: float, adjoint: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take `adjoint` (P,) back through a step: it moves by -rate times its tangent, in place.

    Returns the tangent's other parts: by images, by targets, and the slope.
    """
    if cpu_convnet.path(network, params):
        return cpu_convnet.pull(network, params, images, targets, rate, adjoint)
    h = tangent(network, params, images, targets, adjoint)
    adjoint.sub_(h.params, alpha=rate)
    return h.images, h.targets, h.slope


def logits(network: Network, params: Tensor, images: Tensor) -> Tensor:
    """Logits (B, K), outside autograd."""
    if cpu_convnet.path(network, params):
        return cpu_convnet.forward(network, params, images)[0]
    if chain.path(network, params):
        return chain.forward(network, params, images)
    with torch.no_grad(), _arithmetic(network, params):
        if _by_hand(network, params):
            return cuda_convnet.forward(network, params, images)[0]
        return network.apply(params, images)


def embed(network: Network, params: Tensor, images: Tensor) -> Tensor:
    """Features (B, F) before the classifier, outside autograd."""
    if cpu_convnet.path(network, params):
        return cpu_convnet.forward(network, params, images)[1]
    with torch.no_grad(), _arithmetic(network, params):
        if _by_hand(network, params):
            return cuda_convnet.forward(network, params, images)[1]
        return network.embed(params, images)


def embed_gradient(network: Network, params: Tensor, images: Tensor, cotangent: Tensor) -> Tensor:
    """Gradient by the images (B, C, H, W) of <features, cotangent (B, F)>."""
    if cpu_convnet.path(network, params):
        _, by_images = cpu_convnet.pull_back(
            network, params, images, cotangent, at_features=True, need_params=False
        )
        assert by_images is not None
        return by_images
    with torch.enable_grad(), _arithmetic(network, params):
        if _by_hand(network, params):
            return cuda_convnet.pull_back(network, params, images, cotangent)
        leaf = images.detach().requires_grad_()
        (by_images,) = torch.autograd.grad(network.embed(params, leaf), leaf, cotangent)
    return by_images


def gradient_reference(
    network: Network, params: Tensor, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """`gradient` by autograd, for any network, dtype and device."""
    with torch.enable_grad():
        leaf = params.detach().requires_grad_()
        loss = cross_entropy(network.apply(leaf, images.detach()), targets)
        (grad,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), grad


def tangent_reference(
    network: Network, params: Tensor, images: Tensor, targets: Tensor, direction: Tensor
) -> Tangent:
    """`tangent` by reverse over reverse, for any network, dtype and device."""
    return _pull(_record(network, params, images, targets), direction)


def taped(network: Network, params: Tensor) -> bool:
    """Whether the passes are autograd's, so that a `Tape` saves `tangent` its first-order pass."""
    return cpu_convnet.path(network, params) is None and not _by_hand(network, params)


def record(network: Network, params: Tensor, images: Tensor, targets: Tensor) -> Tape:
    """`gradient` with its graph, by autograd."""
    with _arithmetic(network, params):
        return _record(network, params, images, targets)


def pull_tape(
    network: Network, tape: Tape, rate: float, adjoint: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`pull` through the step where `tape` was recorded; frees the tape's graph."""
    with _arithmetic(network, adjoint):
        h = _pull(tape, adjoint)
    adjoint.sub_(h.params, alpha=rate)
    return h.images, h.targets, h.slope


def _record(network: Network, params: Tensor, images: Tensor, targets: Tensor) -> Tape:
    with torch.enable_grad():
        leaves = [z.detach().requires_grad_() for z in (params, images, targets)]
        loss = cross_entropy(network.apply(leaves[0], leaves[1]), leaves[2])
        (grad,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
    return Tape(grad, leaves)


def _pull(tape: Tape, direction: Tensor) -> Tangent:
    slope = torch.dot(tape.gradient.detach(), direction)
    h, h_images, h_targets = torch.autograd.grad(tape.gradient, tape.leaves, direction.detach())
    return Tangent(h, h_images, h_targets, slope)


@lru_cache(maxsize=64)
def tape_bytes(
    network: Network, images: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> int:
    """What a `Tape` on images of shape (B, C, H, W) keeps: found by recording one on blanks."""
    kept: dict[int, int] = {}

    def weigh(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return saved.detach()  # the tensor itself would keep its own node alive, for ever

    params = torch.zeros(network.num_parameters, dtype=dtype, device=device)
    targets = params.new_zeros(images[0], network.classes)
    with torch.autograd.graph.saved_tensors_hooks(weigh, lambda saved: saved):
        tape = record(network, params, params.new_zeros(images), targets)
    return sum(kept.values()) + tape.gradient.nbytes
