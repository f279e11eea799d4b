"""The training loop: momentum, decay, drops and order against torch.optim; purity."""

import pytest
import torch
import torch.nn.functional as F

from iadd.augment import FAMILIES, TOGETHER_BYTES, Augmentation, augment
from iadd.engine.backend import choose_backend
from iadd.engine.cuda_convnet import CudaConvNet
from iadd.networks import build_network
from iadd.seeds import generator_for, seed_for
from iadd.train import TrainingPlan, fixed_statistics, predict, train, train_many


@pytest.mark.parametrize("name", ["mlp-w8", "convnet-d2-w8", "resnet18-w4-batchnorm"])
def test_equals_torch_optim(name: str) -> None:
    g = generator_for("train")
    network = build_network(name, 1, 8, 3)
    images = torch.randn(20, 1, 8, 8, generator=g, dtype=torch.float64)
    labels = torch.arange(20) % 3
    start = network.init(g).double()
    schedule = TrainingPlan(4, 8, 0.05, momentum=0.9, weight_decay=0.01, drops=(2,))
    got = train(
        network,
        start,
        images,
        F.one_hot(labels, 3).double(),
        schedule,
        Augmentation(()),
        generator_for("order"),
    )
    params = start.clone().requires_grad_()
    optimiser = torch.optim.SGD([params], 0.05, momentum=0.9, weight_decay=0.01)
    order = generator_for("order")
    for epoch in range(4):
        if epoch == 2:
            optimiser.param_groups[0]["lr"] = 0.005
        for rows in torch.randperm(20, generator=order).split(8):
            optimiser.zero_grad()
            F.cross_entropy(network.apply(params, images[rows]), labels[rows]).backward()
            optimiser.step()
    assert float((got - params.detach()).abs().max()) < 1e-10


@pytest.mark.parametrize("together", [1, 5_000, 1 << 20])
def test_augmented_steps_are_those_taken_one_by_one(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOGETHER_BYTES, "cpu", together)  # of one step, a few, all
    g, network, augmentation = (
        generator_for("steps"),
        build_network("mlp-w8", 1, 8, 3),
        Augmentation(),
    )
    images, targets = torch.randn(11, 1, 8, 8, generator=g), torch.eye(3)[torch.arange(11) % 3]
    start, draws, after = network.init(g), generator_for("draws"), generator_for("draws")
    schedule = TrainingPlan(6, 4, 0.1)
    got = train(network, start, images, targets, schedule, augmentation, draws)
    params, backend = start.clone(), choose_backend(network, start.device)
    for _ in range(6):
        for rows in torch.randperm(11, generator=after).split(4):
            seen = augment(images[rows], augmentation.draw(after, len(rows)))
            params -= 0.1 * backend.gradient(params, seen, targets[rows])[1]
    assert torch.allclose(got, params, rtol=0, atol=1e-6)
    assert torch.equal(draws.get_state(), after.get_state())


def test_input_is_left_alone_and_epochs_are_reported() -> None:
    network = build_network("mlp-w8", 1, 8, 3)
    start = network.init(generator_for(0))
    before, seen = start.clone(), []
    images, targets = torch.randn(9, 1, 8, 8, generator=generator_for(1)), torch.eye(3).repeat(3, 1)
    state = torch.random.get_rng_state()
    train(
        network,
        start,
        images,
        targets,
        TrainingPlan(3, 4, 0.1),
        Augmentation(),
        generator_for(2),
        lambda epoch, params: seen.append((epoch, params.clone())),
    )
    assert torch.equal(start, before) and [epoch for epoch, _ in seen] == [1, 2, 3]
    assert not torch.equal(seen[0][1], seen[2][1])
    assert torch.equal(state, torch.random.get_rng_state())


def test_batch_norm_is_judged_with_training_statistics() -> None:
    network = build_network("convnet-d2-w8-batchnorm", 1, 8, 2)
    params = network.init(generator_for(0))
    images = torch.randn(64, 1, 8, 8, generator=generator_for(1))
    statistics = fixed_statistics(network, params, images)
    assert statistics and len(statistics) == 2
    assert fixed_statistics(build_network("mlp", 1, 8, 2), params, images) is None


def test_batch_norm_is_judged_with_images_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are ordered by class, and of a large set only a part is looked at."""
    monkeypatch.setattr("iadd.train.STATISTICS", 64)
    network = build_network("convnet-d1-w8-batchnorm", 1, 8, 10)
    params = network.init(generator_for(0))
    means = torch.arange(10.0).repeat_interleave(33)  # class after class, 330 images
    noise = torch.randn(330, 1, 8, 8, generator=generator_for(1))
    images = means[:, None, None, None] + noise
    found = fixed_statistics(network, params, images)
    whole = network.batch_statistics(params, images)
    assert found
    for got, wanted in zip(found[0], whole[0], strict=True):  # means, variances
        assert torch.allclose(got, wanted, rtol=0.05, atol=0.05)
    few = fixed_statistics(network, params, images[:64])
    assert few and torch.equal(few[0][0], network.batch_statistics(params, images[:64])[0][0])


@pytest.mark.gpu
def test_a_card_judges_batch_norms_in_the_networks_own_arithmetic() -> None:
    """Rule: float32 is IEEE, whatever PyTorch rounds convolutions to by itself."""
    network = build_network("convnet-d2-w32-batchnorm", 3, 16, 4)
    params, images = network.init(generator_for(0)), torch.randn(64, 3, 16, 16)
    there, seen = params.cuda(), images.cuda()
    statistics = fixed_statistics(network, there, seen)
    exact = network.batch_statistics(params.double(), images.double())
    wanted = network.apply(params.double(), images.double(), exact)
    found = predict(network, there, seen, statistics).double().cpu()
    assert float((found - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


def test_seeds_are_values_of_their_names() -> None:
    assert seed_for(0, "digits", "mtt", 1, 0, "distill") == seed_for(
        0, "digits", "mtt", 1, 0, "distill"
    )
    names = [(0, "a", 1), (0, "a", 11), (0, "a1", 1), (1, "a", 1), ("0a", 1)]
    assert len({seed_for(*n) for n in names}) == len(names)
    assert 0 <= seed_for("x") < 2**63


@pytest.mark.parametrize("families", [(), FAMILIES])
def test_many_side_by_side_end_where_each_ends_alone(
    families: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iadd.train.choose_backend", CudaConvNet)
    g = generator_for("many")
    network = build_network("convnet-d1-w4", 3, 8, 3)
    images = torch.randn(10, 3, 8, 8, generator=g, dtype=torch.float64)
    targets = torch.eye(3, dtype=torch.float64)[torch.arange(10) % 3]
    starts = torch.stack([network.init(g).double() for _ in range(3)])
    schedule = TrainingPlan(3, 4, 0.05, momentum=0.9, weight_decay=0.01, drops=(2,))
    common = (images, targets, schedule, Augmentation(families))
    epochs: list[int] = []
    before = starts.clone()
    found = train_many(
        network,
        starts,
        *common,
        [generator_for("one", m) for m in range(3)],
        on_epoch=lambda epoch, params: epochs.append(epoch),
    )
    assert epochs == [1, 2, 3] and torch.equal(starts, before)
    for m in range(3):
        alone = train(network, starts[m], *common, generator_for("one", m))
        assert float((found[m] - alone).abs().max()) < 1e-10
