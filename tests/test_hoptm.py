"""HoP-TM: which parameters are compared, the path's shape, gradients against float64."""

import pytest
import torch
import torch.nn.functional as F
from method_cases import SEEDS, assert_near, exact_student, first_look, make, small_problem
from method_cases import without_augmentation as plain
from torch import Tensor

from iadd import methods
from iadd.methods.hoptm import corners


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return plain(small_problem(tmp_path_factory.mktemp("experts")))


def cosines(states: list[Tensor]) -> Tensor:
    """The paper's A: of all differences from each state, the cosines of all pairs, (27,)."""
    path = torch.stack(states)
    differences = path[None] - path[:, None]  # (3, 3, P)
    unit = differences / differences.norm(dim=2, keepdim=True).clamp_min(1e-12)
    return torch.einsum("ijp,ikp->ijk", unit, unit).flatten()


@pytest.mark.parametrize("base", [1e-12, 1e-5])
def test_gradients_equal_float64(base: float, task: methods.Problem) -> None:
    """Biases before a norm stay where they were: while only they are compared, L is the shape."""
    method = make("hoptm", task, unrolled_steps=5, expert_epochs=2, base=base, shape=0.7)
    variables, generator = first_look(method)
    found = method.gradients(0, variables, generator)
    exact = exact_student(method, variables, generator)
    expert, epoch = method.draw_start(generator)
    middle = task.experts.snapshot(expert, epoch + 1).double()
    residual = (exact.states[5] - exact.target).square()
    compared, movement = residual < base, (exact.start - exact.target).square()
    moved = bool((compared * movement).any())
    ratio = (compared * residual).sum() / (compared * movement).sum() if moved else torch.zeros(())
    assert moved == (base == 1e-5)
    student = cosines([exact.start, exact.states[2], exact.states[5]])
    teacher = cosines([exact.start, middle, exact.target])
    loss = ratio + 0.7 * F.smooth_l1_loss(student, teacher)
    by_images, by_rate = torch.autograd.grad(loss, [exact.images, exact.rate])
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-3)
    assert found.columns["kept"] == pytest.approx(float(compared.double().mean()), abs=0.01)
    assert_near(found.by["images"], by_images, 5e-3)
    assert_near(found.by["step_size"], by_rate, 5e-3)


def test_a_first_loss_near_zero_makes_no_later_one_an_explosion(task: methods.Problem) -> None:
    """Rule: the parameters of the first look are chosen by their residuals in that look."""
    method = make("hoptm", task, iterations=4, base=1e-9, shape=0.0, lr_img=1e-3)
    result = methods.distill(method, SEEDS)
    losses = [row["loss"] for row in result.trace]
    assert 50 * max(losses[0], 1e-3) < min(losses[1:]) and result.status == "ok"
    assert not any(row["event"] for row in result.trace)


def test_corners_by_hand() -> None:
    a, b, c = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert corners(a, b, c).tolist() == pytest.approx([0, 3 / 5, 4 / 5])


def test_the_threshold_grows_and_no_parameter_is_left_again(task: methods.Problem) -> None:
    method = make("hoptm", task, base=1e-4, growth=10, growth_every=2, shape=0)
    own = {"compared": method.own_variables()["compared"].value[:4]}
    start, target = torch.ones(4), torch.zeros(4)

    def kept(iteration: int, *student: float) -> list[int]:
        method.threshold = 1e-4 * 10.0 ** (iteration // 2)
        method.loss(torch.tensor(student), start, target, own)
        return own["compared"].nonzero().flatten().tolist()

    method.middle = target / 2
    assert kept(0, 0.009, 0.011, 1, 1) == [0]
    assert kept(1, 5.0, 0.011, 1, 1) == [0]
    assert kept(2, 5.0, 0.011, 1, 1) == [0, 1]
    found = method.loss(torch.tensor([5.0, 0.5, 9, 9]), start, target, own)
    assert float(found) == pytest.approx((25 + 0.25) / 2)


@pytest.mark.parametrize(("iteration", "threshold"), [(0, 2e-9), (499, 2e-9), (1000, 8e-9)])
def test_the_threshold_of_an_iteration(
    iteration: int, threshold: float, task: methods.Problem
) -> None:
    method = make("hoptm", task, base=2e-9, growth=2.0)
    method.gradients(iteration, *first_look(method))
    assert method.threshold == pytest.approx(threshold)
    method.gradients(10**9, *first_look(method))
    assert method.threshold == float("inf")
