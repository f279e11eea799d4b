"""TESLA: the truncated gradient against its formula in float64 and beside the exact one."""

import pytest
import torch
from method_cases import SEEDS, assert_near, exact_student, first_look, make, small_problem
from method_cases import without_augmentation as plain

from iadd import methods


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return plain(small_problem(tmp_path_factory.mktemp("experts")))


def test_gradients_equal_the_truncated_formula(task: methods.Problem) -> None:
    method = make("tesla", task, unrolled_steps=6)
    variables, generator = first_look(method)
    found = method.gradients(0, variables, generator)
    exact = exact_student(method, variables, generator, constant=True)
    movement = (exact.start - exact.target).square().sum()
    loss = (exact.states[-1] - exact.target).square().sum() / movement
    by_images, by_rate = torch.autograd.grad(loss, [exact.images, exact.rate])
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    assert_near(found.by["images"], by_images, 1e-3)
    assert_near(found.by["step_size"], by_rate, 1e-3)


def test_the_truncated_gradient_points_where_the_exact_one_does(task: methods.Problem) -> None:
    """Cosine between 0 and 1: one step has nothing to leave out, more steps have."""
    cosines = []
    for steps in (1, 8):
        pair = []
        for name in ("mtt", "tesla"):
            method = make(name, task, unrolled_steps=steps)
            pair.append(method.gradients(0, *first_look(method)).by["images"].flatten())
        cosines.append(float(torch.cosine_similarity(*pair, dim=0)))
    assert cosines[0] == pytest.approx(1, abs=1e-6)
    assert 0.5 < cosines[1] < 0.999


def test_the_released_scale_halves_the_image_gradient_alone(task: methods.Problem) -> None:
    paper, released = (make("tesla", task, released_scale=on) for on in (False, True))
    a, b = (method.gradients(0, *first_look(method)).by for method in (paper, released))
    assert torch.equal(b["images"], a["images"] / 2) and torch.equal(b["step_size"], a["step_size"])
    half = methods.distill(make("tesla", task, lr_img=2.5, clip=None), SEEDS)
    code = methods.distill(make("tesla", task, released_scale=True, clip=None), SEEDS)
    assert torch.equal(half.images, code.images)  # lr_img is 5.0
