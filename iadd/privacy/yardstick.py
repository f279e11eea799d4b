"""What the sets of one data set and ipc are measured against: held-out images, shadow networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.artifacts import load_tensors, save_tensors
from iadd.data import Dataset
from iadd.evaluation import Validation
from iadd.networks import Network
from iadd.privacy.attack import Progress, calibration, pick
from iadd.privacy.nearest import nearest_features, nearest_pixels
from iadd.seeds import Seeds
from iadd.train import TrainingPlan, train

MOST_IMAGES = 20_000
"""That the feature network is trained on; drawn at random from more."""
MOST_HELD_OUT = 2_000
"""Whose distances are the yardstick; drawn at random from more."""


@dataclass(frozen=True)
class Settings:
    """How the yardstick is made: shadow networks, and epochs of the network with the features."""

    training: Validation
    shadows: int = 16
    feature_epochs: int = 20


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What is known of the real images alone.

    `features`: parameters (P,) of the network whose features are compared. `held_out_pixel`,
    `held_out_feature`: distance of each held-out image to its nearest training image, (n,)
    float32. `unseen`: mean log odds of each training and then each held-out image under shadow
    networks that never saw it, float64 (N,).
    """

    features: Tensor
    held_out_pixel: Tensor
    held_out_feature: Tensor
    unseen: Tensor

    def save(self, path: Path, spec: Mapping[str, Any]) -> None:
        """Write it to one file, whole or not at all."""
        save_tensors(path, vars(self), spec)

    @classmethod
    def load(cls, path: Path, spec: Mapping[str, Any]) -> Yardstick:
        """Read what `save` wrote; ValueError of one line for a missing file or another spec."""
        tensors = load_tensors(path, spec).tensors
        return cls(**{name: tensors[name] for name in cls.__dataclass_fields__})


def make_yardstick(
    dataset: Dataset,
    network: Network,
    ipc: int,
    settings: Settings,
    seeds: Seeds,
    progress: Progress | None = None,
) -> Yardstick:
    """Measure the real images: how near held-out ones lie, what networks say of unseen ones.

    Held-out images are those of the validation part, which no distillation learns from; the test
    part has no part in this. The feature network is trained on training and held-out images alike,
    so that it has seen neither better than the other.

    Raises:
        ValueError: there are no validation images.
    """
    held_out = dataset.validation
    if not len(held_out):
        raise ValueError(f"privacy: needs validation images, of which {dataset.title} has none")
    features = _features(dataset, network, settings.feature_epochs, seeds)
    order = torch.randperm(len(held_out), generator=seeds.generator("held out"))
    some = held_out.images[order[:MOST_HELD_OUT].sort().values]
    return Yardstick(
        features,
        nearest_pixels(some, dataset).distances,
        nearest_features(some, dataset, network, features).distances,
        calibration(dataset, network, ipc, settings.shadows, settings.training, seeds, progress),
    )


def _features(dataset: Dataset, network: Network, epochs: int, seeds: Seeds) -> Tensor:
    """Parameters (P,) of a network trained on training and held-out images together."""
    labels = torch.cat([dataset.train.labels, dataset.validation.labels])
    generator = seeds.generator("features")
    rows = torch.randperm(len(labels), generator=generator)[:MOST_IMAGES]
    targets = F.one_hot(labels[rows.to(labels.device)], network.classes).float()
    plan = TrainingPlan(epochs, batch=128, step_size=0.01, momentum=0.9)
    start, families = network.init(generator), dataset.augmentation
    return train(network, start, pick(dataset, rows), targets, plan, families, generator)
