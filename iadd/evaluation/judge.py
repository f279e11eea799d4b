"""The judge: fresh networks trained on a distilled set, tested once.

Nothing is chosen here but where a protocol says so: which images are judged was settled on
validation data, and every network is reported with what it reached, also one that diverged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iadd.augment import Augmentation
from iadd.data import Dataset, ImageRows, Split, open_test
from iadd.evaluation.protocols import Protocol, find_protocol
from iadd.evaluation.scores import Score, accuracy_of, score_of
from iadd.networks import Network, Statistics, build_network
from iadd.seeds import Seeds
from iadd.synthetic import SyntheticSet
from iadd.train import TrainingPlan, fixed_statistics, predict, train


def score(
    network: Network, params: Tensor, split: Split, statistics: Statistics | None = None
) -> Score:
    """Classify a split once; what that says of the network."""
    return score_of(predict(network, params, split.images, statistics), split.labels)


def accuracy(
    network: Network, params: Tensor, split: Split, statistics: Statistics | None = None
) -> float:
    """The accuracy alone, as `score` has it."""
    return accuracy_of(predict(network, params, split.images, statistics), split.labels)


Teacher = Callable[[Tensor], Tensor]
"""Gives images (B, C, H, W) label probabilities (B, K)."""


def teacher_of(network: Network, params: Tensor, images: ImageRows) -> Teacher:
    """A trained network (P,) as a teacher; batch norm by statistics over training images."""
    statistics = fixed_statistics(network, params, images)
    return lambda seen: predict(network, params, seen, statistics).softmax(1)


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
    teacher: Teacher | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Train `networks` (name -> how many) on a distilled set and test each once.

    Args:
        synthetic: brings its transform, and its step size where one was learned.
        dataset: opens the test split, under the set's own transform; gives the augmentation.
        protocol: one of `PROTOCOLS`.
        epochs, batch, step_size: of the training; the step size is for sets without their own.
        seeds: of the run, without its method: networks of equal number start alike for all methods.
        teacher: labels the augmented images, in a protocol that has one.

    Yields:
        One dict a network: the fields of `Score`, network_eval, eval_seed, label_regime,
        train_accuracy (a fraction), evaluate_seconds, and the network's own status, `ok` or
        `diverged`.

    Raises:
        ValueError: the set's classes are others; a teacher or validation images are missing.
    """
    rules = find_protocol(protocol)
    _check_classes(synthetic, dataset)
    if rules.teacher and teacher is None:
        raise ValueError(f"protocol {protocol}: needs a teacher trained on {dataset.title}")
    if rules.rates and synthetic.step_size is None and not len(dataset.validation):
        missing = f"validation images, of which {dataset.title} has none"
        raise ValueError(f"protocol {protocol}: chooses its step size on {missing}")
    test = open_test(dataset, synthetic.transform).to(dataset.train.images.device)
    judge = _Judge(protocol, rules, dataset, test, epochs, batch, step_size, seeds, teacher)
    synthetic = synthetic.decoded()
    if rules.optimistic:
        yield from _best_on_test(judge, synthetic, networks)
        return
    jobs = [(name, k) for name, count in networks.items() for k in range(count)]
    for done, (name, eval_seed) in enumerate(jobs, 1):
        row = judge.row(synthetic, name, eval_seed)
        if progress:
            progress(done, len(jobs), f"{name} {row['accuracy']:.4f}")
        yield row


def _best_on_test(
    judge: _Judge, synthetic: SyntheticSet, networks: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """The literature's habit: of all states of a set, the rows of the best by *test* accuracy.

    This is selection on the test set, which is read for every state: what comes out is optimistic
    by construction. Only protocols that say so come here.
    """
    for name, count in networks.items():
        states = synthetic.states or (synthetic,)
        tried = [[judge.row(state, name, k) for k in range(count)] for state in states]
        yield from max(tried, key=lambda rows: sum(row["accuracy"] for row in rows))


@dataclass(frozen=True)
class _Judge:
    """All that the networks of one evaluation share."""

    protocol: str
    rules: Protocol
    dataset: Dataset
    test: Split
    epochs: int
    batch: int
    step_size: float
    seeds: Seeds
    teacher: Teacher | None

    def row(self, synthetic: SyntheticSet, name: str, eval_seed: int) -> dict[str, Any]:
        """Train one network on the set, test it, and tell what it reached."""
        began, data = time.perf_counter(), self.dataset
        network = build_network(name, data.channels, data.resolution, data.classes)
        rates = self.rules.rates if synthetic.step_size is None else ()
        trained = [
            self.train(network, synthetic, rate, eval_seed)
            for rate in rates or (synthetic.step_size,)
        ]
        params, statistics = trained[0]
        if len(trained) > 1:
            params, statistics = max(
                trained,
                key=lambda found: accuracy(network, found[0], data.validation, found[1]),
            )
        judged = score(network, params, self.test, statistics)
        own = self._own(synthetic)
        return vars(judged) | {
            "network_eval": name,
            "eval_seed": eval_seed,
            "label_regime": self.rules.regime(synthetic.label_kind),
            "train_accuracy": accuracy(network, params, own, statistics),
            "status": "diverged" if judged.confusion is None else "ok",
            "evaluate_seconds": time.perf_counter() - began,
        }

    def train(
        self, network: Network, synthetic: SyntheticSet, rate: float | None, eval_seed: int
    ) -> tuple[Tensor, Statistics | None]:
        """A fresh network's parameters (P,), and its batch statistics where it has any."""
        images = self._own(synthetic).images
        return train_fresh(
            network,
            images,
            self.rules.targets(synthetic.labels, network.classes).to(images.device),
            self.rules.plan(rate, self.epochs, self.batch, self.step_size),
            self.rules.families(self.dataset),
            self.seeds.generator("evaluate", self.protocol, network.name, eval_seed),
            self.teacher if self.rules.teacher else None,
        )

    def _own(self, synthetic: SyntheticSet) -> Split:
        images = synthetic.images_of(self.dataset)
        return Split(images, synthetic.classes).to(self.test.images.device)


def _check_classes(synthetic: SyntheticSet, dataset: Dataset) -> None:
    """Labels are numbers: a set with the data's class names in another order would be misread."""
    own, names = tuple(synthetic.class_names), dataset.class_names
    if len(own) != len(names) or (own != names and {*own} == {*names}):
        raise ValueError(
            f"synthetic set: its classes {', '.join(own)} are not those of {dataset.title} in "
            f"their order: {', '.join(names)}"
        )


def train_fresh(
    network: Network,
    images: ImageRows,
    targets: Tensor,
    plan: TrainingPlan,
    families: Augmentation,
    generator: torch.Generator,
    teacher: Teacher | None = None,
) -> tuple[Tensor, Statistics | None]:
    """A fresh network's trained parameters (P,), and its batch statistics where it has any."""
    start = network.init(generator)
    params = train(network, start, images, targets, plan, families, generator, teacher=teacher)
    finite = bool(torch.isfinite(params).all())
    return params, fixed_statistics(network, params, images) if finite else None
