from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from iadd.augment import augment, augment_adjoint
from iadd.methods._base import Gradients, Iterative, IterativeParams, Rate, Workload


class DMParams(IterativeParams):
    """Settings of distribution matching."""

    iterations: int = Field(20000, ge=1, description="Updates of the images.")
    lr_img: Rate = Field(1.0, gt=0, description="Learning rate of the pixels (SGD).")
    batch_real: int = Field(256, ge=1, description="Real images a class and update.")


class DM(Iterative):
    """Dataset Condensation with Distribution Matching: class-mean embeddings on random networks.

    Zhao, Bilen; WACV 2023; arXiv 2110.04181, equation 4: a fresh random network an iteration,
    siamese augmentation, `sum_c ||mean phi(A(T_c)) - mean phi(A(S_c))||^2`.
    """

    Params = DMParams
    space: ClassVar = {"lr_img": ("log", 1e-2, 1e2), "batch_real": [32, 64, 128, 256]}

    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients:
        problem, backend = self.problem, self.problem.backend
        net = problem.network.init(generator).to(problem.device)
        real, draws = [], []
        for label in range(problem.dataset.classes):
            batch = problem.batch(label, self.params.batch_real, generator)
            draws.append(problem.augmentation.draw(generator))
            real.append(augment(batch, draws[-1]))
        features = backend.embed(net, torch.cat(real)).split([len(part) for part in real])
        mean_real = torch.stack([part.mean(0) for part in features])  # (K, F)
        classes = zip(variables["images"].split(problem.ipc), draws, strict=True)
        seen = torch.cat([augment(own, draw) for own, draw in classes])
        mean = backend.embed(net, seen).view(len(real), problem.ipc, -1).mean(1)  # (K, F)
        difference = mean - mean_real
        cotangent = (2 / problem.ipc * difference).repeat_interleave(problem.ipc, 0)  # (N, F)
        by_seen = backend.embed_gradient(net, seen, cotangent).split(problem.ipc)
        by_images = [augment_adjoint(own, d) for own, d in zip(by_seen, draws, strict=True)]
        loss = float(difference.square().sum())
        return Gradients(loss, {"images": torch.cat(by_images)}, backend.name)

    @classmethod
    def forecast(cls, params: Any, work: Workload) -> float:
        passes = work.classes * params.batch_real / 2 + 2 * work.synthetic
        return float(params.iterations * passes * work.seconds_per_image)
