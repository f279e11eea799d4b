from __future__ import annotations

import torch
from torch import Tensor

from iadd.methods._selection import TrainedSelection
from iadd.train import fixed_statistics, predict


class Forgetting(TrainedSelection):
    """Forgetting: the images that training most often gets right and then wrong again.

    Toneva et al., ICLR 2019, arXiv 1812.05159. Images never learned count as most forgotten;
    ties are broken at random. Correctness is read once an epoch on the unaugmented images.
    """

    def choose(self, observed: Tensor) -> Tensor:
        return observed.argsort(descending=True)[: self.problem.ipc]

    def observe(self, generator: torch.Generator) -> Tensor:
        """Number of correct -> wrong changes plus a random tie break below 1, float (N,)."""
        data, network = self.problem.dataset.train, self.problem.network
        events = torch.rand(len(data.labels), generator=generator)
        before = torch.zeros(len(data.labels), dtype=torch.bool)
        learned = before.clone()

        def count(epoch: int, params: Tensor) -> None:
            statistics = fixed_statistics(network, params, data.images)
            said = predict(network, params, data.images, statistics).argmax(1)
            correct = (said == data.labels).cpu()
            events.add_((before & ~correct).float())
            before.copy_(correct)
            learned.logical_or_(correct)

        self.train(generator, on_epoch=count)
        never: Tensor = (~learned).float() * self.params.epochs
        return events + never
