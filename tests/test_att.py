"""ATT: the student's nearest step is compared, against float64 and by hand."""

import pytest
import torch
from method_cases import assert_near, exact_student, first_look, make, small_problem
from method_cases import without_augmentation as plain

from iadd import methods


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return plain(small_problem(tmp_path_factory.mktemp("experts")))


@pytest.mark.parametrize(
    ("states", "nearest"),
    [
        ([3.0, 1.0, 2.0], 2),
        ([1.0, 2.0, 1.0], 3),  # of equals the later
        ([-1.0, 2.0, 3.0], 1),
        ([5.0, 4.0, float("nan")], 2),
        ([float("nan"), 4.0, 5.0], 1),
    ],
)
def test_the_nearest_step_by_hand(states: list[float], nearest: int, task: methods.Problem) -> None:
    method, target = make("att", task, unrolled_steps=3), torch.zeros(2)
    for _ in range(2):  # what an earlier iteration found is forgotten
        told = [method.compares(j, torch.tensor([s, 0]), target) for j, s in enumerate(states, 1)]
        assert max(j for j, better in enumerate(told, 1) if better) == nearest
        assert method.columns({}) == {"nearest_step": nearest}


@pytest.mark.parametrize(("step_size", "inside"), [(0.6, True), (0.001, False)])
def test_gradients_equal_float64(step_size: float, inside: bool, task: methods.Problem) -> None:
    """A student that overshoots is compared where it was nearest, one that is slow at its end."""
    method = make("att", task, unrolled_steps=9, step_size=step_size)
    variables, generator = first_look(method)
    found = method.gradients(0, variables, generator)
    exact = exact_student(method, variables, generator)
    apart = [float((s - exact.target).detach().abs().sum()) for s in exact.states[1:]]
    nearest = 1 + apart.index(min(apart))
    assert found.columns == {"nearest_step": nearest} and (nearest < 9) == inside
    mismatch = (exact.states[nearest] - exact.target).square().sum()
    loss = mismatch / (exact.start - exact.target).square().sum()
    by_images, by_rate = torch.autograd.grad(loss, [exact.images, exact.rate])
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    assert found.loss_unweighted == found.loss
    assert_near(found.by["images"], by_images, 1e-3)
    assert_near(found.by["step_size"], by_rate, 1e-3)
