"""The engine: J student steps on synthetic images and the exact gradient through all of them.

The usual way keeps the autograd graph of every step. Here only the parameters theta_t are kept, and
the steps are replayed backwards with one mixed Hessian-vector product each:

    lambda_J = dL/dtheta_J
    h = tangent of the gradient at (theta_t, x_t, y_t) along lambda_{t+1}
    dL/dx_t = -alpha h_x,   dL/dy_t = -alpha h_y,   dL/dalpha -= <g_t, lambda_{t+1}>
    lambda_t = lambda_{t+1} - alpha h_theta

This is the exact gradient, for any network and any differentiable augmentation, in memory O(J P)
plus one step; O(sqrt(J) P) with checkpoints. A loss of several states adds its gradient by theta_t
to lambda_t; steps after the last of them are not replayed. Truncated, the last line is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iadd.augment import augment
from iadd.engine import cuda_graph
from iadd.engine.base import Backend, cross_entropy
from iadd.engine.checkpoints import KEPT_BYTES, CheckpointPlan, plan_checkpoints
from iadd.engine.student import (
    AugmentedBatches,
    Endpoint,
    Step,
    Student,
    Unrolled,
    Watch,
    by_state,
    rows_of,
    unwatched,
)

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
    *,
    watch: Watch = unwatched,
    truncated: bool = False,
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
        watch: hears of every state before `endpoint` is called.
        truncated: leave out how a step moves the gradients of later steps (TESLA, arXiv
            2211.10586).

    Raises:
        ValueError: an unknown mode, or no steps.
    """
    if mode not in MODES:
        raise ValueError(f"unroll mode {mode!r}: allowed are {', '.join(MODES)}")
    if not steps:
        raise ValueError("unroll: 0 student steps; at least 1 is needed")
    rate = torch.as_tensor(step_size, dtype=start.dtype, device=start.device)
    student = Student(start, images, targets, rate, steps, endpoint, watch, truncated)
    if mode == "graph":
        return _graph(backend, student)
    if mode == "captured" or (mode == "auto" and start.is_cuda):
        if found := cuda_graph.replay(backend, student, KEPT_BYTES):
            return found
        mode = "auto"
    return _replay(backend, student, plan_checkpoints(mode, len(steps), start.nbytes))


def _replay(backend: Backend, student: Student, plan: CheckpointPlan) -> Unrolled:
    """Forward keeping every `stride`-th theta, then backwards segment by segment."""
    batches, count, watch = AugmentedBatches(student), len(student.steps), student.watch
    segments, rate = plan.segments(count), batches.rate
    params = student.start.detach()
    # Checkpoints are allocated as one block; interleaved with per-step temporaries they would
    # fragment the heap.
    kept = [params, *params.new_empty(len(segments) - 1, len(params))]
    for segment, following in zip(segments[:-1], kept[1:], strict=True):
        for t in segment:
            out = following if t == segment[-1] else None
            params = backend.step(params, *batches[t], rate, out)
            watch(t + 1, params)
    states = _states(backend, kept[-1], batches, segments[-1], watch)
    end = backend.step(states[-1], *batches[count - 1], rate)
    watch(count, end)
    loss, found = student.endpoint(end)
    gradients = by_state(found, count)
    adjoint, last = torch.zeros_like(params), max(gradients)
    by_alpha = params.new_zeros(())
    for number, segment in reversed(list(enumerate(segments))):
        if segment.start >= last:
            states.clear()
            continue
        states = states or _states(backend, kept[number], batches, segment)
        for t in reversed(segment):
            before = states.pop()
            if t >= last:
                continue
            if t + 1 in gradients:
                adjoint.add_(gradients[t + 1])
            carried = adjoint.clone() if student.truncated else adjoint  # changed in place
            by_seen, by_labels, slope = backend.step_back(before, *batches[t], rate, carried)
            batches.add_gradient(t, by_seen, by_labels)
            by_alpha -= slope
    found_by = (batches.by_images, batches.by_targets, by_alpha)
    return Unrolled(loss.detach(), *found_by, end, f"{plan} {backend.name}")


def _states(
    backend: Backend,
    params: Tensor,
    batches: AugmentedBatches,
    segment: range,
    watch: Watch = unwatched,
) -> list[Tensor]:
    """The parameters before every step of a segment, from those before its first."""
    states = [params]
    for t in segment[:-1]:
        states.append(backend.step(states[-1], *batches[t], batches.rate))
        watch(t + 1, states[-1])
    return states


def _graph(backend: Backend, student: Student) -> Unrolled:
    """Plain autograd through the unroll: the reference for the replay, and its equal on small J."""
    with torch.enable_grad():
        given = (student.images, student.targets, student.rate)
        images, targets, rate = leaves = [z.detach().requires_grad_() for z in given]
        states = [student.start.detach().requires_grad_()]
        for t, step in enumerate(student.steps, 1):
            now = states[-1].detach().requires_grad_() if student.truncated else states[-1]
            seen = augment(rows_of(images, step), step.draw)
            loss = cross_entropy(backend.network.apply(now, seen), rows_of(targets, step))
            (grad,) = torch.autograd.grad(loss, now, create_graph=True)
            states.append(states[-1] - rate * grad)
            student.watch(t, states[-1].detach())
        end = states[-1].detach()
        loss, found = student.endpoint(end)
        gradients = by_state(found, len(student.steps))
        compared = [states[t] for t in gradients]
        by_images, by_targets, by_rate = torch.autograd.grad(
            compared, leaves, list(gradients.values())
        )
    return Unrolled(loss.detach(), by_images, by_targets, by_rate, end, "graph autograd")
