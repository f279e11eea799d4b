"""The masks of ddpp and pad: which parameters stay, and the loss over them in float64."""

import pytest
import torch
from method_cases import SEEDS, make, small_problem
from torch import Tensor

from iadd import methods
from iadd.seeds import generator_for


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return small_problem(tmp_path_factory.mktemp("experts"))


def three(size: int) -> tuple[Tensor, Tensor, Tensor]:
    student, start, target = torch.randn(3, size, generator=generator_for("three"))
    return student, start, target


@pytest.mark.parametrize(("name", "stay"), [("ddpp", [0, 1, 3]), ("pad", [1, 2, 3])])
def test_which_parameters_stay_by_hand(name: str, stay: list[int], task: methods.Problem) -> None:
    student, target = torch.tensor([1.0, 2.0, -9.0, 3.0]), torch.tensor([1.1, 0.0, 0.0, 0.0])
    mask = make(name, task, pruned=0.49).mask(student, target)  # 1.96 of 4: one
    assert mask.nonzero().flatten().tolist() == stay


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("name", ["ddpp", "pad"])
def test_loss_and_gradient_equal_float64(name: str, share: float, task: methods.Problem) -> None:
    """Both sides of the ratio over the same parameters, no gradient through the choice."""
    student, start, target = three(1000)
    method, leaf = make(name, task, pruned=share), student.clone().requires_grad_()
    found = method.loss(leaf, start, target, {})
    (gradient,) = torch.autograd.grad(found.weighted, leaf)

    s = student.double().requires_grad_()
    order = (s - target).detach().square().argsort(descending=name == "ddpp")
    kept = order[int(share * 1000) :]
    movement = (start - target).double().square()
    loss = (s - target.double()).square()[kept].sum() / movement[kept].sum()
    (expected,) = torch.autograd.grad(loss, s)
    assert float(found.weighted.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert torch.allclose(gradient.double(), expected, rtol=1e-5, atol=1e-9)
    assert method.columns({}) == {"kept": pytest.approx(1 - share)}
    plain = (s.detach() - target).square().sum() / movement.sum()
    assert float(found.unweighted) == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.parametrize("name", ["ddpp", "pad"])
def test_without_pruning_it_is_mtt_bit_for_bit(name: str, task: methods.Problem) -> None:
    mtt = methods.distill(make("mtt", task), SEEDS)
    none = methods.distill(make(name, task, pruned=0.0), SEEDS)
    assert torch.equal(mtt.images, none.images) and mtt.step_size == none.step_size
    some = methods.distill(make(name, task, pruned=0.3), SEEDS)
    assert not torch.equal(mtt.images, some.images)
