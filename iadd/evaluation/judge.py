"""The judge: fresh networks trained on a distilled set, tested once.

Nothing is chosen here but where a protocol says so: which images are judged was settled on
validation data, and every network is reported with what it reached, also one that diverged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from iadd.augment import Augmentation
from iadd.data import Dataset, ImageRows, Split, Transform, open_test
from iadd.evaluation.protocols import Protocol, find_protocol
from iadd.evaluation.scores import Score, accuracy_of, choice_of, score_of
from iadd.networks import Network, Statistics, build_network
from iadd.seeds import Seeds
from iadd.synthetic import SyntheticSet
from iadd.train import TrainingPlan, fixed_statistics, predict, train, train_many


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


def choice(
    network: Network, params: Tensor, split: Split, statistics: Statistics | None = None
) -> float:
    """What networks, and the sets that they were trained on, are chosen by (`choice_of`)."""
    return choice_of(predict(network, params, split.images, statistics), split.labels)


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
    batch: int | None = None,
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
        epochs, batch (None: the protocol's), step_size (for sets without their own): of training.
        seeds: of the run, without its method: networks of equal number start alike for all methods.
        teacher: labels the augmented images, which it sees under the dataset's transform.

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
    dataset, teacher = _under(synthetic.transform, dataset, teacher)
    judge = _Judge(protocol, rules, dataset, test, epochs, batch, step_size, seeds, teacher)
    synthetic = synthetic.decoded()
    if rules.optimistic:
        yield from _best_on_test(judge, synthetic, networks)
        return
    rows = chain.from_iterable(judge.rows(synthetic, *item) for item in networks.items())
    for done, row in enumerate(rows, 1):
        if progress:
            progress(done, sum(networks.values()), f"{row['network_eval']} {row['accuracy']:.4f}")
        yield row


def _under(
    transform: Transform, dataset: Dataset, teacher: Teacher | None
) -> tuple[Dataset, Teacher | None]:
    """Validation images under a set's transform, and a teacher who sees images under the data's."""
    own = dataset.transform
    seen = replace(dataset, validation=dataset.validation.under(transform, own))
    if teacher is None or own.same(transform):
        return seen, teacher
    return seen, lambda images: teacher(own.apply(transform.invert(images)))


def _best_on_test(
    judge: _Judge, synthetic: SyntheticSet, networks: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """The literature's habit: of all states of a set, the rows of the best by *test* accuracy.

    This is selection on the test set, which is read for every state: what comes out is optimistic
    by construction. Only protocols that say so come here.
    """
    for name, count in networks.items():
        states = synthetic.states or (synthetic,)
        tried = [list(judge.rows(state, name, count)) for state in states]
        yield from max(tried, key=lambda rows: sum(row["accuracy"] for row in rows))


@dataclass(frozen=True)
class _Judge:
    """All that the networks of one evaluation share."""

    protocol: str
    rules: Protocol
    dataset: Dataset
    test: Split
    epochs: int
    batch: int | None
    step_size: float
    seeds: Seeds
    teacher: Teacher | None

    def rows(self, synthetic: SyntheticSet, name: str, count: int) -> Iterator[dict[str, Any]]:
        """Train fresh networks on the set, test each once, and tell what they reached."""
        began, data = time.perf_counter(), self.dataset
        network = build_network(name, data.channels, data.resolution, data.classes)
        rates = self.rules.rates if synthetic.step_size is None else ()
        tried = [self._train(network, synthetic, rate, count) for rate in rates or (None,)]
        for eval_seed, trained in enumerate(zip(*tried, strict=True)):
            params, statistics = trained[0]
            if len(trained) > 1:
                params, statistics = max(
                    trained,
                    key=lambda found: choice(network, found[0], data.validation, found[1]),
                )
            judged = score(network, params, self.test, statistics)
            row = vars(judged) | {
                "network_eval": name,
                "eval_seed": eval_seed,
                "label_regime": self.rules.regime(synthetic.label_kind),
                "train_accuracy": accuracy(network, params, self._own(synthetic), statistics),
                "status": "diverged" if judged.confusion is None else "ok",
                "evaluate_seconds": time.perf_counter() - began,
            }
            began = time.perf_counter()
            yield row

    def _train(
        self, network: Network, synthetic: SyntheticSet, rate: float | None, count: int
    ) -> Iterator[tuple[Tensor, Statistics | None]]:
        """Fresh networks' parameters (P,), and batch statistics where they have any."""
        images = self._own(synthetic).images
        streams = ("evaluate", self.protocol, network.name)
        return train_fresh(
            network,
            images,
            self.rules.targets(synthetic.labels, network.classes).to(images.device),
            self.rules.plan(
                rate or synthetic.step_size,
                self.epochs,
                self.batch or self.rules.batch,
                self.step_size,
            ),
            self.rules.families(self.dataset),
            [self.seeds.generator(*streams, eval_seed) for eval_seed in range(count)],
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
    generators: Sequence[torch.Generator],
    teacher: Teacher | None = None,
) -> Iterator[tuple[Tensor, Statistics | None]]:
    """Fresh networks' trained parameters (P,), and batch statistics where they have any.

    One a generator: on a CPU one after the other, on a card side by side.
    """
    starts = [network.init(generator) for generator in generators]
    rest = (images, targets, plan, families)
    if images.device.type == "cpu" or len(starts) == 1 or teacher:
        pairs = zip(starts, generators, strict=True)
        trained = (train(network, start, *rest, g, teacher=teacher) for start, g in pairs)
    else:
        trained = iter(train_many(network, torch.stack(starts), *rest, generators))
    for params in trained:
        finite = bool(torch.isfinite(params).all())
        yield params, fixed_statistics(network, params, images) if finite else None
