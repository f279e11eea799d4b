"""Steps of SGD on flat parameter vectors, of one network or of several side by side.

On a GPU a step that comes often is captured as a CUDA graph over fixed buffers, in which every
network has a branch of its own: small networks fill a card together that one would leave idle.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from iadd.engine.backend import Backend
from iadd.engine.cuda_graph import beside, captured

OFTEN = 8
"""Steps of one shape that are taken before it is captured: a capture costs about as many."""
KEPT = 4
"""Captured steps that are kept: a training has one for its full batches and one for its last."""


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained: SGD, with momentum if given; `drops` cut the rate tenfold."""

    epochs: int
    batch: int
    step_size: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    drops: tuple[int, ...] = ()
    """Epochs (0-based) at whose start the learning rate is multiplied by 0.1."""
    rho: float = 0.0
    """Size of the perturbation of a sharpness-aware step (GSAM); 0: plain SGD."""
    alpha: float = 0.0
    """Weight of GSAM's step against the surrogate gap."""


class Rule(NamedTuple):
    """What a step does, but for its rate."""

    momentum: float
    weight_decay: float
    rho: float
    alpha: float

    def take(
        self,
        backend: Backend,
        params: Tensor,
        velocity: Tensor,
        images: Tensor,
        targets: Tensor,
        rate: float | Tensor,
    ) -> None:
        """One step of parameters (P,) and velocity (P,), in place; the rate is a number or ()."""
        gradient = self._direction(backend, params, images, targets)
        if self.weight_decay:
            gradient.add_(params, alpha=self.weight_decay)
        if self.momentum:
            gradient = velocity.mul_(self.momentum).add_(gradient)
        if isinstance(rate, Tensor):
            params.addcmul_(gradient, rate, value=-1)
        else:
            params.sub_(gradient, alpha=rate)

    def _direction(
        self, backend: Backend, params: Tensor, images: Tensor, targets: Tensor
    ) -> Tensor:
        """The direction (P,) that a step goes against: the gradient, or GSAM's.

        GSAM (Zhuang et al., ICLR 2022, arXiv 2203.08065) takes the gradient g' at params + e and
        takes off `alpha` times the part of g that is orthogonal to g'. The perturbation is adaptive
        (Kwon et al., ICML 2021, arXiv 2102.11600), as in FTD's code: e = rho p^2 g / ||p g||.
        """
        _, grad = backend.gradient(params, images, targets)
        if not self.rho:
            return grad
        norm = (params * grad).norm(dim=-1, keepdim=True) + 1e-12
        moved = params + self.rho / norm * params.square() * grad
        _, there = backend.gradient(moved, images, targets)
        along = (grad * there).sum(-1, keepdim=True)
        along = along / (there.square().sum(-1, keepdim=True) + 1e-24)
        return there - self.alpha * (grad - along * there)


class Descent:
    """Parameters (M, P) of M networks on their way down; `params` are theirs as they are now."""

    def __init__(self, backend: Backend, params: Tensor, plan: TrainingPlan) -> None:
        self.backend, self.params, self.rate = backend, params.clone(), plan.step_size
        self.velocity = torch.zeros_like(self.params)
        self.rule = Rule(plan.momentum, plan.weight_decay, plan.rho, plan.alpha)
        self.came: Counter[tuple[int, ...]] = Counter()

    def step(self, images: Tensor, targets: Tensor) -> None:
        """One step of every network on images (M, B, C, H, W) and targets (M, B, K)."""
        if self.params.is_cuda:
            shape = tuple(images.shape)
            self.came[shape] += 1
            if self.came[shape] > OFTEN:
                captured_step(self.backend, self.rule, shape).run(self, images, targets)
                return
        for row in zip(self.params, self.velocity, images, targets, strict=True):
            self.rule.take(self.backend, *row, self.rate)


class CapturedStep:
    """A step over fixed buffers; on a CUDA device a graph in which networks have branches."""

    def __init__(self, backend: Backend, rule: Rule, shape: tuple[int, ...]) -> None:
        network, device, dtype = backend.network, backend.device, backend.dtype
        self.backend, self.rule = backend, rule
        self.params = torch.zeros(shape[0], network.num_parameters, device=device, dtype=dtype)
        self.velocity = torch.zeros_like(self.params)
        self.images = self.params.new_zeros(shape)
        self.targets = self.params.new_zeros(*shape[:2], network.classes)
        self.rate = self.params.new_zeros(())
        self.go = captured(self._all, device) or self._all

    def run(self, descent: Descent, images: Tensor, targets: Tensor) -> None:
        """The step of a descent, whose state goes into the buffers and comes back."""
        self.rate.fill_(descent.rate)
        self.images.copy_(images)
        self.targets.copy_(targets)
        self.params.copy_(descent.params)
        self.velocity.copy_(descent.velocity)
        self.go()
        descent.params.copy_(self.params)
        descent.velocity.copy_(self.velocity)

    def _all(self) -> None:
        rows = list(zip(self.params, self.velocity, self.images, self.targets, strict=True))
        if len(rows) == 1 or not self.params.is_cuda:
            for row in rows:
                self.rule.take(self.backend, *row, self.rate)
            return
        here = torch.cuda.current_stream()
        branches = [beside(here, number) for number in range(1, len(rows) + 1)]
        for branch, row in zip(branches, rows, strict=True):
            branch.wait_stream(here)
            with torch.cuda.stream(branch):
                self.rule.take(self.backend, *row, self.rate)
        for branch in branches:
            here.wait_stream(branch)


captured_step = lru_cache(maxsize=KEPT)(CapturedStep)
