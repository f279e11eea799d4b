"""The probe by which checkpoints and settings are chosen, on validation data alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from iadd.data import Dataset
from iadd.evaluation.judge import choice, train_fresh
from iadd.evaluation.protocols import find_protocol
from iadd.networks import Network
from iadd.seeds import Seeds


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
    """Mean accuracy on *validation* data of a few networks trained on images as they stand; the
    balanced accuracy where the classes are unequal, as in the tables' ranks.

    What the loop chooses its checkpoint by, and what searches are told. labels: int64 (N,) classes
    or float32 (N, K) logits. Every call uses the same seeds, so that two checkpoints are compared
    on the same networks.
    """
    if not bool(torch.isfinite(images).all()) or not math.isfinite(step_size or 0.0):
        return 0.0
    rules = find_protocol(validation.protocol)
    plan = rules.plan(step_size, validation.epochs, rules.batch, validation.step_size)
    targets = rules.targets(labels, network.classes).to(images.device)
    generators = [seeds.generator("validate", k) for k in range(validation.networks)]
    trained = train_fresh(network, images, targets, plan, rules.families(dataset), generators)
    found = [choice(network, params, dataset.validation, also) for params, also in trained]
    return sum(found) / len(found)
