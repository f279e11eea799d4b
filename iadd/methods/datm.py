from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from iadd.methods._base import Gradients, Skip
from iadd.methods._trajectory import SoftTrajectoryParams, Trajectory


class DATMParams(SoftTrajectoryParams):
    """MTT's settings, those of the labels and of the start range, and when an update is skipped."""

    iterations: int = Field(10000, ge=1, description="Outer iterations: updates of the images.")
    init_right: bool = Field(
        True, description="Real images to start from are some that an expert classifies rightly."
    )
    label_epoch: int | None = Field(
        None,
        ge=1,
        description="Epoch of the experts that choose the first images and label them; none: the "
        "last one kept.",
    )
    threshold: float = Field(1.0, gt=0, description="An update with a larger loss is skipped.")

    @property
    def reach(self) -> int:
        return max(super().reach, self.label_epoch or 0)


class DATM(Trajectory):
    """Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching.

    Guo, Wang, Cazenavette, Li, Zhang, You; ICLR 2024; arXiv 2310.05773: MTT on flat experts with
    learned soft labels. Start epochs come from `min_start` up to a bound that grows
    (`first_max_start`, `expansion_end`); updates whose loss exceeds a threshold are skipped; images
    begin as real ones that an expert classifies rightly, labels as the mean logits of the experts
    that do.
    """

    Params = DATMParams
    experts = "flat"
    label_kind = "soft"
    space: ClassVar = Trajectory.space | {"lr_y": ("log", 0.1, 20.0)}

    @property
    def epoch(self) -> int:
        """Of the experts that choose and label images."""
        return int(self.params.label_epoch or self.trajectories.epochs)

    def initial(self, generator: torch.Generator) -> Tensor:
        if not self.params.init_right or self.params.init != "real":
            return super().initial(generator)
        order = [
            rows[torch.randperm(len(rows), generator=generator)]
            for rows in self.problem.dataset.class_rows
        ]
        chosen = [self.right(label, rows) for label, rows in enumerate(order)]
        return self.problem.dataset.train.images[torch.cat(chosen)].clone()

    def right(self, label: int, rows: Tensor) -> Tensor:
        """The first ipc of a class's rows that an expert gets right, expert after expert.

        Where all of them together get too few right, the first others fill up.
        """
        problem, found = self.problem, dict[int, None]()
        for expert in range(self.trajectories.count):
            for part in rows.split(256):
                images = problem.dataset.train.images[part]
                said = problem.expert_logits(expert, self.epoch, images).argmax(1).cpu()
                found |= dict.fromkeys(part[said == label].tolist())
                if len(found) >= problem.ipc:
                    return torch.tensor([*found][: problem.ipc])
        return torch.tensor([*(found | dict.fromkeys(rows.tolist()))][: problem.ipc])

    def initial_labels(self, images: Tensor) -> Tensor:
        """Mean logits (N, K) of the experts that classify an image rightly; of all if none does."""
        if not self.params.init_right:
            return super().initial_labels(images)
        labels = self.problem.labels().to(images.device)
        total = right = every = torch.zeros(len(images), 1, device=images.device)
        for expert in range(self.trajectories.count):
            logits = self.problem.expert_logits(expert, self.epoch, images)
            is_right = (logits.argmax(1) == labels).float()[:, None]
            total, right, every = total + is_right * logits, right + is_right, every + logits
        return torch.where(right > 0, total / right.clamp(min=1), every / self.trajectories.count)

    def gradients(  # type: ignore[override]
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients | Skip:
        found = super().gradients(iteration, variables, generator)
        if isinstance(found, Gradients) and found.loss > self.params.threshold:
            return Skip(f"loss above {self.params.threshold:g}", found.loss)
        return found
