from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from iadd.methods._base import MethodParams, Selection


class SoftLabelParams(MethodParams):
    """When the expert that gives the labels was stopped."""

    expert_epoch: int = Field(
        20, ge=1, description="Epoch after which the expert that gives the labels was stopped."
    )

    @property
    def reach(self) -> int:
        return self.expert_epoch


class SoftLabel(Selection):
    """Random real images with the soft labels of an early-stopped expert: no distillation at all.

    Qin, Deng, Alvarez-Melis: A Label is Worth a Thousand Images in Dataset Distillation; NeurIPS
    2024; arXiv 2406.10485, section 3: labels softmax(f(x)) of one expert f, stopped the earlier
    the fewer the images are. The images are those of `random`; kept are the logits f(x). What
    every method with soft labels must beat. Their experts on CIFAR-10 learn at 5e-4.
    """

    Params = SoftLabelParams
    experts = "standard"
    label_kind = "soft"

    def rows(self, generator: torch.Generator) -> Tensor:
        return self.problem.random_rows(generator)

    def labels(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        expert = int(torch.randint(self.trajectories.count, (), generator=generator))
        images = self.problem.dataset.train.pick(rows)
        return self.problem.expert_logits(expert, self.params.expert_epoch, images)
