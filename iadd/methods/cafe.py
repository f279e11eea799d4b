from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from iadd.augment import Augmentation, augment
from iadd.methods._base import Gradients, Iterative, IterativeParams, Rate, Workload
from iadd.methods._variables import Variable
from iadd.train import TrainingPlan, train

LAYERS = (0.1, 0.1, 1.0, 2.0)
"""Weights of the last three activations and of the features, which count as a map and flattened."""
WINDOW, REAL = 10, 128  # accuracies looked back at, and real images a class of each
UNSEEN = -1.0  # in the place of an accuracy: farther from any than a range
HALVED = (0.6, 0.8, 0.9)  # shares of the run at which the step is halved: 1,200 of 2,000 networks


class CAFEParams(IterativeParams):
    """Settings of feature alignment."""

    iterations: int = Field(20000, ge=1, description="Updates of the images.")
    lr_img: Rate = Field(0.1, gt=0, description="Learning rate of the pixels (SGD).")
    init: Literal["real", "noise"] = Field("noise", description="What the images start from.")
    batch_real: int = Field(256, ge=1, description="Real images a class and update.")
    lr_net: Rate = Field(0.01, gt=0, description="Learning rate of the network.")
    inner_weight: float = Field(0.01, ge=0, description="Weight of the discrimination loss.")
    outer_range: float = Field(
        0.04, gt=0, description="A network whose last ten accuracies differ by less is replaced."
    )
    inner_range: float = Field(
        0.03, ge=0, description="Training ends where its last ten accuracies differ by more."
    )
    inner_epochs: int = Field(100, ge=1, description="Epochs of training between updates, at most.")
    siamese: bool = Field(False, description="Siamese augmentation, as in CAFE+DSA.")


class CAFE(Iterative):
    """CAFE: Learning to Condense Dataset by Aligning Features, with its two dynamic loops.

    Wang et al., CVPR 2022, arXiv 2203.01531: `sum_l w_l sum_c ||mean f_l(T_c) - mean f_l(S_c)||^2`
    over the last blocks and the features, plus the cross entropy (a sum, as in their code) of real
    features classified by the synthetic class means. Ours counts updates where theirs counts
    networks, of ten updates or more, measures accuracy as it is, and bounds the inner loop.
    """

    Params = CAFEParams
    space: ClassVar = {"lr_img": ("log", 1e-2, 1e1), "inner_weight": ("log", 1e-3, 1e-1)}

    def variables(self, images: Tensor) -> dict[str, Variable]:
        net = torch.zeros(self.problem.network.num_parameters, device=images.device)
        seen = torch.full((WINDOW,), UNSEEN)
        found = {"net": Variable(net, None), "accuracies": Variable(seen, None)}
        return super().variables(images) | found

    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients:
        images, net, past = (variables[name] for name in ("images", "net", "accuracies"))
        if float(past.max() - past.min()) < self.params.outer_range:
            net.copy_(self.problem.network.init(generator))
            past.fill_(UNSEEN)
        else:
            self.train(net, images, generator)
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            loss = self.loss(net, leaf, generator)
            (by_images,) = torch.autograd.grad(loss, leaf)
        past.copy_(torch.cat([past[1:], self.accuracy(net, generator)]))
        halvings = sum(iteration >= share * self.params.updates for share in HALVED)
        return Gradients(float(loss.detach()), {"images": by_images / 2**halvings}, "autograd")

    def loss(self, net: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
        """The loss () at images (N, C, H, W) under a network (P,), on fresh real batches."""
        problem, network = self.problem, self.problem.for_classes(net, generator).network
        p, real, seen, features = self.params, [], [], []
        for label, part in enumerate(images.split(problem.ipc)):
            batch = problem.batch(label, p.batch_real, generator)
            draw = problem.augmentation.draw(generator) if p.siamese else None
            with torch.no_grad():  # of real images the means alone are kept: maps fill a card
                layers = network.activations(net, augment(batch, draw))[-len(LAYERS) :]
                real.append([layer.mean(0) for layer in layers])
                features.append(layers[-1])
            seen.append(augment(part, draw))
        own = problem.network.activations(net, torch.cat(seen))[-len(LAYERS) :]
        means = [layer.unflatten(0, (len(seen), problem.ipc)).mean(1) for layer in own]  # (K, ...)
        labels = torch.cat([f.new_full((len(f),), c) for c, f in enumerate(features)]).long()
        wrong = F.cross_entropy(torch.cat(features) @ means[-1].T, labels, reduction="sum")
        total: Tensor = p.inner_weight * wrong
        for weight, ours, *theirs in zip(LAYERS[-len(own) :], means, *real, strict=True):
            total.add_((torch.stack(theirs) - ours).square().sum(), alpha=weight)
        return total

    def accuracy(self, net: Tensor, generator: torch.Generator) -> Tensor:
        """Mean share (1,) of some real images of each class that the network gets right."""
        problem, logits = self.problem, self.problem.for_classes(net, generator).logits
        batches = (problem.batch(k, REAL, generator) for k in range(problem.dataset.classes))
        right = [logits(net, batch).argmax(1) == label for label, batch in enumerate(batches)]
        return torch.stack([part.float().mean().cpu() for part in right]).mean(0, keepdim=True)

    def train(self, net: Tensor, images: Tensor, generator: torch.Generator) -> None:
        """Train the network in place on the images until its real accuracy has moved."""
        plan, targets = TrainingPlan(1, 256, self.params.lr_net), self.problem.one_hot()
        seen_as = self.problem.augmentation if self.params.siamese else Augmentation(())
        network, past = self.problem.network, list[float]()
        for _ in range(self.params.inner_epochs):
            net.copy_(train(network, net, images, targets, plan, seen_as, generator))
            past = [*past[1 - WINDOW :], float(self.accuracy(net, generator))]
            if len(past) == WINDOW and max(past) - min(past) > self.params.inner_range:
                return

    @classmethod
    def forecast(cls, params: Any, work: Workload) -> float:
        real = work.classes * (params.batch_real + (WINDOW + 1) * REAL) / 2
        passes = real + (2 + WINDOW) * work.synthetic
        return float(params.updates * passes * work.seconds_per_image)
