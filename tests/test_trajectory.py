"""What trajectory methods share: which states a loss sees, and what a wrong loss is told."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from method_cases import TRAJECTORY, assert_near, exact_student, first_look, small_problem
from method_cases import without_augmentation as plain
from torch import Tensor

from iadd import methods
from iadd.engine.distance import distance
from iadd.methods._trajectory import Trajectory
from iadd.methods._variables import SGD


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return plain(small_problem(tmp_path_factory.mktemp("experts")))


def made(kind: type[Trajectory], task: methods.Problem) -> Any:
    return kind(kind.Params(**TRAJECTORY), task)


class Two(Trajectory):
    """The state after step 2 of 3, and that after step 1, with a learned factor and a count."""

    between = 1

    def compares(self, step: int, student: Tensor, target: Tensor) -> bool:
        return step <= 2  # the last one counts

    def own_variables(self) -> dict[str, methods.Variable]:
        factor = methods.Variable(torch.tensor(2.0), SGD(0.1))
        return {"factor": factor, "looks": methods.Variable(torch.tensor(0.0), None)}

    def loss(
        self, student: Tensor, start: Tensor, target: Tensor, own: Mapping[str, Tensor]
    ) -> Tensor:
        own["looks"].add_(1)
        between = (own["between"] - start).square().sum()
        return (student - target).square().sum() + own["factor"] * between


def test_a_loss_of_two_states_equals_float64(task: methods.Problem) -> None:
    method = made(Two, task)
    variables, generator = first_look(method)
    found = method.gradients(0, variables, generator)
    exact = exact_student(method, variables, generator)
    between = (exact.states[1] - exact.start).square().sum()
    loss = (exact.states[2] - exact.target).square().sum() + 2 * between
    by_images, by_rate = torch.autograd.grad(loss, [exact.images, exact.rate])
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    assert_near(found.by["images"], by_images)
    assert_near(found.by["step_size"], by_rate)
    assert found.by.keys() == {"images", "step_size", "factor"}
    assert float(found.by["factor"]) == pytest.approx(float(between.detach()), rel=1e-4)
    assert float(variables["looks"]) == 1
    exact_plain = distance(exact.states[2].detach(), exact.start, exact.target).unweighted
    assert found.loss_unweighted == pytest.approx(float(exact_plain), rel=1e-4)


def wrong(kind: str) -> Callable[..., Any]:
    def loss(self: Any, student: Tensor, start: Tensor, target: Tensor, own: Any) -> Any:
        factor = own["factor"]
        return {
            "vector": lambda: factor * (student - target),
            "number": lambda: 3.0,
            "detached": lambda: (student.detach() - target).square().sum(),
            "unused": lambda: (student - target).square().sum() + own["between"].sum(),
            "no student": lambda: factor * own["between"].sum(),
            "shapes": lambda: (student[:-1] - target).sum(),
            "dimension": lambda: student.sum(3),
            "distance": lambda: distance(student[:-1], start, target),
        }[kind]()

    return loss


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("vector", r"gives shape \[\d+\], allowed is one number \(\) or a Distance"),
        ("number", r"gives 3.0, allowed is one number \(\) or a Distance"),
        ("detached", "depends on none of student, between, factor"),
        ("unused", "does not depend on factor"),
        ("no student", "does not depend on student"),
        ("shapes", "The size of tensor"),
        ("dimension", "Dimension out of range"),
        ("distance", "shape"),
    ],
)
def test_a_wrong_loss_is_told_in_one_line(kind: str, told: str, task: methods.Problem) -> None:
    """Rule: the plug-in is named, no raw error of torch reaches the user."""
    method = made(type("Wrong", (Two,), {"loss": wrong(kind), "__module__": "my_plug_in"}), task)
    with pytest.raises(ValueError, match=rf"^method my_plug_in: loss: .*{told}") as caught:
        method.gradients(0, *first_look(method))
    assert "\n" not in str(caught.value)
