"""The engine: J student steps on synthetic images and the exact gradient through all of them.

The usual way keeps the autograd graph of every step. Here only the parameters theta_t are kept, and
the steps are replayed backwards with one mixed Hessian-vector product each:

    lambda_J = dL/dtheta_J
    h = tangent of the gradient at (theta_t, x_t, y_t) along lambda_{t+1}
    dL/dx_t = -alpha h_x,   dL/dy_t = -alpha h_y,   dL/dalpha -= <g_t, lambda_{t+1}>
    lambda_t = lambda_{t+1} - alpha h_theta

This is the exact gradient, for any network and any differentiable augmentation, in memory O(J P)
plus one step; O(sqrt(J) P) with checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iadd.augment import augment
from iadd.engine import cuda_graph
from iadd.engine.base import Backend, cross_entropy
from iadd.engine.checkpoints import KEPT_BYTES, CheckpointPlan, plan_checkpoints
from iadd.engine.student import AugmentedBatches, Endpoint, Step, Student, Unrolled, rows_of

MODES = ("auto", "replay", "captured", "checkpoint", "graph")


def unroll(
    backend: Backend,
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
        backend: of the student's network, on the tensors' device and in their dtype.
        start: parameters (P,) that the student begins with.
        images: synthetic images (N, C, H, W).
        targets: label probabilities (N, K).
        step_size: the student's learning rate alpha > 0.
        steps: what each step sees.
        endpoint: the loss at theta_J with its gradient; called once.
        mode: `replay` keeps theta_t for all t; `checkpoint` every sqrt(J)-th and recomputes the
            rest; `graph` is plain autograd through the unroll; `captured` is `replay` over fixed
            buffers, on a GPU as CUDA graphs; `auto` is `captured` on a GPU, elsewhere, and where
            that would take more than `KEPT_BYTES`, `replay` or, for the same reason, `checkpoint`.

    Raises:
        ValueError: an unknown mode, or no steps.
    """
    if mode not in MODES:
        raise ValueError(f"unroll mode {mode!r}: allowed are {', '.join(MODES)}")
    if not steps:
        raise ValueError("unroll: 0 student steps; at least 1 is needed")
    rate = torch.as_tensor(step_size, dtype=start.dtype, device=start.device)
    student = Student(start, images, targets, rate, steps, endpoint)
    if mode == "graph":
        return _graph(backend, student)
    if mode == "captured" or (mode == "auto" and start.is_cuda):
        if found := cuda_graph.replay(backend, student, KEPT_BYTES):
            return found
        mode = "auto"
    return _replay(backend, student, plan_checkpoints(mode, len(steps), start.nbytes))


def _replay(backend: Backend, student: Student, plan: CheckpointPlan) -> Unrolled:
    """Forward keeping every `stride`-th theta, then backwards segment by segment."""
    batches, steps = AugmentedBatches(student), student.steps
    segments, rate = plan.segments(len(steps)), batches.rate
    params = student.start.detach()
    # Checkpoints are allocated as one block; interleaved with per-step temporaries they would
    # fragment the heap.
    kept = [params, *params.new_empty(len(segments) - 1, len(params))]
    for segment, following in zip(segments[:-1], kept[1:], strict=True):
        for t in segment:
            out = following if t == segment[-1] else None
            params = backend.step(params, *batches[t], rate, out)
    states = _states(backend, kept.pop(), batches, segments[-1])
    end = backend.step(states[-1], *batches[len(steps) - 1], rate)
    loss, adjoint = student.endpoint(end)
    adjoint = adjoint.detach().clone()  # updated in place below
    by_alpha = params.new_zeros(())
    for segment in reversed(segments):
        states = states or _states(backend, kept.pop(), batches, segment)
        for t in reversed(segment):
            by_seen, by_labels, slope = backend.step_back(states.pop(), *batches[t], rate, adjoint)
            batches.add_gradient(t, by_seen, by_labels)
            by_alpha -= slope
    gradients = (batches.by_images, batches.by_targets, by_alpha)
    return Unrolled(loss.detach(), *gradients, end, f"{plan} {backend.name}")


def _states(
    backend: Backend, params: Tensor, batches: AugmentedBatches, segment: range
) -> list[Tensor]:
    """The parameters before every step of a segment, from those before its first."""
    states = [params]
    for t in segment[:-1]:
        states.append(backend.step(states[-1], *batches[t], batches.rate))
    return states


def _graph(backend: Backend, student: Student) -> Unrolled:
    """Plain autograd through the unroll: the reference for the replay, and its equal on small J."""
    with torch.enable_grad():
        given = (student.images, student.targets, student.rate)
        images, targets, rate = leaves = [z.detach().requires_grad_() for z in given]
        params = student.start.detach().requires_grad_()
        for step in student.steps:
            seen = augment(rows_of(images, step), step.draw)
            loss = cross_entropy(backend.network.apply(params, seen), rows_of(targets, step))
            (grad,) = torch.autograd.grad(loss, params, create_graph=True)
            params = params - rate * grad
        end = params.detach()
        loss, adjoint = student.endpoint(end)
        by_images, by_targets, by_rate = torch.autograd.grad(params, leaves, adjoint)
    return Unrolled(loss.detach(), by_images, by_targets, by_rate, end, "graph autograd")
