"""Membership inference: what networks trained on few images tell of who was in the data.

After the likelihood-ratio attack (LiRA) of Carlini et al., "Membership Inference Attacks From First
Principles", IEEE S&P 2022, arXiv 2112.03570, in its offline form: a network is asked for the log
odds of an image's own class, and the answer is held against those of shadow networks that never saw
the image. Their mean is taken for each image and their spread as one for all, which the paper finds
better with few shadow networks; one spread leaves the order of the images as it is, so that it does
not appear here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from iadd.data import Dataset, Split
from iadd.evaluation import Validation, find_protocol
from iadd.evaluation.judge import train_fresh
from iadd.networks import Network, Statistics
from iadd.seeds import Seeds
from iadd.synthetic import SyntheticSet
from iadd.train import predict

Progress = Callable[[int, int, str], None]
Trained = tuple[Tensor, Statistics | None]


def log_odds(network: Network, trained: Trained, split: Split) -> Tensor:
    """log(p / (1 - p)) of each image's own class, float64 (N,) on the CPU.

    A network that diverged knows nothing: 0 everywhere.
    """
    params, statistics = trained
    if not bool(params.isfinite().all()):
        return torch.zeros(len(split), dtype=torch.float64)
    logits = predict(network, params, split.images, statistics).double().cpu()
    own = split.labels.cpu()[:, None]
    others = logits.scatter(1, own, -torch.inf).logsumexp(1)
    return logits.gather(1, own)[:, 0] - others


def real_odds(network: Network, trained: Trained, dataset: Dataset) -> Tensor:
    """`log_odds` of all training images and then of all held-out (validation) images, (N,)."""
    parts = (dataset.train, dataset.validation)
    return torch.cat([log_odds(network, trained, part) for part in parts])


def fresh(
    images: Tensor,
    labels: Tensor,
    step_size: float | None,
    dataset: Dataset,
    network: Network,
    training: Validation,
    generator: torch.Generator,
) -> Trained:
    """A fresh network trained on few images as the validation probe trains; labels as there."""
    rules = find_protocol(training.protocol)
    targets = rules.targets(labels.to(images.device), network.classes)
    plan = rules.plan(step_size, training.epochs, rules.batch, training.step_size)
    (trained,) = train_fresh(network, images, targets, plan, rules.families(dataset), [generator])
    return trained


def calibration(
    dataset: Dataset,
    network: Network,
    ipc: int,
    shadows: int,
    training: Validation,
    seeds: Seeds,
    progress: Progress | None = None,
) -> Tensor:
    """Mean log odds of each real image under shadow networks that never saw it, float64 (N,).

    The images are the training and then the held-out ones; both are drawn from alike, so that what
    is held against the answers of a network treats members and others alike. A shadow network is
    trained on `ipc` real images a class, at most half of the class. Shadows come in pairs that
    share no image: each image is unseen by half of them at least.

    Raises:
        ValueError: a class with a single image.
    """
    labels = torch.cat([dataset.train.labels, dataset.validation.labels]).cpu()
    total = torch.zeros(len(labels), dtype=torch.float64)
    unseen = torch.zeros_like(total)
    for k in range(shadows):
        rows = torch.cat(_halves(labels, dataset, ipc, k, seeds))
        generator = seeds.generator("shadow", k)
        chosen = labels[rows], None, dataset, network, training, generator
        answers = real_odds(network, fresh(pick(dataset, rows), *chosen), dataset)
        outside = torch.ones(len(labels), dtype=torch.bool)
        outside[rows] = False
        total += answers * outside
        unseen += outside
        if progress:
            progress(k + 1, shadows, "shadow networks")
    return total / unseen


def _halves(labels: Tensor, dataset: Dataset, ipc: int, k: int, seeds: Seeds) -> list[Tensor]:
    """The rows of each class that shadow k is trained on: its pair takes them from the other end
    of the same random order."""
    order = torch.randperm(len(labels), generator=seeds.generator("shadow images", k // 2))
    order = order.flip(0) if k % 2 else order
    found = []
    for label, name in enumerate(dataset.class_names):
        rows = order[labels[order] == label]
        if len(rows) < 2:
            raise ValueError(
                f"privacy: class {name!r} of {dataset.title} has {len(rows)} training and "
                "validation images; at least 2 are needed"
            )
        found.append(rows[: min(ipc, len(rows) // 2)])
    return found


def pick(dataset: Dataset, rows: Tensor) -> Tensor:
    """Images (n, C, H, W) by rows that count training and then validation images."""
    size, inside = len(dataset.train), rows < len(dataset.train)
    found = torch.empty(len(rows), *dataset.train.images.shape[1:])
    found = found.to(dataset.train.images.device)
    found[inside] = dataset.train.images[rows[inside]]
    found[~inside] = dataset.validation.images[rows[~inside] - size]
    return found


def scores(
    distilled: SyntheticSet,
    dataset: Dataset,
    network: Network,
    unseen: Tensor,
    networks: int,
    training: Validation,
    seeds: Seeds,
) -> Tensor:
    """How much each real image looks like one of the data, float64 (N,), in `calibration`'s order.

    Whoever has a set can train as many networks on it as he likes: their mean log odds count, less
    what shadow networks said that never saw the image.

    Args:
        distilled: resolved and decoded; real images go through its transform.
        unseen: from `calibration`.
    """
    device = dataset.train.images.device
    images, rate = distilled.images.to(device), distilled.step_size
    seen = under(dataset, distilled)
    total = torch.zeros(len(unseen), dtype=torch.float64)
    for k in range(networks):
        trained = fresh(
            *(images, distilled.labels, rate, dataset, network, training),
            seeds.generator("privacy", k),
        )
        total += real_odds(network, trained, seen)
    return total / networks - unseen


def under(dataset: Dataset, distilled: SyntheticSet) -> Dataset:
    """The data set with its images as a set's own transform has them."""
    train, validation = (
        part.under(distilled.transform, dataset.transform)
        for part in (dataset.train, dataset.validation)
    )
    return replace(dataset, train=train, validation=validation)
