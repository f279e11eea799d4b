"""Steps of SGD: by hand, and over fixed buffers as a card captures them."""

import pytest
import torch
from torch import Tensor

from iadd.augment import FAMILIES, Augmentation
from iadd.engine.backend import choose_backend
from iadd.engine.descent import CapturedStep, Descent, TrainingPlan
from iadd.networks import build_network
from iadd.seeds import generator_for
from iadd.train import train, train_many

PLANS = (
    TrainingPlan(3, 4, 0.05),
    TrainingPlan(3, 4, 0.05, momentum=0.9, weight_decay=0.01, drops=(2,)),
    TrainingPlan(3, 4, 0.05, rho=0.1, alpha=0.2),
)


class Slope:
    """Not a network: a loss whose gradient is the targets' mean, whatever the parameters are."""

    def gradient(self, params: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return targets.sum(), targets.mean(0)


def test_two_steps_by_hand() -> None:
    """Gradient 1, momentum 1/2, decay 0: velocities 1 and 3/2, so 2 - 0.1 - 0.15 = 1.75."""
    plan = TrainingPlan(1, 1, 0.1, momentum=0.5)
    descent = Descent(Slope(), torch.tensor([[2.0]]), plan)  # type: ignore[arg-type]
    for _ in range(2):
        descent.step(torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1))
    assert float(descent.params) == pytest.approx(1.75)


@pytest.mark.parametrize("plan", PLANS)
def test_fixed_buffers_take_the_same_steps(plan: TrainingPlan) -> None:
    g = generator_for("buffers")
    network = build_network("convnet-d1-w4", 3, 8, 3)
    backend = choose_backend(network, torch.device("cpu"), torch.float64)
    params = torch.stack([network.init(g).double() for _ in range(2)])
    plain, other = (Descent(backend, start, plan) for start in (params, params + 1))
    buffered, beside = (Descent(backend, start, plan) for start in (params, params + 1))
    fixed = CapturedStep(backend, plain.rule, (2, 4, 3, 8, 8))
    for _ in range(3):
        images = torch.randn(2, 4, 3, 8, 8, generator=g, dtype=torch.float64)
        targets = torch.rand(2, 4, 3, generator=g, dtype=torch.float64)
        for descent in (plain, other):
            descent.step(images, targets)
        for descent in (buffered, beside):  # through the same buffers in turn
            fixed.run(descent, images, targets)
    for ours, wanted in ((buffered, plain), (beside, other)):
        assert float((ours.params - wanted.params).abs().max()) < 1e-12


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["convnet-d2-w8", "mlp-w8", "lenet", "convnet-d1-w4-batchnorm"])
@pytest.mark.parametrize("plan", PLANS)
def test_a_card_trains_as_the_cpu_does(name: str, plan: TrainingPlan) -> None:
    g = generator_for("card")
    network = build_network(name, 3, 8, 3)
    images = torch.randn(10, 3, 8, 8, generator=g, dtype=torch.float64)
    targets = torch.eye(3, dtype=torch.float64)[torch.arange(10) % 3]
    starts = torch.stack([network.init(g).double() for _ in range(2)])
    longer = TrainingPlan(**(vars(plan) | {"epochs": 12}))  # long enough to be captured
    rest = (targets, longer, Augmentation(FAMILIES))

    def streams() -> list[torch.Generator]:
        return [generator_for("one", m) for m in range(2)]

    there = (images.cuda(), targets.cuda(), *rest[1:])
    many = train_many(network, starts, *there, streams())
    for m in range(2):
        on_cpu = train(network, starts[m], images, *rest, streams()[m])
        alone = train(network, starts[m], *there, streams()[m])
        for found in (many[m], alone):
            assert float((found.cpu() - on_cpu).abs().max()) < 1e-8
