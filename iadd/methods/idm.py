from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from iadd.augment import augment
from iadd.methods._base import Gradients, Iterative, IterativeParams, Problem, Rate, Workload
from iadd.methods._variables import Variable
from iadd.synthetic.decoding import Decoding, check, compose, decode, partition


class IDMParams(IterativeParams):
    """Settings of improved distribution matching."""

    iterations: int = Field(20000, ge=1, description="Updates of the images.")
    lr_img: Rate = Field(0.2, gt=0, description="Learning rate of the pixels (SGD).")
    factor: int = Field(2, ge=1, description="Stored images hold factor x factor small ones.")
    batch_real: int = Field(256, ge=1, description="Real images a class and update.")
    ce_weight: float = Field(0.5, ge=0, description="Weight of the classification loss.")
    networks: int = Field(100, ge=1, description="Longest queue of networks; the oldest leaves.")
    new_every: int = Field(30, ge=1, description="Iterations after which a network is added.")
    trained: int = Field(2, ge=0, description="Networks trained on real data an iteration.")
    train_steps: int = Field(10, ge=1, description="Steps of each.")
    train_batch: int = Field(256, ge=1, description="Real images a step.")
    lr_net: Rate = Field(0.01, gt=0, description="Learning rate of that training.")


class IDM(Iterative):
    """Improved Distribution Matching for Dataset Condensation: DM on a queue of trained networks.

    Zhao, Li, Qin, Yu; CVPR 2023; arXiv 2307.09742: an image is 2 x 2 small ones, enlarged; a random
    network of the queue; `sum_c ||mean phi(A(T_c)) - mean phi(A(S_c))||^2 + 100 w a CE_c`, a its
    accuracy in training, by SGD with momentum 0.9 and weight decay 5e-4; it begins with three.
    Differs: classes are updated together, and a is that of a network's last training batch.
    """

    Params = IDMParams
    space: ClassVar = {"lr_img": ("log", 1e-2, 1e1), "ce_weight": ("log", 1e-2, 1e1)}
    trace_columns: ClassVar = {"network_accuracy": "Accuracy in training of the network used."}

    def __init__(self, params: Any, problem: Problem) -> None:
        super().__init__(params, problem)
        check(self.decoding, problem.dataset.resolution)
        self.least_loss += 100 * params.ce_weight * problem.dataset.classes  # at first a is 0

    @property
    def decoding(self) -> Decoding | None:
        return partition(self.params.factor)

    def initial(self, generator: torch.Generator) -> Tensor:
        if self.params.init == "noise":
            return super().initial(generator)
        train, draw = self.problem.dataset.train, self.problem.random_rows
        parts = [train.images[draw(generator)] for _ in range(self.params.factor**2)]
        return compose(parts, self.decoding)

    def variables(self, images: Tensor) -> dict[str, Variable]:
        nets = images.new_zeros(self.params.networks, self.problem.network.num_parameters)
        tensors = {"nets": nets, "speeds": nets.clone(), "accuracies": torch.zeros(len(nets))}
        tensors |= {"made": torch.tensor(0)}
        return super().variables(images) | {k: Variable(v, None) for k, v in tensors.items()}

    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients:
        p, nets, accuracies = self.params, variables["nets"], variables["accuracies"]
        for _ in range(3 * (iteration == 0) + (iteration % p.new_every == 0)):
            place = int(variables["made"]) % len(nets)
            nets[place].copy_(self.problem.network.init(generator))
            variables["speeds"][place], accuracies[place] = 0, 0
            variables["made"].add_(1)
        alive = min(int(variables["made"]), len(nets))
        used = int(torch.randint(alive, (), generator=generator))
        accuracy = float(accuracies[used])
        with torch.enable_grad():
            leaf = variables["images"].detach().requires_grad_()
            loss = self.loss(nets[used], leaf, 100 * accuracy, generator)
            (by_images,) = torch.autograd.grad(loss, leaf)
        for k in torch.randperm(alive, generator=generator)[: p.trained].tolist():
            accuracies[k] = self.train(nets[k], variables["speeds"][k], generator)
        columns = {"network_accuracy": accuracy}
        return Gradients(float(loss.detach()), {"images": by_images}, "autograd", columns=columns)

    def loss(self, net: Tensor, images: Tensor, percent: float, g: torch.Generator) -> Tensor:
        """The loss () at stored images (N, C, H, W) under a network (P,)."""
        problem, backend, means, seen = self.problem, self.problem.for_classes(net, g), [], []
        whole, labels = decode(images, problem.labels(), self.decoding)
        for label in range(problem.dataset.classes):
            draw = problem.augmentation.draw(g)
            batch = problem.batch(label, self.params.batch_real, g)
            means.append(backend.embed(net, augment(batch, draw)).mean(0))
            seen.append(augment(whole[labels == label], draw))
        together, targets = torch.cat(seen), labels.sort().values.to(images.device)
        features = backend.network.embed(net, together).view(len(seen), len(seen[0]), -1)
        apart: Tensor = (features.mean(1) - torch.stack(means)).square().sum()
        wrong = F.cross_entropy(backend.network.apply(net, together), targets)  # mean of classes
        return apart.add(wrong, alpha=self.params.ce_weight * percent * len(seen))

    def train(self, net: Tensor, speed: Tensor, generator: torch.Generator) -> float:
        """Train a network in place on real batches; then its accuracy on the last."""
        data, p, backend = self.problem.dataset.train, self.params, self.problem.backend
        for _ in range(p.train_steps):
            rows = torch.randperm(len(data), generator=generator)[: p.train_batch]
            images, labels = data.images[rows], data.labels[rows].to(net.device)
            targets = F.one_hot(labels, self.problem.network.classes).float()
            _, gradient = backend.gradient(net, images, targets)
            speed.mul_(0.9).add_(gradient.add_(net, alpha=5e-4))
            net.sub_(speed, alpha=p.lr_net)
        return float((backend.logits(net, images).argmax(1) == labels).float().mean())

    @classmethod
    def forecast(cls, params: Any, work: Workload) -> float:
        real = work.classes * params.batch_real / 2 + 3 * params.factor**2 * work.synthetic
        training = params.trained * params.train_steps * params.train_batch * 1.5
        return float(params.updates * (real + training) * work.seconds_per_image)
