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
from torch import Tensor

from iadd.augment import Augmentation
from iadd.data import Dataset, Split, open_test
from iadd.networks import Network, Statistics, build_network
from iadd.seeds import Seeds
from iadd.synthetic import SyntheticSet, probabilities
from iadd.train import TrainingPlan, fixed_statistics, predict, train


@dataclass(frozen=True)
class Protocol:
    """How an evaluation network is trained on a distilled set."""

    augmented: bool
    learned_step_size: bool
    """Use the set's own step size where it has one; else the configured one."""

    def plan(
        self, step_size: float | None, epochs: int, batch: int, default: float
    ) -> TrainingPlan:
        """The training of a network on a set that brings this step size, or None."""
        rate = step_size if self.learned_step_size and step_size else default
        drops = (epochs // 2,) if epochs > 1 else ()
        return TrainingPlan(epochs, batch, rate, 0.9, 5e-4, drops)

    def families(self, dataset: Dataset) -> Augmentation:
        """What training images go through."""
        return dataset.augmentation if self.augmented else Augmentation(())


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


@dataclass(frozen=True)
class Score:
    """What a network reached on a split; fractions.

    `confusion`: K*K counts, row = true class, column = predicted; None for a network whose outputs
    are not finite. Such a network counts as one that guesses uniformly: it gets 1/K of each class
    right, whatever the classes' shares.
    """

    accuracy: float
    balanced_accuracy: float
    confusion: list[int] | None


def score(
    network: Network, params: Tensor, split: Split, statistics: Statistics | None = None
) -> Score:
    """Classify a split once. Classes without images have no part in the balanced accuracy."""
    classes = network.classes
    logits = predict(network, params, split.images, statistics)
    if not bool(torch.isfinite(logits).all()):
        return Score(1 / classes, 1 / classes, None)
    cells = split.labels.to(logits.device) * classes + logits.argmax(1)
    counts = torch.bincount(cells, minlength=classes**2).view(classes, classes).double().cpu()
    right, total = counts.diagonal(), counts.sum(1)
    recall = (right / total)[total > 0]
    return Score(
        float(right.sum() / total.sum()), float(recall.mean()), counts.long().flatten().tolist()
    )


def evaluate(
    synthetic: SyntheticSet,
    dataset: Dataset,
    protocol: str,
    networks: dict[str, int],
    *,
    epochs: int,
    batch: int = 256,
    step_size: float = 0.01,
    seeds: Seeds,
    progress: Callable[[int, int, str], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Train `networks` (name -> how many) on a distilled set and test each once.

    Args:
        synthetic: brings its transform, and its step size where one was learned.
        dataset: opens the test split, under the set's own transform; gives the augmentation.
        protocol: one of `PROTOCOLS`.
        epochs, batch, step_size: of the training; the step size is for sets without their own.
        seeds: of the run, without its method: networks of equal number start alike for all methods.

    Yields:
        One dict a network: the fields of `Score`, network_eval, eval_seed, train_accuracy (a
        fraction), evaluate_seconds, and the network's own status, `ok` or `diverged`.
    """
    rules = find_protocol(protocol)
    _check_classes(synthetic, dataset)
    synthetic = synthetic.resolve(dataset)
    device = dataset.train.images.device
    test = open_test(dataset, synthetic.transform).to(device)
    own = Split(synthetic.images.to(device), synthetic.classes.to(device))
    targets = synthetic.targets().to(device)
    plan = rules.plan(synthetic.step_size, epochs, batch, step_size)
    families = rules.families(dataset)
    jobs = [(name, k) for name, count in networks.items() for k in range(count)]
    for done, (name, eval_seed) in enumerate(jobs, 1):
        began = time.perf_counter()
        network = build_network(name, dataset.channels, dataset.resolution, dataset.classes)
        generator = seeds.generator("evaluate", protocol, name, eval_seed)
        params, statistics = _train(network, own.images, targets, plan, families, generator)
        judged = score(network, params, test, statistics)
        if progress:
            progress(done, len(jobs), f"{name} {judged.accuracy:.4f}")
        yield vars(judged) | {
            "network_eval": name,
            "eval_seed": eval_seed,
            "train_accuracy": score(network, params, own, statistics).accuracy,
            "status": "diverged" if judged.confusion is None else "ok",
            "evaluate_seconds": time.perf_counter() - began,
        }


def _check_classes(synthetic: SyntheticSet, dataset: Dataset) -> None:
    """Labels are numbers: a set with the data's class names in another order would be misread."""
    own, names = tuple(synthetic.class_names), dataset.class_names
    if len(own) != len(names) or (own != names and {*own} == {*names}):
        raise ValueError(
            f"synthetic set: its classes {', '.join(own)} are not those of {dataset.name} in "
            f"their order: {', '.join(names)}"
        )


def _train(
    network: Network,
    images: Tensor,
    targets: Tensor,
    plan: TrainingPlan,
    families: Augmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Statistics | None]:
    """A fresh network's trained parameters (P,), and its batch statistics where it has any."""
    start = network.init(generator)
    params = train(network, start, images, targets, plan, families, generator)
    finite = bool(torch.isfinite(params).all())
    return params, fixed_statistics(network, params, images) if finite else None


@dataclass(frozen=True)
class Validation:
    """The probe by which checkpoints and settings are chosen: few networks, validation data."""

    protocol: str = "mtt-v1"
    networks: int = 2
    epochs: int = 300
    step_size: float = 0.01
    """For methods that learn no step size."""


def validation_accuracy(
    images: Tensor,
    labels: Tensor,
    step_size: float | None,
    *,
    dataset: Dataset,
    network: Network,
    validation: Validation,
    seeds: Seeds,
) -> float:
    """Mean accuracy on *validation* data of a few networks trained on images as they stand.

    What the loop chooses its checkpoint by, and what searches are told. labels: int64 (N,) classes
    or float32 (N, K) logits. Every call uses the same seeds, so that two checkpoints are compared
    on the same networks.
    """
    if not bool(torch.isfinite(images).all()) or not math.isfinite(step_size or 0.0):
        return 0.0
    rules = find_protocol(validation.protocol)
    plan = rules.plan(step_size, validation.epochs, 256, validation.step_size)
    targets = probabilities(labels, network.classes).to(images.device)
    families, total = rules.families(dataset), 0.0
    for k in range(validation.networks):
        generator = seeds.generator("validate", k)
        params, statistics = _train(network, images, targets, plan, families, generator)
        total += score(network, params, dataset.validation, statistics).accuracy
    return total / validation.networks
