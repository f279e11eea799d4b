"""One outer iteration over fixed buffers, captured as two CUDA graphs: forward and backward.

The same student steps and the same backward recursion as in `unroll`; everything that changes from
iteration to iteration lies in buffers: start, images, targets, step size, rows, augmentations. The
images of many steps are augmented in one call, and their gradients backpropagated in one. Between
the two graphs the end-point loss runs as ordinary code, so that a method may compute it freely.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iadd.augment import PackedDraws, pack_draws, steps_together
from iadd.engine.base import Backend
from iadd.engine.student import Student, Unrolled


class Frame(NamedTuple):
    """What a captured iteration depends on: everything that fixes shapes and kernels."""

    backend: Backend
    images: tuple[int, ...]
    steps: int
    batch: int | None
    """Images a step sees; None: all of them, in order."""
    augmented: bool
    truncated: bool = False

    @property
    def bytes(self) -> int:
        """Of the students' trajectory and of all that they see."""
        seen = (self.batch or self.images[0]) * self.images[1] * self.images[2] * self.images[3]
        width = torch.finfo(self.backend.dtype).bits // 8
        return width * ((self.steps + 2) * self.backend.network.num_parameters + self.steps * seen)


class Iteration:
    """The buffers of one frame and, on a CUDA device, the graphs that work on them."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.backend, steps = frame, frame.backend, frame.steps
        network, device, dtype = self.backend.network, self.backend.device, self.backend.dtype
        blank = torch.zeros((), dtype=dtype, device=device)
        count, seen = frame.images[0], frame.batch or frame.images[0]
        self.trajectory = blank.new_zeros(steps + 1, network.num_parameters)
        self.images = blank.new_zeros(frame.images)
        self.targets = blank.new_zeros(count, network.classes)
        self.alpha, self.adjoint = blank, torch.zeros_like(self.trajectory[0])
        self.rows = torch.arange(seen, device=device).repeat(steps, 1)
        self.draws = pack_draws([None] * steps, seen, frame.images[-1], dtype).map(
            lambda z: z.to(device)
        )
        self.seen = self.images.new_zeros(steps, seen, *frame.images[1:])
        self.labels = self.targets.new_zeros(steps, seen, network.classes)
        self.by_labels = torch.zeros_like(self.labels)
        self.by_images = torch.zeros_like(self.images)
        self.by_targets = torch.zeros_like(self.targets)
        self.by_alpha = torch.zeros_like(self.alpha)
        together = steps_together(self.images, seen)
        self.parts = [slice(k, k + together) for k in range(0, steps, together)]
        """Steps whose images are augmented at once."""
        self.forward: Callable[[], None] = self._forward
        self.backward: Callable[[], None] = self._backward
        self.captured = device.type == "cuda" and self._capture()

    def run(self, student: Student, packed: PackedDraws) -> Unrolled:
        """Fill the buffers, run both halves, and copy out what they found."""
        self.trajectory[0].copy_(student.start)
        self.images.copy_(student.images)
        self.targets.copy_(student.targets)
        self.alpha.copy_(student.rate)
        if self.frame.batch is not None:
            rows = [step.rows for step in student.steps if step.rows is not None]
            self.rows.copy_(torch.stack(rows), non_blocking=True)
        for buffer, new in zip(vars(self.draws).values(), vars(packed).values(), strict=True):
            buffer.copy_(new, non_blocking=True)
        self.forward()
        for t in range(1, self.frame.steps + 1):
            student.watch(t, self.trajectory[t])
        end = self.trajectory[-1].clone()
        loss, found = student.endpoint(end)
        if isinstance(found, Tensor):
            self.adjoint.copy_(found)
            self.backward()
        else:  # which states a loss sees may change from iteration to iteration
            self._backward(found)
        gradients = (self.by_images.clone(), self.by_targets.clone(), self.by_alpha.clone())
        path = ("captured " if self.captured else "replay ") + self.backend.name
        return Unrolled(loss.detach(), *gradients, end, path)

    def _augmented(self, part: slice, picked: Tensor) -> Tensor:
        if not self.frame.augmented:
            return picked
        return self.draws.map(lambda z: z[part].flatten(0, 1)).apply(picked)

    def _forward(self) -> None:
        with torch.no_grad():
            for part in self.parts:
                picked = self.images[self.rows[part]].flatten(0, 1)  # (steps * b, C, H, W)
                self.seen[part] = self._augmented(part, picked).view_as(self.seen[part])
            self.labels.copy_(self.targets[self.rows])
            for t in range(self.frame.steps):
                now, after = self.trajectory[t], self.trajectory[t + 1]
                _, grad = self.backend.gradient(now, self.seen[t], self.labels[t])
                torch.addcmul(now, self.alpha, grad, value=-1, out=after)

    def _backward(self, gradients: Mapping[int, Tensor] | None = None) -> None:
        """From the adjoint of the end point, or from a loss's gradients by {t: theta_t}.

        What a step saw is needed no more once it was replayed: the gradient by it takes its place.
        """
        last = self.frame.steps
        with torch.no_grad():
            self.by_alpha.zero_()
            if gradients is not None:
                last = max(gradients)
                for unused in (self.adjoint, self.seen[last:], self.by_labels[last:]):
                    unused.zero_()
            for t in reversed(range(last)):
                if gradients is not None and t + 1 in gradients:
                    self.adjoint.add_(gradients[t + 1])
                now, seen, labels = self.trajectory[t], self.seen[t], self.labels[t]
                h = self.backend.tangent(now, seen, labels, self.adjoint)
                seen.copy_(h.images)
                self.by_labels[t].copy_(h.targets)
                self.by_alpha.sub_(h.slope)
                if not self.frame.truncated:
                    self.adjoint.addcmul_(self.alpha, h.params, value=-1)
        self.by_images.zero_()
        for part in self.parts:
            by_picked = self.seen[part].flatten(0, 1)
            if self.frame.augmented:
                leaf = self.images[self.rows[part]].flatten(0, 1).requires_grad_()
                with torch.enable_grad():
                    augmented = self._augmented(part, leaf)
                (by_picked,) = torch.autograd.grad(augmented, leaf, by_picked)
            self._gather(part, by_picked.view_as(self.seen[part]), self.by_images)
        self.by_targets.zero_()
        self._gather(slice(None), self.by_labels, self.by_targets)
        for found in (self.by_images, self.by_targets):
            found.mul_(-self.alpha)

    def _gather(self, part: slice, by_seen: Tensor, into: Tensor) -> None:
        """Add up what some steps (j, b, ...) say of each image (N, ...)."""
        if self.frame.batch is None:
            into.add_(by_seen.sum(0))
            return
        for rows, one in zip(self.rows[part], by_seen, strict=True):
            into.index_add_(0, rows, one)  # rows of a step differ: the order is fixed

    def _capture(self) -> bool:
        pool = torch.cuda.graph_pool_handle()
        forward = captured(self._forward, self.backend.device, pool)
        backward = forward and captured(self._backward, self.backend.device, pool)
        if not forward or not backward:
            return False
        self.forward, self.backward = forward, backward
        return True


def captured(
    work: Callable[[], None], device: torch.device, pool: Any = None
) -> Callable[[], None] | None:
    """The CUDA graph of `work`, after two runs in which libraries choose and allocate.

    None on other devices, and where a graph cannot hold it, which is said.
    """
    if device.type != "cuda":
        return None
    try:
        with torch.cuda.device(device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    work()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.empty_cache()  # a graph has memory of its own: what the runs took can go
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                work()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        logging.getLogger("iadd").warning("no CUDA graph, launching one by one: %s", reason)
        return None
    replay: Callable[[], None] = graph.replay
    return replay


@lru_cache(maxsize=64)
def beside(stream: torch.cuda.Stream, number: int = 0) -> torch.cuda.Stream:
    """A stream for branches of what that stream captures; always the same one.

    Memory that a stream has freed is used again by this stream alone.
    """
    return torch.cuda.Stream(stream.device)


class Aside:
    """While a graph is captured, a branch of it beside what else is launched; else nothing.

    Whoever branches keeps all that the branch reads until after `join`: memory that is given back
    goes to what is launched next, which need not wait for the branch.
    """

    def __init__(self, device: torch.device) -> None:
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        self.stream = beside(torch.cuda.current_stream(device)) if capturing else None

    @contextmanager
    def branch(self) -> Iterator[None]:
        """What is launched within waits for what was launched before, and nothing waits for it."""
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield

    def join(self) -> None:
        """What is launched from now on waits for the branch."""
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)


_iteration = lru_cache(maxsize=1)(Iteration)  # recaptured when the frame changes


def replay(backend: Backend, student: Student, largest: int) -> Unrolled | None:
    """The loss and gradients of `unroll`; None where steps differ in size or need more memory.

    `largest`: bytes that buffers may take.
    """
    steps, shape = student.steps, tuple(student.images.shape)
    sizes = {None if step.rows is None else len(step.rows) for step in steps}
    if len(sizes) != 1:
        return None
    (batch,) = sizes
    draws = [step.draw for step in steps]
    augmented = any(draw is not None for draw in draws)
    frame = Frame(backend, shape, len(steps), batch, augmented, student.truncated)
    if frame.bytes > largest:
        return None
    packed = pack_draws(draws, batch or shape[0], shape[-1], student.start.dtype)
    return _iteration(frame).run(student, packed)
