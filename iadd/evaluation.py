"""The judge: fresh networks trained on a distilled set, tested once.

Protocols are SPEC.md's. Nothing is chosen here: which images are judged was settled on validation
data, and every network is reported with what it reached, also one that diverged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.augment import Augmentation
from iadd.data import Dataset, open_test
from iadd.networks import Network, build_network
from iadd.seeds import generator_for
from iadd.synthetic import SyntheticSet
from iadd.train import Schedule, accuracy, fixed_statistics, predict, train


@dataclass(frozen=True)
class Protocol:
    """How an evaluation network is trained on a distilled set."""

    augmented: bool
    learned_step_size: bool
    """Use the set's own step size where it has one; else the configured one."""
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def schedule(
        self, synthetic: SyntheticSet, epochs: int, batch: int, default: float
    ) -> Schedule:
        step_size = synthetic.step_size if self.learned_step_size else None
        return Schedule(
            epochs,
            batch,
            step_size or default,
            self.momentum,
            self.weight_decay,
            drops=(epochs // 2,) if epochs > 1 else (),
        )


PROTOCOLS = {
    # Cazenavette et al. 2022, but the checkpoint was chosen on validation data.
    "mtt-v1": Protocol(augmented=True, learned_step_size=True),
    # The same without augmentation: the other half of the augmentation-robust score.
    "mtt-v1-noaug": Protocol(augmented=False, learned_step_size=True),
    # Zhao et al. 2021: no augmentation, one fixed step size for every method.
    "dc-v1": Protocol(augmented=False, learned_step_size=False),
}


def find_protocol(name: str) -> Protocol:
    """The named protocol; ValueError with the known ones otherwise."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def evaluate(
    synthetic: SyntheticSet,
    dataset: Dataset,
    protocol: str,
    networks: dict[str, int],
    *,
    epochs: int,
    batch: int = 256,
    step_size: float = 0.01,
    augmentation: Augmentation,
    names: tuple[object, ...],
    progress: Callable[[int, int, str], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Train `networks` (name -> how many) on a distilled set and test each once.

    Args:
        synthetic: the set; brings its transform, and its step size where one was learned.
        dataset: opens the test split, under the set's own transform.
        protocol: one of `PROTOCOLS`.
        epochs, batch, step_size: of the training; the step size is for sets without their own.
        augmentation: the data set's families, where the protocol augments.
        names: what seeds depend on, e.g. (base, dataset, method, ipc, seed).

    Yields:
        One dict a network: network_eval, eval_seed, accuracy, balanced_accuracy, train_accuracy
        (fractions), confusion (K * K counts, row = true class; None for a diverged network), status
        (`diverged` if the network ended not finite; its accuracy is then chance), evaluate_seconds.
    """
    rules = find_protocol(protocol)
    test = open_test(dataset, synthetic.transform).to(dataset.train.images.device)
    schedule = rules.schedule(synthetic, epochs, batch, step_size)
    families = augmentation if rules.augmented else Augmentation(())
    done, total = 0, sum(networks.values())
    for name, count in networks.items():
        network = build_network(name, dataset.channels, dataset.resolution, dataset.classes)
        for eval_seed in range(count):
            began = time.perf_counter()
            generator = generator_for(*names, "evaluate", protocol, name, eval_seed)
            judged = _train_and_test(network, synthetic, schedule, families, generator, test)
            done += 1
            if progress:
                progress(done, total, f"{name} {judged['accuracy']:.4f}")
            yield {
                "network_eval": name,
                "eval_seed": eval_seed,
                **judged,
                "evaluate_seconds": time.perf_counter() - began,
            }


def _train_and_test(
    network: Network,
    synthetic: SyntheticSet,
    schedule: Schedule,
    augmentation: Augmentation,
    generator: torch.Generator,
    test: Any,
) -> dict[str, Any]:
    images, classes = synthetic.images.to(test.images.device), synthetic.classes
    params = train(
        network,
        network.init(generator),
        images,
        synthetic.targets().to(images.device),
        schedule,
        augmentation,
        generator,
    )
    finite = bool(torch.isfinite(params).all())
    statistics = fixed_statistics(network, params, images) if finite else None
    confusion = None
    if finite:
        predicted = predict(network, params, test.images, statistics).argmax(1)
        pairs = (test.labels * network.classes + predicted).cpu()
        confusion = torch.bincount(pairs, minlength=network.classes**2).reshape(network.classes, -1)
    return {
        "accuracy": float(confusion.diag().sum() / confusion.sum())
        if confusion is not None
        else 1 / network.classes,
        "balanced_accuracy": float((confusion.diag() / confusion.sum(1)).mean())
        if confusion is not None
        else 1 / network.classes,
        "confusion": None if confusion is None else confusion.flatten().tolist(),
        "train_accuracy": accuracy(network, params, images, classes.to(images.device), statistics),
        "status": "ok" if finite else "diverged",
    }


def validation_accuracy(
    images: Tensor,
    labels: Tensor,
    step_size: float | None,
    *,
    dataset: Dataset,
    network: Network,
    augmentation: Augmentation,
    epochs: int,
    networks: int,
    default_step_size: float,
    names: tuple[object, ...],
    protocol: str = "mtt-v1",
) -> float:
    """Mean accuracy on *validation* data of a few networks trained on images as they stand.

    What the outer loop chooses its checkpoint by, and what searches are told. Every call uses the
    same seeds, so that two checkpoints are compared on the same networks.
    """
    if not bool(torch.isfinite(images).all()) or not math.isfinite(step_size or 0.0):
        return 0.0
    rules = find_protocol(protocol)
    rate = step_size if rules.learned_step_size and step_size else default_step_size
    schedule = Schedule(epochs, 256, rate, rules.momentum, rules.weight_decay, drops=(epochs // 2,))
    families = augmentation if rules.augmented else Augmentation(())
    targets = F.one_hot(labels, network.classes).float() if labels.dim() == 1 else labels.softmax(1)
    targets = targets.to(images.device)
    scores = []
    for k in range(networks):
        generator = generator_for(*names, "validate", k)
        params = train(
            network, network.init(generator), images, targets, schedule, families, generator
        )
        statistics = fixed_statistics(network, params, images)
        held_out = dataset.validation
        scores.append(accuracy(network, params, held_out.images, held_out.labels, statistics))
    return sum(scores) / len(scores)
