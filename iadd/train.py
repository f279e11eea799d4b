"""The only training loop: SGD with momentum on a flat parameter vector, augmented minibatches.

Experts, evaluation networks, validation probes, forgetting counts and DC's inner loop all run here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from iadd.augment import Augmentation, Draw, augment_together, steps_together
from iadd.data import ImageRows
from iadd.engine.autograd import AutogradBackend
from iadd.engine.backend import backend_under, choose_backend
from iadd.engine.descent import Descent, TrainingPlan
from iadd.networks import Network, Statistics

EVALUATION_BATCH = 512
STATISTICS = 4096
"""Training images that fix a network's batch norms; of more, so many evenly spaced ones."""


Batches = Iterator[tuple[Tensor, Tensor]]
"""Augmented images (M, B, C, H, W) and targets (M, B, K) of one step after the other."""
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
    batches = _augmented_batches(images, targets, plan, augmentation, [generator])
    if teacher:
        batches = ((seen, teacher(seen[0])[None]) for seen, _ in batches)
    of_one = on_epoch and (lambda epoch, params: on_epoch(epoch, params[0]))
    start = params.to(images.device)[None]
    return _descend(network, start, len(images), batches, plan, of_one)[0]


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
    that one small network cannot fill.
    """
    batches = _augmented_batches(images, targets, plan, augmentation, generators)
    return _descend(network, params.to(images.device), len(images), batches, plan, on_epoch)


def _descend(
    network: Network,
    params: Tensor,
    size: int,
    batches: Batches,
    plan: TrainingPlan,
    on_epoch: OnEpoch | None,
) -> Tensor:
    """SGD over the batches of all epochs, of `size` images each: parameters (M, P)."""
    descent = Descent(choose_backend(network, params.device, params.dtype), params, plan)
    for epoch in range(plan.epochs):
        if epoch in plan.drops:
            descent.rate *= 0.1
        for seen, labels in islice(batches, -(-size // plan.batch)):
            descent.step(seen, labels)
        if on_epoch:
            on_epoch(epoch + 1, descent.params)
    return descent.params


def _augmented_batches(
    images: ImageRows,
    targets: Tensor,
    plan: TrainingPlan,
    augmentation: Augmentation,
    generators: Sequence[torch.Generator],
) -> Batches:
    """The batches of all epochs for a network a generator, augmented for several steps at once."""
    many = len(generators)

    def steps() -> Iterator[tuple[Tensor, list[Draw | None]]]:
        for _ in range(plan.epochs):
            orders = torch.stack([torch.randperm(len(images), generator=g) for g in generators])
            for rows in orders.to(images.device).split(plan.batch, 1):
                yield rows, [augmentation.draw(g, rows.shape[1]) for g in generators]

    coming = steps()
    together = steps_together(images[:1], many * min(plan.batch, len(images)))
    while near := list(islice(coming, together)):
        batches = [images[own] for rows, _ in near for own in rows]
        seen = augment_together(batches, [draw for _, draws in near for draw in draws])
        for k, (rows, _) in enumerate(near):
            own = seen[k * many : (k + 1) * many]
            yield torch.stack(own) if many > 1 else own[0][None], targets[rows]


def fixed_statistics(network: Network, params: Tensor, images: ImageRows) -> Statistics | None:
    """Batch-norm statistics over at most `STATISTICS` training images; None without batch norm.

    Sets are ordered by class: the first images of a large one would all be of one.
    """
    if not network.has_batch_norm:
        return None
    seen = images[:STATISTICS]
    if len(images) > STATISTICS:
        seen = images[torch.arange(STATISTICS) * len(images) // STATISTICS]
    return AutogradBackend(network, params.device, params.dtype).batch_statistics(params, seen)


def predict(
    network: Network, params: Tensor, images: ImageRows, statistics: Statistics | None = None
) -> Tensor:
    """Logits (N, K), in batches; batch norm by `statistics` where given.

    They go into one tensor: small ones that are kept while batches come and go would keep the
    allocator from using a batch's memory again.
    """
    found = torch.empty(len(images), network.classes, dtype=params.dtype, device=params.device)
    backend = backend_under(statistics, network, params)
    pairs = zip(found.split(EVALUATION_BATCH), images.split(EVALUATION_BATCH), strict=True)
    with torch.no_grad():
        for rows, part in pairs:
            rows.copy_(backend.logits(params, part))
    return found


def embeddings(
    network: Network,
    params: Tensor,
    images: ImageRows,
    statistics: Statistics | None = None,
    batch: int = EVALUATION_BATCH,
) -> Iterator[Tensor]:
    """Features (B, F) before the classifier, a batch of images after the other, in their order.

    Batch norm by `statistics` where given.
    """
    backend = backend_under(statistics, network, params)
    for part in images.split(batch):
        yield backend.embed(params, part)
