"""Networks: parameter counts of the field, every size, batch norm, initial values, segments."""

import math

import pytest
import torch

from iadd.networks import ARCHITECTURES, build_network, from_module, parse_name
from iadd.seeds import generator_for


@pytest.mark.parametrize(
    ("name", "channels", "resolution", "classes", "count"),
    [
        ("convnet-d3-w128", 3, 32, 10, 320_010),  # CIFAR-10, as published
        ("convnet-d3-w128", 3, 32, 100, 504_420),
        ("convnet-d4-w128", 3, 64, 200, 857_160),  # Tiny ImageNet
        ("convnet-d2-w32", 1, 8, 10, 10_986),
        ("lenet", 1, 28, 10, 61_706),
        ("lenet", 3, 32, 10, 62_006),
        ("alexnet", 3, 32, 10, 1_872_202),
        ("vgg11", 3, 32, 10, 9_231_114),
        ("resnet18", 3, 32, 10, 11_173_962),
        ("vit-tiny", 3, 32, 10, 5_362_762),
        ("vit-tiny-d2-w64", 1, 8, 10, 102_218),
    ],
)
def test_parameter_counts(
    name: str, channels: int, resolution: int, classes: int, count: int
) -> None:
    assert build_network(name, channels, resolution, classes).num_parameters == count


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_networks_of_the_field_are_torchvisions_made_fit_for_32_pixels(name: str) -> None:
    """The field's ResNet18 and VGG11: same tensors, same order, same logits."""
    import torchvision.models
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        made = torchvision.models.get_model("vgg11_bn" if name == "vgg11" else name, num_classes=10)
        if name == "resnet18":
            made.conv1, made.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        else:
            made.avgpool, made.classifier = nn.Identity(), nn.Linear(512, 10)
    theirs = from_module(made, "theirs", 3, 32, 10)
    ours = build_network(f"{name}-batchnorm", 3, 32, 10)
    assert [shape for _, shape in ours.shapes] == [shape for _, shape in theirs.shapes]
    params = ours.init(generator_for(name))
    images = torch.randn(4, 3, 32, 32, generator=generator_for("x"))
    assert torch.allclose(ours.apply(params, images), theirs.apply(params, images), atol=1e-4)


@pytest.mark.parametrize("resolution", [8, 9, 28, 33, 64, 128])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_size_and_channel_count_carries_signal(architecture: str, resolution: int) -> None:
    small = {"alexnet": "-w8", "vgg11": "-w4", "resnet18": "-w4", "convnet": "-w8", "mlp": "-w8"}
    small |= {"vit-tiny": "-d2-w16"}
    for channels in (1, 3):
        network = build_network(architecture + small.get(architecture, ""), channels, resolution, 3)
        params = network.init(generator_for(architecture))
        images = torch.randn(4, channels, resolution, resolution, generator=generator_for("x"))
        logits = network.apply(params, images)
        assert logits.shape == (4, 3)
        # One-pixel maps under instance norm would make all images alike.
        assert float((logits[0] - logits[1]).abs().max()) > 1e-6
        assert network.embed(params, images).shape == (4, network.features)


def test_initial_values_follow_torch_default() -> None:
    network = build_network("convnet-d2-w32", 1, 8, 10)
    tensors = network.split(network.init(generator_for(0)))
    for (kind, shape), values in zip(network.shapes, tensors, strict=True):
        if kind == "norm.weight":
            assert bool((values == 1).all())
        elif kind == "norm.bias":
            assert bool((values == 0).all())
        elif kind.endswith("weight"):
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            assert float(values.abs().max()) <= bound
            assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)


def test_init_depends_on_the_generator_alone() -> None:
    network = build_network("mlp", 1, 8, 10)
    state = torch.random.get_rng_state()
    first, again = network.init(generator_for(1)), network.init(generator_for(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, network.init(generator_for(2)))
    assert torch.equal(state, torch.random.get_rng_state())


def test_batch_norm_statistics_fix_the_network() -> None:
    network = build_network("convnet-d2-w8-batchnorm", 1, 8, 3)
    params = network.init(generator_for(0))
    images = torch.randn(16, 1, 8, 8, generator=generator_for("x")) * 3 + 1
    statistics = network.batch_statistics(params, images)
    whole = network.apply(params, images, statistics)
    assert torch.allclose(whole, network.apply(params, images), atol=1e-5)
    alone = network.apply(params, images[:1], statistics)  # no longer depends on its batch
    assert torch.allclose(alone, whole[:1], atol=1e-5)
    assert not torch.allclose(network.apply(params, images[:1]), whole[:1], atol=1e-3)


def test_offsets_cut_the_vector_into_tensors_and_filters() -> None:
    network = build_network("convnet-d2-w32", 1, 8, 10)
    tensors = network.offsets("tensor")
    assert tensors.tolist()[:3] == [0, 288, 320] and int(tensors[-1]) == network.num_parameters
    assert len(tensors) == len(network.shapes) + 1
    filters = network.offsets("filter")
    assert filters.tolist()[:3] == [0, 9, 18] and int(filters[-1]) == network.num_parameters
    assert bool((filters.diff() > 0).all())
    with pytest.raises(ValueError, match="'layer': allowed are tensor, filter"):
        network.offsets("layer")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convmet", "unknown network 'convmet'; known: convnet"),
        ("convnet-d2-w", "'w' does not apply"),
        ("mlp-batchnorm", "mlp takes activation, depth, width"),
        ("convnet-d0", "'d0' does not apply"),
    ],
)
def test_names_are_checked(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_name(name)


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"resolution 4 is outside 8\.\.128"):
        build_network("mlp", 1, 4, 10)
    with pytest.raises(ValueError, match="2 channels"):
        build_network("mlp", 2, 8, 10)
