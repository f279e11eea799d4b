"""What the selections on features share: a network trained on the real data, and its embedding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from iadd.methods._base import MethodParams, Rate, Selection, Workload
from iadd.train import TrainingPlan, embeddings, fixed_statistics, train


class TrainedSelectionParams(MethodParams):
    """How the network that looks at the data is trained."""

    epochs: int = Field(20, ge=1, description="Epochs of the network whose features are used.")
    step_size: Rate = Field(0.01, gt=0, description="Its learning rate (SGD, momentum 0.9).")
    batch: int = Field(128, ge=1, description="Its batch size.")


class TrainedSelection(Selection):
    """Base of methods that choose `ipc` real images a class by what a trained network says."""

    Params = TrainedSelectionParams

    @abstractmethod
    def choose(self, observed: Tensor) -> Tensor:
        """Positions (ipc,) of the chosen among one class's rows of what `observe` gave."""

    def observe(self, generator: torch.Generator) -> Tensor:
        """What is known of every training image: by default its embedding (N, F)."""
        params, network = self.train(generator), self.problem.network
        images = self.problem.dataset.train.images
        statistics = fixed_statistics(network, params, images)
        return torch.cat([*embeddings(network, params, images, statistics)])

    def rows(self, generator: torch.Generator) -> Tensor:
        observed = self.observe(generator).cpu()
        every = self.problem.dataset.class_rows
        return torch.cat([rows[self.choose(observed[rows])] for rows in every])

    def train(
        self, generator: torch.Generator, on_epoch: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """Parameters (P,) of a network trained on the training images."""
        data, network, p = self.problem.dataset.train, self.problem.network, self.params
        return train(
            network,
            network.init(generator),
            data.images,
            F.one_hot(data.labels, network.classes).float(),
            TrainingPlan(p.epochs, p.batch, p.step_size, momentum=0.9),
            self.problem.augmentation,
            generator,
            on_epoch,
        )

    @classmethod
    def forecast(cls, params: Any, work: Workload) -> float:
        return float(params.epochs * work.images * work.seconds_per_image)
