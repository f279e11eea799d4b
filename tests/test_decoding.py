"""Several small images in one: decoded before training, judged, exported; counted as stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_cases import SEEDS, make, small_problem
from torch import Tensor

from iadd import methods
from iadd.api import Validation, run_distillation, synthetic_set
from iadd.augment import Augmentation
from iadd.evaluation import evaluate
from iadd.exchange import read_set, write_set
from iadd.seeds import generator_for
from iadd.synthetic import SyntheticSet
from iadd.synthetic.decoding import compose, decode, partition

HALVES = partition(2)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return small_problem(tmp_path_factory.mktemp("experts"))


def test_decode_by_hand() -> None:
    """Enlarged bilinearly with half-pixel centres: 0, 1 become 0, 1/4, 3/4, 1."""
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, :2, 1] = 1.0  # upper left: columns 0, 1
    image[0, 0, 2:, :2] = 7.0  # lower left
    image[0, 0, 2:, 2:] = 3.0  # lower right
    whole, labels = decode(image, torch.tensor([5]), HALVES)
    assert labels.tolist() == [5] * 4
    assert whole[0, 0, 0].tolist() == [0, 0.25, 0.75, 1]
    assert [float(part.mean()) for part in whole] == [0.5, 7, 0, 3]
    soft = torch.rand(2, 3)
    assert torch.equal(decode(torch.zeros(2, 1, 4, 4), soft, HALVES)[1], soft.repeat(4, 1))
    assert decode(image, labels, None) == (image, labels) and partition(1) is None


def test_compose_puts_parts_where_decode_finds_them() -> None:
    parts = [torch.full((3, 1, 6, 6), float(k)) for k in range(9)]
    whole, _ = decode(compose(parts, partition(3)), torch.zeros(3), partition(3))
    assert torch.allclose(whole, torch.cat(parts), atol=1e-5)
    assert compose(parts, None) is parts[0]


@pytest.mark.parametrize(
    "wrong", [{"kind": "partition", "factor": 3}, {"kind": "zip", "factor": 2}, {"factor": 2}, {}]
)
def test_a_decoding_that_cannot_be(wrong: dict[str, Any], task: methods.Problem) -> None:
    images, names = torch.zeros(1, 1, 8, 8), task.dataset.class_names
    how = {"transform": task.dataset.transform, "class_names": names}
    with pytest.raises(ValueError, match="allowed are none and partition by a factor of 2, 4, 8"):
        SyntheticSet(images, torch.tensor([0]), decoding=wrong, **how)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed are none and partition by a factor of 2, 4, 8"):
        make("idm", task, factor=3)


def distilled(task: methods.Problem) -> SyntheticSet:
    result = methods.distill(make("idm", task), SEEDS)
    return synthetic_set(task, result, {"method": "idm"})


def test_a_set_is_stored_as_it_is_and_used_decoded(task: methods.Problem, tmp_path: Path) -> None:
    """Rule: bytes are counted before decoding; networks are trained on what is decoded."""
    stored = distilled(task)
    stored.save(tmp_path / "set.safetensors")
    kept = SyntheticSet.load(tmp_path / "set.safetensors")
    assert kept.decoding == HALVES and torch.equal(kept.images, stored.images)
    assert len(kept) == 8 and kept.image_bytes == 8 * 64 * 4
    whole = kept.decoded()
    assert len(whole) == 32 and whole.decoding is None
    assert torch.equal(whole.labels, stored.labels.repeat(4))
    rows = [
        [row["accuracy"] for row in evaluate(given, task.dataset, "mtt-v1", {"mlp-w16": 2}, **HOW)]
        for given in (kept, whole, replace(kept, decoding=None))
    ]
    assert rows[0] == rows[1] != rows[2]
    states = replace(kept, states=(kept,))
    assert [len(state) for state in states.decoded().states] == [32]
    write_set(kept, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 32
    again = read_set(tmp_path / "out", task.dataset)
    assert torch.equal(again.images, kept.images) and again.decoding == HALVES
    write_set(kept, tmp_path / "set.npz", "npz")
    plain = read_set(tmp_path / "set.npz", task.dataset)
    assert torch.allclose(plain.images, whole.images) and plain.decoding is None


HOW: dict[str, Any] = {"epochs": 20, "seeds": SEEDS}


def test_validation_sees_the_decoded_images(task: methods.Problem) -> None:
    seen: list[tuple[int, ...]] = []

    def watch(images: Tensor, labels: Tensor, step_size: float | None) -> float:
        seen.append((len(images), len(labels)))
        return 0.5

    result = methods.distill(make("idm", task), SEEDS, methods.Hooks(watch))
    assert set(seen) == {(32, 32)} and len(result.images) == 8
    assert [len(part) for part in result.decoded()] == [32, 32]
    params, probe = make("idm", task).params, Validation(networks=1, epochs=5)
    run = run_distillation(task, "idm", params, SEEDS, probe, spec={"run": 1})
    assert any(row["validation_accuracy"] for row in run.trace)


# IDM.


def test_idm_starts_from_small_real_images(task: methods.Problem) -> None:
    method, train = make("idm", task), task.dataset.train
    images = method.initial(SEEDS.generator("initial"))
    generator = SEEDS.generator("initial")
    for k, (rows, columns) in enumerate(((0, 0), (4, 0), (0, 4), (4, 4))):
        chosen = train.images[task.random_rows(generator)]
        small = chosen.view(8, 1, 4, 2, 4, 2).mean((3, 5))  # halved: means of 2 x 2
        found = images[:, :, rows : rows + 4, columns : columns + 4]
        assert torch.allclose(found, small, atol=1e-6), k
    alone = make("idm", task, factor=1)
    assert torch.equal(alone.initial(SEEDS.generator("initial")), plain_random(task))
    assert alone.decoding is None


def plain_random(task: methods.Problem) -> Tensor:
    return methods.distill(make("random", task), SEEDS).images


def test_idm_loss_equals_float64(task: methods.Problem) -> None:
    plain = replace(task.dataset, augmentation=Augmentation(()))
    method = make("idm", methods.Problem(plain, task.network, 2), batch_real=1000, ce_weight=0.3)
    net = task.network.init(generator_for("net"))
    images = method.initial(generator_for("images")).requires_grad_()
    loss = method.loss(net, images, 40.0, generator_for("loss"))
    (gradient,) = torch.autograd.grad(loss, images)

    leaf, total, net = images.detach().double().requires_grad_(), 0.0, net.double()
    for c in range(4):
        own = leaf[2 * c : 2 * c + 2]
        parts = [own[:, :, a : a + 4, b : b + 4] for a in (0, 4) for b in (0, 4)]
        whole = F.interpolate(torch.cat(parts), scale_factor=2, mode="bilinear")
        real = task.dataset.train.images[task.dataset.class_rows[c]].double()
        apart = task.network.embed(net, real).mean(0) - task.network.embed(net, whole).mean(0)
        labels = torch.full((8,), c)
        wrong = F.cross_entropy(task.network.apply(net, whole), labels)
        total = total + apart.square().sum() + 0.3 * 40 * wrong
    (expected,) = torch.autograd.grad(total, leaf)
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    assert float((gradient - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_idm_trains_its_queue_and_lets_the_oldest_go(task: methods.Problem) -> None:
    method = make("idm", task, networks=5, new_every=2, trained=1, lr_net=0.05)
    start = method.initial(SEEDS.generator("initial"))
    variables = {name: v.value for name, v in method.variables(start).items()}
    made, before = [], variables["nets"].clone()
    for k in range(6):
        found = method.gradients(k, variables, SEEDS.generator("iteration", k))
        made.append(int(variables["made"]))
        changed = (variables["nets"] != before).any(1).sum()
        before = variables["nets"].clone()
        new = made[-1] - (made[-2] if k else 0)
        assert new <= int(changed) <= new + 1  # the new ones, and the one that was trained
        assert 0 <= found.columns["network_accuracy"] <= 1
    assert made == [4, 4, 5, 5, 6, 6]  # three and one; the sixth lies where the first did


def test_idm_trains_a_network_by_sgd_with_momentum_and_decay(task: methods.Problem) -> None:
    method = make("idm", task, train_steps=3, train_batch=16, lr_net=0.05)
    net = task.network.init(generator_for("net"))
    expected, speed = net.double().numpy().copy(), np.zeros(len(net))
    generator, data = generator_for("train"), task.dataset.train
    for _ in range(3):
        rows = torch.randperm(len(data), generator=generator)[:16]
        leaf = torch.from_numpy(expected).requires_grad_()
        logits = task.network.apply(leaf, data.images[rows].double())
        (g,) = torch.autograd.grad(F.cross_entropy(logits, data.labels[rows]), leaf)
        speed = 0.9 * speed + g.numpy() + 5e-4 * expected
        expected = expected - 0.05 * speed
    told = method.train(net, torch.zeros_like(net), generator_for("train"))
    assert np.abs(net.numpy() - expected).max() < 1e-5
    said = task.network.apply(net, data.images[rows]).argmax(1)
    assert told == pytest.approx(float((said == data.labels[rows]).float().mean()))
