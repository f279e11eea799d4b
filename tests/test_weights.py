"""The step on IADD's importance weights: Adam through clamp and mean, with joint descent."""

from itertools import pairwise

import pytest
import torch

from iadd.engine.distance import WeightsRule, distance, weights_step


@pytest.mark.parametrize("maximise", [True, False])
def test_step_is_adam_through_the_normalisation(maximise: bool) -> None:
    """Against autograd through w = clamp(v / mean(v)) and torch's own Adam, over several steps."""
    rule = WeightsRule(lr=0.3, high=1.3, maximise=maximise)
    generator = torch.Generator().manual_seed(2)
    parameter = torch.ones(500, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=rule.lr, maximize=maximise)
    v, weights = torch.ones(500, dtype=torch.float64), torch.ones(500, dtype=torch.float64)
    averages = torch.zeros(2, 500, dtype=torch.float64)
    for count in range(1, 12):
        gradient = torch.randn(500, generator=generator, dtype=torch.float64)
        adam.zero_grad()
        (parameter / parameter.mean()).clamp(0.0, rule.high).backward(gradient)
        adam.step()
        weights_step(v, weights, gradient, *averages, count, rule)
        assert float((v - parameter.detach()).abs().max()) < 1e-12
        normal = (parameter / parameter.mean()).clamp(0.0, rule.high).detach()
        assert float((weights - normal).abs().max()) < 1e-12
    assert bool((weights == 0).any()) and bool((weights == rule.high).any())


def test_step_descends_the_distance() -> None:
    """Joint use: the gradient by the weights, as it is, lowers the loss."""
    g = torch.Generator().manual_seed(16)
    student, start, target = torch.randn(3, 2000, generator=g)
    v, weights, averages = torch.ones(2000), torch.ones(2000), torch.zeros(2, 2000)
    losses = []
    for count in range(1, 30):
        leaf = weights.clone().requires_grad_()
        loss = distance(student, start, target, leaf).weighted
        losses.append(float(loss.detach()))
        (gradient,) = torch.autograd.grad(loss, leaf)
        weights_step(v, weights, gradient, *averages, count, WeightsRule(lr=0.01))
        assert float(weights.mean()) == pytest.approx(1, abs=1e-6)
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_step_with_no_rate_leaves_every_bit_of_the_weights() -> None:
    v, weights, averages = torch.ones(5000), torch.ones(5000), torch.zeros(2, 5000)
    weights_step(v, weights, torch.randn(5000), *averages, 1, WeightsRule(lr=0.0))
    assert torch.equal(v, torch.ones(5000)) and torch.equal(weights, torch.ones(5000))
