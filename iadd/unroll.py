"""The engine: J student steps on synthetic images and the exact gradient through all of them.

The usual way keeps the autograd graph of every step. Here only the parameters theta_t are kept, and
the steps are replayed backwards with one mixed Hessian-vector product each:

    lambda_J = dL/dtheta_J
    h = tangent of the gradient at (theta_t, x_t, y_t) along lambda_{t+1}
    dL/dx_t = -alpha h_x,   dL/dy_t = -alpha h_y,   dL/dalpha -= <g_t, lambda_{t+1}>
    lambda_t = lambda_{t+1} - alpha h_theta

This is the exact gradient, for any network and any
differentiable augmentation, in memory O(J P) plus one step; O(sqrt(J) P) with checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from iadd import graphs, passes
from iadd.augment import Draw, augment
from iadd.networks import Network

Endpoint = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps the student's end point (P,) to the loss () and its gradient (P,)."""

MODES = ("auto", "replay", "captured", "checkpoint", "graph")
REPLAY_BYTES = 2 << 30
"""Trajectories of students larger than this are checkpointed in mode `auto`."""


@dataclass(frozen=True)
class Step:
    """What one student step sees: rows of the synthetic set (None: all) and their augmentation."""

    rows: Tensor | None
    draw: Draw | None


class Unrolled(NamedTuple):
    """The end-point loss and its exact gradients; `end` is theta_J (P,); `path` says what ran."""

    loss: Tensor
    images: Tensor
    targets: Tensor
    step_size: Tensor
    end: Tensor
    path: str


def draw_steps(
    count: int,
    size: int,
    batch: int | None,
    families: Callable[[int], Draw | None],
    generator: torch.Generator,
) -> list[Step]:
    """Choose `count` student steps over `size` images: full batches, or minibatches of `batch`.

    Minibatches are drawn without replacement and refilled when too few rows are left. `families`
    draws an augmentation for a number of images.
    """
    steps: list[Step] = []
    queue = torch.empty(0, dtype=torch.long)
    for _ in range(count):
        rows = None
        if batch is not None and batch < size:
            if len(queue) < batch:
                queue = torch.randperm(size, generator=generator)
            rows, queue = queue[:batch], queue[batch:]
        steps.append(Step(rows, families(size if rows is None else len(rows))))
    return steps


def unroll(
    network: Network,
    start: Tensor,
    images: Tensor,
    targets: Tensor,
    step_size: float | Tensor,
    steps: Sequence[Step],
    endpoint: Endpoint,
    mode: str = "auto",
) -> Unrolled:
    """Train a student from `start` for `len(steps)` SGD steps; differentiate `endpoint` through it.

    Args:
        network: any network of the house.
        start: parameters (P,) that the student begins with.
        images: synthetic images (N, C, H, W).
        targets: label probabilities (N, K).
        step_size: the student's learning rate alpha > 0.
        steps: what each step sees.
        endpoint: the loss at theta_J with its gradient; called once.
        mode: `replay` keeps theta_t for all t; `checkpoint` every sqrt(J)-th and recomputes the
            rest; `graph` is plain autograd through the unroll; `captured` is `replay` over fixed
            buffers, on a GPU as CUDA graphs; `auto` is `captured` on a GPU and `replay` elsewhere,
            with checkpoints where the trajectory would not fit in `REPLAY_BYTES`.

    Raises:
        ValueError: an unknown mode, or no steps.
    """
    if mode not in MODES:
        raise ValueError(f"unroll mode {mode!r}: allowed are {', '.join(MODES)}")
    if not steps:
        raise ValueError("unroll: 0 student steps; at least 1 is needed")
    alpha = torch.as_tensor(step_size, dtype=start.dtype, device=start.device)
    if mode == "graph":
        return _graph(network, start, images, targets, alpha, steps, endpoint)
    rate = float(alpha)
    if mode == "captured" or (mode == "auto" and start.is_cuda):
        glances = [(step.rows, step.draw) for step in steps]
        found = graphs.replay(
            network, start, images, targets, rate, glances, endpoint, REPLAY_BYTES
        )
        if found:
            return Unrolled(*found)
        mode = "auto"
    trajectory_bytes = (len(steps) + 1) * start.numel() * start.element_size()
    if mode == "auto":
        mode = "checkpoint" if trajectory_bytes > REPLAY_BYTES else "replay"
    stride = math.isqrt(len(steps) - 1) + 1 if mode == "checkpoint" else 1
    return _replay(network, start, images, targets, rate, steps, endpoint, stride)


def _see(images: Tensor, targets: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    if step.rows is not None:
        images, targets = images[step.rows], targets[step.rows]
    return augment(images, step.draw), targets


def _advance(
    network: Network, params: Tensor, images: Tensor, targets: Tensor, rate: float, step: Step
) -> Tensor:
    with torch.no_grad():
        seen, labels = _see(images, targets, step)
        _, grad = passes.gradient(network, params, seen, labels)
        return torch.sub(params, grad, alpha=rate)  # one pass over memory


def _replay(
    network: Network,
    start: Tensor,
    images: Tensor,
    targets: Tensor,
    rate: float,
    steps: Sequence[Step],
    endpoint: Endpoint,
    stride: int,
) -> Unrolled:
    """Forward keeping every `stride`-th theta, then backwards segment by segment."""
    images, targets, params = images.detach(), targets.detach(), start.detach()
    kept = []
    for t, step in enumerate(steps):
        if t % stride == 0:
            kept.append(params)
        params = _advance(network, params, images, targets, rate, step)
    end = params
    loss, adjoint = endpoint(end)
    adjoint = adjoint.clone()  # updated in place below
    grad_images, grad_targets = torch.zeros_like(images), torch.zeros_like(targets)
    grad_alpha = start.new_zeros(())
    for segment in range(len(kept) - 1, -1, -1):
        first = segment * stride
        last = min(first + stride, len(steps))
        trajectory = [kept.pop()]
        for step in steps[first : last - 1]:
            trajectory.append(_advance(network, trajectory[-1], images, targets, rate, step))
        for step in reversed(steps[first:last]):
            params = trajectory.pop()
            seen, labels = _see(images, targets, step)
            h = passes.tangent(network, params, seen, labels, adjoint)
            _accumulate(grad_images, grad_targets, images, step, h, rate)
            grad_alpha -= h.slope
            adjoint.sub_(h.params, alpha=rate)
    path = f"replay/{stride} " if stride > 1 else "replay "
    return Unrolled(
        loss.detach(),
        grad_images,
        grad_targets,
        grad_alpha,
        end,
        path + passes.path(network, start),
    )


def _accumulate(
    grad_images: Tensor,
    grad_targets: Tensor,
    images: Tensor,
    step: Step,
    h: passes.Tangent,
    rate: float,
) -> None:
    """Pull one step's derivatives back through its augmentation and rows, and add them."""
    h_images = h.images
    source = images if step.rows is None else images[step.rows]
    if step.draw is not None:
        with torch.enable_grad():
            leaf = source.detach().requires_grad_()
            (h_images,) = torch.autograd.grad(augment(leaf, step.draw), leaf, h_images)
    if step.rows is None:
        grad_images.sub_(h_images, alpha=rate)
        grad_targets.sub_(h.targets, alpha=rate)
    else:
        grad_images.index_add_(0, step.rows, h_images, alpha=-rate)
        grad_targets.index_add_(0, step.rows, h.targets, alpha=-rate)


def _graph(
    network: Network,
    start: Tensor,
    images: Tensor,
    targets: Tensor,
    alpha: Tensor,
    steps: Sequence[Step],
    endpoint: Endpoint,
) -> Unrolled:
    """Plain autograd through the unroll: the reference for the replay, and its equal on small J."""
    with torch.enable_grad():
        leaves = [z.detach().requires_grad_() for z in (images, targets, alpha)]
        params = start.detach().requires_grad_()
        for step in steps:
            seen, labels = _see(leaves[0], leaves[1], step)
            loss = passes.cross_entropy(network.apply(params, seen), labels)
            (grad,) = torch.autograd.grad(loss, params, create_graph=True)
            params = params - leaves[2] * grad
        loss, adjoint = endpoint(params.detach())
        by_images, by_targets, by_alpha = torch.autograd.grad(params, leaves, adjoint)
    return Unrolled(
        loss.detach(), by_images, by_targets, by_alpha, params.detach(), "graph autograd"
    )
