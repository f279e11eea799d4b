"""Distilling on networks with batch norm, which normalise by the batch that they see (SPEC, 7)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from iadd import methods
from iadd.api import record_experts, run_distillation
from iadd.augment import Augmentation
from iadd.data import Split, load_dataset
from iadd.engine.backend import choose_backend
from iadd.evaluation import evaluate
from iadd.methods import Problem
from iadd.methods._gradient import gradient_distance
from iadd.methods._selection import TrainedSelection, TrainedSelectionParams
from iadd.networks import build_network
from iadd.seeds import Seeds, generator_for
from iadd.synthetic import SyntheticSet

NET = "convnet-d2-w8-batchnorm"


def test_a_student_normalises_by_the_moments_of_its_batch() -> None:
    """One step against torch's own batch norm in training mode."""
    network = build_network("convnet-d1-w8-batchnorm", 1, 8, 3)
    params = network.init(generator_for(0)).double()
    images = torch.randn(6, 1, 8, 8, generator=generator_for("x")).double() * 3 + 1
    targets = torch.eye(3).double().repeat(2, 1)
    leaf = params.clone().requires_grad_()
    kernel, bias, weight, shift, head, last = network.split(leaf)
    x = F.batch_norm(F.conv2d(images, kernel, bias, padding=1), None, None, weight, shift, True)
    x = F.avg_pool2d(F.relu(x), 2).flatten(1)
    loss = F.cross_entropy(F.linear(x, head, last), targets)
    (by_hand,) = torch.autograd.grad(loss, leaf)
    backend = choose_backend(network, params.device, torch.float64)
    assert torch.allclose(backend.step(params, images, targets, 0.1), params - 0.1 * by_hand)


def test_selections_see_each_image_under_statistics_of_all_classes() -> None:
    """Training images are ordered by class: a batch of them is of few classes."""
    digits = load_dataset("digits")
    task, images = Problem(digits, build_network(NET, 1, 8, 10), 1), digits.train.images
    settings = TrainedSelectionParams(epochs=1, step_size=0.05)
    chosen: list[TrainedSelection] = [
        methods.find(name)(settings, task)  # type: ignore[misc]
        for name in ("herding", "forgetting")
    ]
    params = chosen[0].train(generator_for("train"))
    statistics = task.network.batch_statistics(params, images[:])
    features = chosen[0].observe(generator_for("train"))
    assert torch.allclose(features, task.network.embed(params, images[:], statistics), atol=1e-4)
    generator = generator_for("train")
    torch.rand(len(images), generator=generator)  # ties
    params = chosen[1].train(generator)
    statistics = task.network.batch_statistics(params, images[:])
    said = task.network.apply(params, images[:], statistics).argmax(1)
    never = chosen[1].observe(generator_for("train")) >= 1
    assert torch.equal(never, said != digits.train.labels)


def test_cafe_measures_accuracy_under_statistics_of_all_classes() -> None:
    digits = load_dataset("digits")
    task, images = Problem(digits, build_network(NET, 1, 8, 10), 1), digits.train.images[:]
    herding = methods.find("herding")(TrainedSelectionParams(epochs=10, step_size=0.05), task)
    params = herding.train(generator_for("train"))  # type: ignore[attr-defined]
    statistics = task.network.batch_statistics(params, images)
    right = task.network.apply(params, images, statistics).argmax(1) == digits.train.labels
    cafe = methods.find("cafe")
    method = cafe(cafe.Params(), task)
    found = method.accuracy(params, generator_for("real"))  # type: ignore[attr-defined]
    assert float(found) == pytest.approx(float(right.float().mean()), abs=0.02)


@pytest.mark.parametrize("name", ["dm", "idm"])
@pytest.mark.parametrize("norm", ["instancenorm", "batchnorm"])
def test_the_real_images_themselves_have_no_distance_to_the_real_images(
    name: str, norm: str
) -> None:
    """Both sides are normalised alike."""
    digits = load_dataset("digits")
    rows = torch.cat([rows[:3] for rows in digits.class_rows])
    few = Split(digits.train.images[rows], digits.train.labels[rows])
    data = replace(digits, train=few, augmentation=Augmentation(()))
    task = Problem(data, build_network(f"convnet-d2-w8-{norm}", 1, 8, 10), 3)
    own = {"factor": 1, "ce_weight": 0.0, "trained": 0} if name == "idm" else {}
    kind = methods.find(name)
    assert issubclass(kind, methods.Iterative)
    method = kind(kind.Params(**own), task)
    values = {key: each.value for key, each in method.variables(few.images[:].clone()).items()}
    found = method.gradients(0, values, generator_for("look"))
    assert isinstance(found, methods.Gradients) and found.loss < 1e-6


def of_all_classes(
    task: Problem, net: torch.Tensor, generator: torch.Generator
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Statistics over 16 real images of each class."""
    seen = torch.cat([task.batch(label, 16, generator) for label in range(task.dataset.classes)])
    return task.network.batch_statistics(net, seen)


def test_gradient_matching_sees_batches_of_a_class_under_statistics_of_all() -> None:
    task = Problem(load_dataset("digits"), build_network(NET, 1, 8, 10), 1)
    kind = methods.find("dc")
    method: Any = kind(kind.Params(batch_real=32), task)
    images = method.initial(generator_for("first"))
    net = torch.zeros(task.network.num_parameters)
    found = method.gradients(0, {"images": images, "net": net}, generator_for("look"))
    generator, leaf = generator_for("look"), images.clone().requires_grad_()
    net = task.network.init(generator).requires_grad_()
    statistics, loss = of_all_classes(task, net.detach(), generator), torch.zeros(())

    def gradient(seen: torch.Tensor, label: int) -> torch.Tensor:
        logits = task.network.apply(net, seen, statistics)
        wrong = F.cross_entropy(logits, torch.full((len(seen),), label))
        return torch.autograd.grad(wrong, net, create_graph=True)[0]

    for label in range(10):
        real = gradient(task.batch(label, 32, generator), label).detach()
        own = gradient(leaf[label : label + 1], label)
        loss = loss + gradient_distance(task.network, own, real)
    (by_images,) = torch.autograd.grad(loss, leaf)
    assert abs(found.loss - float(loss.detach())) < 1e-3 * found.loss
    assert torch.allclose(found.by["images"], by_images, atol=1e-3 * float(by_images.abs().max()))


def test_idm_sees_batches_of_a_class_under_statistics_of_all() -> None:
    task = Problem(load_dataset("digits"), build_network(NET, 1, 8, 10), 2)
    task = replace(task, dataset=replace(task.dataset, augmentation=Augmentation(())))
    kind = methods.find("idm")
    method: Any = kind(kind.Params(batch_real=32, factor=1), task)
    images, net = method.initial(generator_for("first")), task.network.init(generator_for("net"))
    found = method.loss(net, images, 0.0, generator_for("look"))
    generator = generator_for("look")
    statistics = of_all_classes(task, net, generator)
    own = task.network.embed(net, images, statistics).view(10, 2, -1).mean(1)
    batches = [task.batch(label, 32, generator) for label in range(10)]
    real = torch.stack([task.network.embed(net, b, statistics).mean(0) for b in batches])
    assert torch.allclose(found, (own - real).square().sum(), rtol=1e-3)


def test_cafe_compares_classes_under_the_moments_of_all() -> None:
    task = Problem(load_dataset("digits"), build_network(NET, 1, 8, 10), 2)
    kind = methods.find("cafe")
    method: Any = kind(kind.Params(batch_real=32), task)
    net = task.network.init(generator_for("net"))
    images = method.initial(generator_for("first"))
    found = method.loss(net, images, generator_for("look"))
    generator, expected = generator_for("look"), torch.zeros(())
    statistics = of_all_classes(task, net, generator)
    batches = torch.cat([task.batch(label, 32, generator) for label in range(10)])
    real = task.network.fixed(statistics).activations(net, batches)
    own = task.network.activations(net, images)
    for weight, theirs, ours in zip((0.1, 1.0, 2.0), real, own, strict=True):
        apart = theirs.unflatten(0, (10, 32)).mean(1) - ours.unflatten(0, (10, 2)).mean(1)
        expected += weight * apart.square().sum()
    logits = real[-1] @ own[-1].view(10, 2, -1).mean(1).T
    labels = torch.arange(10).repeat_interleave(32)
    expected += 0.01 * F.cross_entropy(logits, labels, reduction="sum")
    assert torch.allclose(found, expected, rtol=1e-3)


def test_mtt_on_a_batch_norm_network_matches_better_and_is_judged(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    experts = record_experts(digits, NET, tmp_path / "e", count=1, epochs=2, step_size=0.05)
    task = Problem(digits, build_network(NET, 1, 8, 10), 1, experts)
    settings = {
        **{"iterations": 16, "unrolled_steps": 6, "expert_epochs": 1, "max_start": 1},
        **{"lr_img": 30.0, "clip": 1.0, "step_size": 0.05, "validations": 0},
    }
    result = run_distillation(task, "mtt", settings, Seeds((0,)), None, spec={})
    losses = [row["loss"] for row in result.trace]
    assert result.status == "ok"
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    kept = SyntheticSet(
        result.images, result.labels, digits.transform, digits.class_names, result.step_size
    )
    (row,) = evaluate(kept, digits, "mtt-v1", {NET: 1}, epochs=2, seeds=Seeds((0,)))
    assert row["status"] == "ok"
