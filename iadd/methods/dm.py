from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from iadd.augment import augment, augment_adjoint
from iadd.engine import backend
from iadd.methods._base import Matching, MatchingParams, MethodParams, Outer, Space


class DMParams(MatchingParams):
    """Settings of distribution matching."""

    iterations: int = Field(20000, ge=1, description="Updates of the images.")
    lr_img: float = Field(1.0, gt=0, description="Learning rate of the pixels (SGD).")
    batch_real: int = Field(256, ge=1, description="Real images a class and update.")

    changing: ClassVar[frozenset[str]] = MatchingParams.changing | {"batch_real"}


class DM(Matching):
    """Dataset Condensation with Distribution Matching: class-mean embeddings on random networks.

    Zhao, Bilen; WACV 2023; arXiv 2110.04181, equation 4: a fresh random network an iteration,
    siamese augmentation, `sum_c ||mean phi(A(T_c)) - mean phi(A(S_c))||^2`.
    """

    Params: ClassVar[type[MethodParams]] = DMParams
    space: ClassVar[Space] = {"lr_img": ("log", 1e-2, 1e2), "batch_real": [32, 64, 128, 256]}

    def outer(self, images: Tensor, step_size: float, generator: torch.Generator) -> Outer:
        problem, network = self.problem, self.problem.network
        train = problem.dataset.train.images
        net = network.init(generator).to(train.device)
        real, draws, lengths = [], [], []
        for label in range(network.classes):
            rows = problem.class_rows(label)
            rows = rows[torch.randperm(len(rows), generator=generator)[: self.params.batch_real]]
            draw = problem.augmentation.draw(generator)
            real.append(augment(train[rows], draw))
            draws.append(draw)
            lengths.append(len(rows))
        features = backend.embed(network, net, torch.cat(real)).split(lengths)
        mean_real = torch.stack([part.mean(0) for part in features])  # (K, F)
        classes = zip(images.split(problem.ipc), draws, strict=True)
        seen = torch.cat([augment(own, draw) for own, draw in classes])
        mean = backend.embed(network, net, seen).view(network.classes, problem.ipc, -1)
        difference = mean.mean(1) - mean_real  # (K, F)
        loss = float(difference.square().sum())
        cotangent = (2 / problem.ipc * difference).repeat_interleave(problem.ipc, 0)  # (N, F)
        by_seen = backend.embed_gradient(network, net, seen, cotangent).split(problem.ipc)
        classes = zip(by_seen, draws, strict=True)
        gradient = torch.cat([augment_adjoint(own, draw) for own, draw in classes])
        return Outer(loss, loss, gradient, 0.0, backend.path(network, net))
