"""What the selections on features share: a network trained on the real data, and its embedding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from iadd.engine import backend
from iadd.methods._base import Method, MethodParams
from iadd.train import Schedule, train


class SelectionParams(MethodParams):
    """How the network that looks at the data is trained."""

    epochs: int = Field(20, ge=1, description="Epochs of the network whose features are used.")
    step_size: float = Field(0.01, gt=0, description="Its learning rate (SGD, momentum 0.9).")
    batch: int = Field(128, ge=1, description="Its batch size.")


class Selection(Method):
    """Base of methods that choose `ipc` real images a class by what a trained network says."""

    Params: ClassVar[type[MethodParams]] = SelectionParams

    @abstractmethod
    def choose(self, observed: Tensor) -> Tensor:
        """Positions (ipc,) of the chosen among one class's rows of what `observe` gave."""

    def observe(self, generator: torch.Generator) -> Tensor:
        """What is known of every training image: by default its embedding (N, F)."""
        params = self.train(generator)
        parts = self.problem.dataset.train.images.split(512)
        return torch.cat([backend.embed(self.problem.network, params, part) for part in parts])

    def initial(self, generator: torch.Generator) -> Tensor:
        observed = self.observe(generator).cpu()
        chosen = []
        for label in range(self.problem.dataset.classes):
            rows = self.problem.class_rows(label)
            chosen.append(rows[self.choose(observed[rows])])
        return self.problem.dataset.train.images[torch.cat(chosen)]

    def train(
        self, generator: torch.Generator, on_epoch: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """Parameters (P,) of a network trained on the training images."""
        data, network = self.problem.dataset.train, self.problem.network
        return train(
            network,
            network.init(generator),
            data.images,
            F.one_hot(data.labels, network.classes).float(),
            Schedule(self.params.epochs, self.params.batch, self.params.step_size, momentum=0.9),
            self.problem.augmentation,
            generator,
            on_epoch,
        )
