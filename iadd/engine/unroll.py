"""The engine: J student steps on synthetic images and the exact gradient through all of them.

The usual way keeps the autograd graph of every step. Here only the parameters theta_t are kept, and
the steps are replayed backwards with one mixed Hessian-vector product each:

    lambda_J = dL/dtheta_J
    h = tangent of the gradient at (theta_t, x_t, y_t) along lambda_{t+1}
    dL/dx_t = -alpha h_x,   dL/dy_t = -alpha h_y,   dL/dalpha -= <g_t, lambda_{t+1}>
    lambda_t = lambda_{t+1} - alpha h_theta

This is the exact gradient, for any network and any differentiable augmentation, in memory O(J P)
plus one step; O(sqrt(J) P) with checkpoints. What rounding takes off a theta is carried into the
next step: in float32 the walk errs less than the usual way's. Where the passes are autograd's, a
segment walked again may keep its graphs, which saves those steps a third walk.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iadd.augment import augment, augment_together, steps_together
from iadd.engine import backend, cuda_graph
from iadd.engine.student import Endpoint, Step, Unrolled
from iadd.networks import Network

MODES = ("auto", "replay", "captured", "checkpoint", "graph")
REPLAY_BYTES = 2 << 30
"""What mode `auto` keeps of a student at most, as far as checkpoints can help it."""
FREE_BYTES = 32 << 20
"""What mode `auto` keeps without asking: as nothing beside a process with PyTorch in it."""
SHARE = 1 / 6
"""The part of the whole graph's memory that mode `auto` takes where it is more than that."""
BLOCK_BYTES = 256 << 20
"""Of thetas whose memory a thread keeps for its next outer iteration at most."""
WORKING_THETAS, WORKING_TAPES = 4, 1
"""Room that a step by autograd takes while it runs, carry included, in thetas and tapes."""


class Schedule(NamedTuple):
    """What the way back finds kept: theta at every `stride`-th step, from which the segment up to
    the next is walked again, and the graphs of a segment's last `tapes` steps as it is.

    A graph kept saves the step's first-order pass its repetition.
    """

    stride: int
    tapes: int

    def __str__(self) -> str:
        """`replay`, `replay/<stride>` or `replay/<stride>/<tapes>`."""
        numbers = [self.stride, self.tapes] if self.tapes > 1 else [self.stride]
        return "/".join(["replay", *(str(n) for n in numbers if n > 1)])


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
            buffers, on a GPU as CUDA graphs; `auto` is `captured` on a GPU. Elsewhere, and where
            that would not fit in `REPLAY_BYTES`, it is `replay` for the networks with a pass of
            their own, with checkpoints above `REPLAY_BYTES`; for those by autograd it repeats the
            fewest passes that a `SHARE` of the whole graph's memory allows, else keeps the least.

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
        found = cuda_graph.replay(
            network, start, images, targets, rate, steps, endpoint, REPLAY_BYTES
        )
        if found:
            return found
        mode = "auto"
    schedule = _schedule(mode, network, start, _rows(images, steps[0]), len(steps))
    return _replay(network, start, images, targets, rate, steps, endpoint, schedule)


def _rows(of: Tensor, step: Step) -> Tensor:
    return of if step.rows is None else of[step.rows]


def _schedule(mode: str, network: Network, start: Tensor, images: Tensor, count: int) -> Schedule:
    """What to keep in `count` steps that see `images` (B, C, H, W)."""
    taped = backend.taped(network, start)
    sparse = Schedule(math.isqrt(count - 1) + 1, int(taped))
    if mode != "auto":
        return sparse if mode == "checkpoint" else Schedule(1, int(taped))
    if not taped:
        return sparse if (count + 1) * start.nbytes > REPLAY_BYTES else Schedule(1, 0)
    tape = backend.tape_bytes(network, tuple(images.shape), start.dtype, start.device)
    budget = min(max(SHARE * count * tape, FREE_BYTES), REPLAY_BYTES)

    def bytes_kept(s: Schedule) -> float:
        thetas = -(-count // s.stride) + s.stride - s.tapes
        return (thetas + WORKING_THETAS) * start.nbytes + (s.tapes + WORKING_TAPES) * tape

    def repeated(s: Schedule) -> float:
        """First-order passes that are done over again."""
        return (count - s.stride) * (2 - s.tapes / s.stride) + s.stride - s.tapes

    choices = [Schedule(k, m) for k in range(1, count + 1) for m in range(1, k + 1)]
    fitting = [s for s in choices if bytes_kept(s) <= budget]
    return min(fitting, key=repeated) if fitting else min(choices, key=bytes_kept)


_Stop = tuple[Tensor, backend.Tape | None]
"""Where the walk is at step t: theta_t (P,), and the step's tape if it keeps one."""


class _Views:
    """What the steps see, augmented for several steps at once, and what the derivatives by it add
    up to.
    """

    def __init__(self, images: Tensor, targets: Tensor, rate: float, steps: Sequence[Step]) -> None:
        self.images, self.targets = images.detach(), targets.detach()
        self.rate, self.steps = rate, steps
        self.grad_images, self.grad_targets = torch.zeros_like(images), torch.zeros_like(targets)
        seen = len(images) if steps[0].rows is None else len(steps[0].rows)
        self.stride = steps_together(images, seen)
        self.made = range(0)
        self.seen: list[Tensor] = []
        self.pulled: list[tuple[int, Tensor]] = []
        """Steps with their derivatives by augmented images, which are taken back together too."""

    def __getitem__(self, t: int) -> tuple[Tensor, Tensor]:
        """Images and labels of step t."""
        if t not in self.made:
            first = t - t % self.stride
            self.made = range(first, min(first + self.stride, len(self.steps)))
            batches = [_rows(self.images, self.steps[k]) for k in self.made]
            self.seen = augment_together(batches, [self.steps[k].draw for k in self.made])
        return self.seen[t - self.made.start], _rows(self.targets, self.steps[t])

    def pull(self, t: int, by_seen: Tensor, by_labels: Tensor) -> None:
        """Add up step t's derivatives; steps come in falling order."""
        self._add(self.grad_targets, t, by_labels)
        if self.steps[t].draw is None:
            self._add(self.grad_images, t, by_seen)
        else:
            self.pulled.append((t, by_seen))
        if t % self.stride == 0 and self.pulled:
            steps, batches = zip(*self.pulled, strict=True)
            draws = [self.steps[k].draw for k in steps]
            for k, by_images in zip(steps, augment_together(batches, draws, True), strict=True):
                self._add(self.grad_images, k, by_images)
            self.pulled.clear()

    def _add(self, gradient: Tensor, t: int, by_rows: Tensor) -> None:
        rows = self.steps[t].rows
        if rows is None:
            gradient.sub_(by_rows, alpha=self.rate)
        else:
            gradient.index_add_(0, rows, by_rows, alpha=-self.rate)


class _Walk:
    """The student's steps, forwards and back."""

    def __init__(self, network: Network, views: _Views, rate: float, start: Tensor) -> None:
        self.network, self.views, self.rate = network, views, rate
        self.carry = torch.zeros_like(start)

    def enter(self, segment: range) -> None:
        """Before a segment's first step. One that is walked again must find the same carry."""
        if len(segment) > 1:
            self.carry.zero_()

    def after(
        self, t: int, params: Tensor, tape: backend.Tape | None = None, into: Tensor | None = None
    ) -> Tensor:
        """theta_{t+1}, in `into` if given."""
        with torch.no_grad():
            if tape:
                return backend.advance(params, tape.gradient, self.rate, self.carry, into)
            return backend.step(self.network, params, *self.views[t], self.rate, self.carry, into)

    def segment(self, steps: range, params: Tensor, tapes: int) -> list[_Stop]:
        """From theta at the first of `steps`: theta at every one, with a tape at the last few."""
        stops: list[_Stop] = []
        self.enter(steps)
        for t in steps:
            if stops:
                params = self.after(t - 1, *stops[-1])
            tape = None
            if steps.stop - t <= tapes:
                tape = backend.record(self.network, params, *self.views[t])
            stops.append((params, tape))
        return stops

    def before(self, t: int, stop: _Stop, adjoint: Tensor) -> Tensor:
        """Take lambda_{t+1} to lambda_t in place; the slope of step t."""
        params, tape = stop
        if tape:
            by_seen, by_labels, slope = backend.pull_tape(self.network, tape, self.rate, adjoint)
        else:
            by_seen, by_labels, slope = backend.pull(
                self.network, params, *self.views[t], self.rate, adjoint
            )
        self.views.pull(t, by_seen, by_labels)
        return slope


def _replay(
    network: Network,
    start: Tensor,
    images: Tensor,
    targets: Tensor,
    rate: float,
    steps: Sequence[Step],
    endpoint: Endpoint,
    schedule: Schedule,
) -> Unrolled:
    """Forward keeping every `stride`-th theta, then backwards segment by segment."""
    views = _Views(images, targets, rate, steps)
    params = start.detach()
    walk = _Walk(network, views, rate, params)
    count, stride = len(steps), schedule.stride
    segments = [range(t, min(t + stride, count)) for t in range(0, count, stride)]
    # One block: thetas that came and stayed among each step's scraps would keep these from reuse.
    kept = [params, *_block(len(segments) - 1, start)]
    for segment, following in zip(segments[:-1], kept[1:], strict=True):
        walk.enter(segment)
        for t in segment:
            params = walk.after(t, params, into=following if t == segment[-1] else None)
    stops = walk.segment(segments[-1], kept.pop(), schedule.tapes)
    end = walk.after(count - 1, *stops[-1])
    loss, adjoint = endpoint(end)
    adjoint = adjoint.clone()  # updated in place below
    grad_alpha = start.new_zeros(())
    for segment in reversed(segments):
        if not stops:
            stops = walk.segment(segment, kept.pop(), schedule.tapes)
        for t in reversed(segment):
            grad_alpha -= walk.before(t, stops.pop(), adjoint)
    ran = backend.path(network, start)
    gradients = views.grad_images, views.grad_targets, grad_alpha
    return Unrolled(loss.detach(), *gradients, end, f"{schedule} {ran}")


_last = threading.local()


def _block(count: int, start: Tensor) -> Tensor:
    """`count` vectors like `start` (P,), not set: on the CPU where the thread's last ones lay.

    Fresh pages would cost 3 % of an outer iteration of setting a.
    """
    size = count * len(start)
    if not start.is_cpu or size * start.itemsize > BLOCK_BYTES:
        return start.new_empty(count, len(start))
    block: Tensor | None = getattr(_last, "block", None)
    if block is None or block.dtype != start.dtype or len(block) < size:
        block = _last.block = start.new_empty(size)
    return block[:size].view(count, len(start))


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
            seen = augment(_rows(leaves[0], step), step.draw)
            loss = backend.cross_entropy(network.apply(params, seen), _rows(leaves[1], step))
            (grad,) = torch.autograd.grad(loss, params, create_graph=True)
            params = params - leaves[2] * grad
        loss, adjoint = endpoint(params.detach())
        by_images, by_targets, by_alpha = torch.autograd.grad(params, leaves, adjoint)
    return Unrolled(
        loss.detach(), by_images, by_targets, by_alpha, params.detach(), "graph autograd"
    )
