"""Any torch.nn.Module as a network: gradients, batch norm, initial values, training, unroll."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iadd.augment import Augmentation
from iadd.engine.backend import choose_backend
from iadd.engine.student import Step
from iadd.engine.unroll import unroll
from iadd.networks import Network, build_network, from_module
from iadd.seeds import generator_for
from iadd.train import TrainingPlan, fixed_statistics, predict, train

CPU = torch.device("cpu")


def resnet() -> nn.Module:
    """torchvision's ResNet with one block a stage."""
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)


class Small(nn.Module):
    """Convolution, batch norm, dropout, an in-place ReLU and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5)
        )
        self.gain = nn.Parameter(torch.full((1,), 2.0))
        self.head = nn.Linear(4 * 64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.gain * self.body(x).flatten(1))
        return result


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.5])
def test_batch_norms_keep_the_epsilon_of_the_module(eps: float) -> None:
    """torchvision's MobileNetV3, EfficientNet and others have another one than torch."""
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, eps), nn.Flatten())
    module.append(nn.Linear(4 * 36, 3))
    network = from_module(module, "small", 1, 8, 3)
    params = torch.cat([p.detach().flatten() for p in module.parameters()])
    images = torch.randn(5, 1, 8, 8, generator=generator_for("eps"))
    module.train()
    assert torch.allclose(network.apply(params, images), module(images), atol=1e-5)


def test_instance_norms_normalise_each_image_whatever_averages_they_kept() -> None:
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(4 * 36, 3))
    network = from_module(module, "small", 1, 8, 3)
    params = torch.cat([p.detach().flatten() for p in module.parameters()])
    images = 9 * torch.randn(5, 1, 8, 8, generator=generator_for("averages")) + 3
    module.train()
    assert torch.allclose(network.apply(params, images), module(images), atol=1e-5)


@pytest.fixture(scope="module")
def small() -> Network:
    return from_module(Small(), "small", 1, 8, 3)


def test_gradient_of_a_torchvision_resnet_is_plain_autograd() -> None:
    module, g = resnet(), generator_for("resnet")
    network = from_module(module, "resnet10", 3, 16, 3)
    images, labels = torch.randn(4, 3, 16, 16, generator=g), torch.tensor([0, 1, 2, 1])
    plain = copy.deepcopy(module).double().train()
    loss = F.cross_entropy(plain(images.double()), labels)
    loss.backward()
    wanted = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None])
    params = torch.cat([p.detach().flatten() for p in module.parameters()]).double()
    backend = choose_backend(network, CPU, torch.float64)
    assert backend.name == "autograd" and network.features == 512
    found, gradient = backend.gradient(params, images.double(), F.one_hot(labels, 3).double())
    assert float(found) == pytest.approx(float(loss.detach()), rel=1e-10)
    assert float((gradient - wanted).abs().max()) < 1e-10 * float(wanted.abs().max())
    for mine, given in zip(module.buffers(), resnet().buffers(), strict=True):
        assert torch.equal(mine, given)  # the module was left as it was


def test_unroll_of_a_module_is_exact(small: Network) -> None:
    g = generator_for("module unroll")
    start = small.init(g).double()
    images = torch.randn(6, 1, 8, 8, generator=g, dtype=torch.float64)
    targets = torch.eye(3, dtype=torch.float64).repeat(2, 1)

    def endpoint(student: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return student.square().sum(), 2 * student

    backend = choose_backend(small, CPU, torch.float64)
    steps = [Step(None, None)] * 3
    replay, graph = (
        unroll(backend, start, images, targets, 0.1, steps, endpoint, mode)
        for mode in ("replay", "graph")
    )
    for a, b in zip(replay[:5], graph[:5], strict=True):
        assert float((a - b).abs().max()) <= 1e-9 * float(b.abs().max())


def test_a_module_trains_and_is_judged_with_fixed_statistics(small: Network) -> None:
    g = generator_for("module train")
    labels = torch.arange(30) % 3
    images = torch.randn(30, 1, 8, 8, generator=g) + labels[:, None, None, None]
    params = train(
        small,
        small.init(g),
        images,
        F.one_hot(labels, 3).float(),
        TrainingPlan(20, 10, 0.05, momentum=0.9),
        Augmentation(()),
        g,
    )
    statistics = fixed_statistics(small, params, images)
    assert statistics is not None and len(statistics) == 1
    rightly = predict(small, params, images, statistics).argmax(1) == labels
    assert float(rightly.double().mean()) > 0.9
    whole = small.apply(params, images, statistics)
    alone = small.apply(params, images[:1], statistics)  # does not depend on its batch
    assert torch.allclose(alone, whole[:1], atol=1e-5)
    assert torch.equal(small.apply(params, images), small.apply(params, images))  # no dropout
    features = small.embed(params, images)
    assert features.shape == (30, small.features) == (30, 256)


def test_init_depends_on_the_generator_alone(small: Network) -> None:
    state = torch.random.get_rng_state()
    first, again = small.init(generator_for(1)), small.init(generator_for(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, small.init(generator_for(2)))
    assert torch.equal(state, torch.random.get_rng_state())
    gain, weight, bias = (
        value
        for (name, _), value in zip(small.shapes, small.split(first), strict=True)
        if name in ("gain", "body.1.weight", "body.1.bias")
    )
    assert gain.tolist() == [2.0]  # no part of the module resets it
    assert bool((weight == 1).all()) and bool((bias == 0).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_by_name(channels: int) -> None:
    state = torch.random.get_rng_state()
    network = build_network("torchvision-shufflenet_v2_x0_5", channels, 32, 10)
    params = network.init(generator_for(0))
    assert torch.equal(state, torch.random.get_rng_state())
    images = torch.randn(2, channels, 32, 32, generator=generator_for("x"))
    assert network.apply(params, images).shape == (2, 10)
    assert network.has_batch_norm and network.features == 1024


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Flatten(), "has no Linear layer"),
        (nn.Sequential(nn.Flatten(), nn.Linear(10, 3)), r"does not take images \(2, 1, 8, 8\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), r"logits \(2, 4\) of 2 images"),
    ],
)
def test_what_does_not_fit_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=f"network 'odd': .*{message}"):
        from_module(module, "odd", 1, 8, 3)


def test_unknown_torchvision_model() -> None:
    with pytest.raises(ValueError, match=r"torchvision\.models has no 'resnet19'"):
        build_network("torchvision-resnet19", 3, 32, 10)
