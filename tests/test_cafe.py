"""CAFE: aligned features against float64, and when networks are trained and replaced."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from method_cases import SEEDS, make, small_problem
from torch import Tensor

from iadd import methods
from iadd.augment import Augmentation
from iadd.methods.cafe import CAFEParams
from iadd.networks import build_network
from iadd.seeds import generator_for


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    found = small_problem(tmp_path_factory.mktemp("experts"))
    plain = replace(found.dataset, augmentation=Augmentation(()))
    return methods.Problem(plain, found.network, 2)


def test_activations_are_what_the_blocks_put_out() -> None:
    network = build_network("convnet-d2-w3", 1, 8, 4)
    params, images = network.init(generator_for("net")), torch.randn(5, 1, 8, 8)
    found = network.activations(params, images)
    assert [tuple(z.shape[1:]) for z in found] == [(3, 8, 8), (3, 4, 4), (12,)]
    assert torch.equal(found[-1], network.embed(params, images))
    assert torch.equal(F.avg_pool2d(found[1], 2).flatten(1), found[-1])
    assert len(build_network("mlp-d3-w4", 1, 8, 4).activations(*mlp_case())) == 4


def mlp_case() -> tuple[Tensor, Tensor]:
    network = build_network("mlp-d3-w4", 1, 8, 4)
    return network.init(generator_for("mlp")), torch.randn(2, 1, 8, 8)


def test_loss_and_gradient_equal_float64(task: methods.Problem) -> None:
    """The ConvNet-2's blocks worked by hand: .1 d(f1) + d(f2) + d(map) + d(features) + .01 CE."""
    method = make("cafe", task, batch_real=1000)
    images = task.dataset.train.images[task.random_rows(generator_for("rows"))]
    variables = {k: v.value for k, v in method.variables(images).items()}
    found = method.gradients(0, variables, generator_for("cafe"))
    weights = [part.double() for part in task.network.split(variables["net"])]

    def blocks(x: Tensor) -> list[Tensor]:
        out = []
        for k in range(2):
            w, b, scale, shift = weights[4 * k : 4 * k + 4]
            x = torch.relu(F.group_norm(F.conv2d(x, w, b, 1, 1), len(w), scale, shift))
            out.append(x)
            x = F.avg_pool2d(x, 2)
        return [*out, x, x.flatten(1)]

    leaf = images.double().requires_grad_()
    data, total, centres = task.dataset, torch.zeros((), dtype=torch.float64), []
    for c in range(4):
        real = blocks(data.train.images[data.class_rows[c]].double())
        own = blocks(leaf[2 * c : 2 * c + 2])
        for weight, a, b in zip((0.1, 1.0, 1.0, 1.0), real, own, strict=True):
            total = total + weight * (a.mean(0) - b.mean(0)).square().sum()
        centres.append(own[-1].mean(0))
    features = blocks(data.train.images.double())[-1]
    logits = features @ torch.stack(centres).T
    total = total + 0.01 * F.cross_entropy(logits, data.train.labels, reduction="sum")
    (expected,) = torch.autograd.grad(total, leaf)
    assert found.loss == pytest.approx(float(total.detach()), rel=1e-5)
    apart = (found.by["images"] - expected).abs().max()
    assert float(apart) <= 1e-4 * float(expected.abs().max())


def test_steps_are_halved_as_published(task: methods.Problem) -> None:
    """At 1,200, 1,600 and 1,800 of 2,000: here of 10 updates."""
    method = make("cafe", task, iterations=10, outer_range=1e-9)
    images = task.dataset.train.images[task.random_rows(generator_for("rows"))]

    def size(iteration: int) -> float:
        variables = {k: v.value for k, v in method.variables(images.clone()).items()}
        found = method.gradients(iteration, variables, generator_for("cafe"))
        return float(found.by["images"].norm())

    whole = size(5)
    assert [round(whole / size(k), 3) for k in (0, 6, 7, 8, 9)] == [1, 2, 2, 4, 8]


def test_a_network_is_replaced_when_its_accuracies_have_settled(
    task: methods.Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: after ten accuracies within 0.04; before that it is trained between two updates."""
    method = make("cafe", task, iterations=22, inner_epochs=1, validations=0)
    trained: list[int] = []
    told = iter([*[0.1 * k for k in range(10)], *[0.9] * 200])
    monkeypatch.setattr(method, "train", lambda *_: trained.append(1))
    monkeypatch.setattr(method, "accuracy", lambda *_: torch.tensor([next(told)]))
    fresh: list[int] = []
    init = type(task.network).init

    def counting(network: Any, generator: torch.Generator) -> Tensor:
        fresh.append(len(trained))
        return init(network, generator)

    monkeypatch.setattr(type(task.network), "init", counting)
    methods.distill(method, SEEDS)
    # 0.0 .. 0.9, then 0.9 without end: within 0.04 once ten of them are 0.9, after 19 accuracies.
    assert fresh == [0, 18] and len(trained) == 21


def test_training_ends_when_the_accuracy_has_moved_or_at_its_bound(
    task: methods.Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for accuracies, epochs in (
        ([0.1 * k for k in range(30)], 10),  # ten are needed
        ([0.5] * 14 + [0.6] * 30, 15),
        ([0.5] * 60, 25),  # the bound
    ):
        method, told = make("cafe", task, inner_epochs=25), iter(accuracies)
        asked: list[int] = []

        def accuracy(*_: Any, told: Any = told, asked: Any = asked) -> Tensor:
            asked.append(1)
            return torch.tensor([next(told)])

        monkeypatch.setattr(method, "accuracy", accuracy)
        net = task.network.init(generator_for("net"))
        before = net.clone()
        images = task.dataset.train.images[task.random_rows(generator_for("rows"))]
        method.train(net, images, generator_for("train"))
        assert len(asked) == epochs and not torch.equal(net, before)


def test_published_ranges_are_the_defaults() -> None:
    p = CAFEParams()
    assert (p.outer_range, p.inner_range, p.inner_weight, p.lr_net) == (0.04, 0.03, 0.01, 0.01)
