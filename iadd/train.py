"""The only training loop: SGD with momentum on a flat parameter vector, augmented minibatches.

Experts, evaluation networks, validation probes, forgetting counts and DC's inner loop all run here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from iadd.augment import Augmentation, Draw, augment_together, pack_draws, steps_together
from iadd.data import ImageRows
from iadd.engine.backend import Backend, choose_backend
from iadd.networks import Network, Statistics

EVALUATION_BATCH = 512


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


Batches = Iterator[tuple[Tensor, Tensor]]
"""Augmented images and targets of one step after the other."""
OnEpoch = Callable[[int, Tensor], None]


def train(
    network: Network,
    params: Tensor,
    images: ImageRows,
    targets: Tensor,
    plan: TrainingPlan,
    augmentation: Augmentation,
    generator: torch.Generator,
    on_epoch: OnEpoch | None = None,
    teacher: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Train from parameters (P,) and return the trained ones; the input is left as it is.

    Args:
        network: any network.
        params: start (P,), on any device; the work is done where the images are.
        images: (N, C, H, W), of which rows are taken; targets: label probabilities (N, K).
        plan: epochs, batch, learning rate and its drops.
        augmentation: one family a minibatch, strengths an image.
        generator: order and augmentation.
        on_epoch: called after each epoch with its 1-based number and the live parameters, which
            the next epoch overwrites: clone what is kept.
        teacher: gives every augmented batch its label probabilities, in the place of `targets`.

    A non-finite state is not an error here: it is returned, and whoever asked records it.
    """
    batches = _augmented_batches(images, targets, plan, augmentation, generator)
    if teacher:
        batches = ((seen, teacher(seen)) for seen, _ in batches)
    return _descend(network, params.to(images.device), len(images), batches, plan, on_epoch)


def train_many(
    network: Network,
    params: Tensor,
    images: ImageRows,
    targets: Tensor,
    plan: TrainingPlan,
    augmentation: Augmentation,
    generators: Sequence[torch.Generator],
    on_epoch: OnEpoch | None = None,
) -> Tensor:
    """`train` of M networks side by side: parameters (M, P), a generator each.

    A network draws what it would draw alone, and ends where it would end up to rounding. For a GPU
    that one small network cannot fill; `Backend.batched` says for which networks it works.
    """
    batches = _batches_of_many(images, targets, plan, augmentation, generators)
    return _descend(network, params.to(images.device), len(images), batches, plan, on_epoch)


def _descend(
    network: Network,
    params: Tensor,
    size: int,
    batches: Batches,
    plan: TrainingPlan,
    on_epoch: OnEpoch | None,
) -> Tensor:
    """SGD over the batches of all epochs, of `size` images each; `params` are left as they are."""
    params = params.clone()
    backend = choose_backend(network, params.device, params.dtype)
    velocity, rate = torch.zeros_like(params), plan.step_size
    for epoch in range(plan.epochs):
        if epoch in plan.drops:
            rate *= 0.1
        for seen, labels in islice(batches, -(-size // plan.batch)):
            gradient = _gradient(backend, params, seen, labels, plan)
            if plan.weight_decay:
                gradient.add_(params, alpha=plan.weight_decay)
            if plan.momentum:
                gradient = velocity.mul_(plan.momentum).add_(gradient)
            params.sub_(gradient, alpha=rate)
        if on_epoch:
            on_epoch(epoch + 1, params)
    return params


def _augmented_batches(
    images: ImageRows,
    targets: Tensor,
    plan: TrainingPlan,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> Batches:
    """The batches of all epochs, augmented for several steps at once."""

    def steps() -> Iterator[tuple[Tensor, Draw | None]]:
        for _ in range(plan.epochs):
            order = torch.randperm(len(images), generator=generator).to(images.device)
            for rows in order.split(plan.batch):
                yield rows, augmentation.draw(generator, len(rows))

    coming = steps()
    together = steps_together(images[:1], min(plan.batch, len(images)))
    while near := list(islice(coming, together)):
        seen = augment_together([images[rows] for rows, _ in near], [draw for _, draw in near])
        yield from zip(seen, (targets[rows] for rows, _ in near), strict=True)


def _batches_of_many(
    images: ImageRows,
    targets: Tensor,
    plan: TrainingPlan,
    augmentation: Augmentation,
    generators: Sequence[torch.Generator],
) -> Batches:
    """Batches (M, B, ...) of M networks, each in its own order and with its own augmentations."""
    for _ in range(plan.epochs):
        orders = torch.stack([torch.randperm(len(images), generator=g) for g in generators])
        for rows in orders.to(images.device).split(plan.batch, 1):
            seen, count = images[rows], rows.shape[1]  # (M, B, C, H, W)
            if augmentation.families:
                draws = [augmentation.draw(g, count) for g in generators]
                packed = pack_draws(draws, count, images.shape[-1], images.dtype)
                packed = packed.map(lambda z: z.flatten(0, 1).to(images.device))
                seen = packed.apply(seen.flatten(0, 1)).view_as(seen)
            yield seen, targets[rows]


def _gradient(
    backend: Backend, params: Tensor, images: Tensor, targets: Tensor, plan: TrainingPlan
) -> Tensor:
    """The direction (P,) or (M, P) that a step goes against: the gradient, or GSAM's.

    GSAM (Zhuang et al., ICLR 2022, arXiv 2203.08065) takes the gradient g' at params + e and takes
    off `alpha` times the part of g that is orthogonal to g'. The perturbation is adaptive (Kwon et
    al., ICML 2021, arXiv 2102.11600), as in FTD's code: e = rho p^2 g / ||p g||.
    """
    _, grad = backend.gradient(params, images, targets)
    if not plan.rho:
        return grad
    norm = (params * grad).norm(dim=-1, keepdim=True) + 1e-12
    _, there = backend.gradient(params + plan.rho / norm * params.square() * grad, images, targets)
    along = (grad * there).sum(-1, keepdim=True) / (there.square().sum(-1, keepdim=True) + 1e-24)
    return there - plan.alpha * (grad - along * there)


def fixed_statistics(network: Network, params: Tensor, images: ImageRows) -> Statistics | None:
    """Batch-norm statistics over at most 4,096 training images; None without batch norm."""
    if not network.has_batch_norm:
        return None
    with torch.no_grad():
        return network.batch_statistics(params, images[:4096])


def predict(
    network: Network, params: Tensor, images: ImageRows, statistics: Statistics | None = None
) -> Tensor:
    """Logits (N, K), in batches; batch norm by `statistics` where given."""
    batches = images.split(EVALUATION_BATCH)
    if statistics is None:
        backend = choose_backend(network, params.device, params.dtype)
        return torch.cat([backend.logits(params, part) for part in batches])
    with torch.no_grad():
        return torch.cat([network.apply(params, part, statistics) for part in batches])
