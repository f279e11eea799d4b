"""The native first-order pass of plain networks against autograd in float64, and its refusals."""

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd.engine import backend, chain, cpu_convnet
from iadd.networks import Network, build_network

pytestmark = pytest.mark.skipif(
    cpu_convnet.unavailable() is not None, reason=f"no native passes: {cpu_convnet.unavailable()}"
)

FAMILY = (
    "mlp",
    "mlp-d1-w5-linear",
    "mlp-d4-w33",
    "lenet",
    "lenet-avgpool",
    "lenet-nopool-linear",
    "alexnet-w8",
    "alexnet-w6-avgpool",
    "alexnet-w2-nopool",
)


def draw(network: Network, batch: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    params = network.init(g).double()
    params += 0.05 * torch.randn(len(params), generator=g, dtype=torch.float64)
    shape = (batch, network.channels, network.resolution, network.resolution)
    images = torch.randn(shape, generator=g, dtype=torch.float64)
    # Not normalised: the formulas must not lean on targets that sum to one.
    targets = torch.rand(batch, network.classes, generator=g, dtype=torch.float64)
    return params, images, targets


def far(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got.double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("channels", "side", "batch"), [(1, 8, 10), (3, 11, 1), (1, 17, 3)])
def test_the_gradient_is_autograds(name: str, channels: int, side: int, batch: int) -> None:
    network = build_network(name, channels, side, 7)
    case = draw(network, batch)
    wanted = backend.gradient_reference(network, *case)
    for got, reference in zip(chain.gradient(network, *case), wanted, strict=True):
        assert far(got, reference) < 1e-11
    logits = chain.forward(network, *case[:2])
    assert far(logits, network.apply(*case[:2])) < 1e-12
    single = chain.gradient(network, *(z.float() for z in case))
    assert single[1].dtype == torch.float32
    assert far(single[1], wanted[1]) < 2e-5


def test_taps_that_reach_over_the_whole_map() -> None:
    """A 5x5 kernel on a 2x2 map: its outermost taps never find a pixel, and have no gradient."""
    g = torch.Generator().manual_seed(0)
    shapes = ((3, 1, 3, 3), (3,), (2, 3, 5, 5), (2,), (4, 8), (4,))
    parts = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
    images = torch.randn(30, 1, 4, 4, generator=g, dtype=torch.float64)
    targets = torch.rand(30, 4, generator=g, dtype=torch.float64)
    leaf = torch.cat([part.flatten() for part in parts]).requires_grad_()
    split = leaf.split([part.numel() for part in parts])
    w1, b1, w2, b2, w3, b3 = (z.view(shape) for z, shape in zip(split, shapes, strict=True))
    x = F.max_pool2d(F.conv2d(images, w1, b1, padding=1).relu(), 2)
    x = F.conv2d(x, w2, b2, padding=2).relu()
    loss = backend.cross_entropy(F.linear(x.flatten(1), w3, b3), targets)
    (wanted,) = torch.autograd.grad(loss, leaf)
    stages = [*(3, 3, 1, 1, 1), *(2, 5, 2, 1, 0), *(4, 0, 0, 0, 0)]
    _, got = torch.ops.iadd.chain_gradient(leaf.detach(), images, targets, stages)
    assert far(got, wanted) < 1e-12


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(("mlp", "lenet", "alexnet")),
    st.sampled_from(("maxpool", "avgpool")),
    st.integers(1, 20),
    st.integers(8, 14),
    st.sampled_from((1, 3)),
    st.integers(1, 30),
    st.integers(2, 12),
)
def test_any_shape(
    name: str, pool: str, width: int, side: int, channels: int, batch: int, classes: int
) -> None:
    parts = {"mlp": f"-w{width}", "lenet": f"-{pool}", "alexnet": f"-w{width}-{pool}"}
    network = build_network(name + parts[name], channels, side, classes)
    case = draw(network, batch, seed=width)
    assert (
        far(chain.gradient(network, *case)[1], backend.gradient_reference(network, *case)[1])
        < 1e-10
    )


@pytest.mark.parametrize("batch", [24, 25, 47, 49, 200])
def test_however_a_batch_is_cut(batch: int) -> None:
    network = build_network("alexnet-w4", 1, 8, 3)
    case = draw(network, batch)
    wanted = backend.gradient_reference(network, *case)
    assert max(map(far, chain.gradient(network, *case), wanted)) < 1e-11
    assert far(chain.forward(network, *case[:2]), network.apply(*case[:2])) < 1e-12


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("batch", [10, 100, 300])
def test_threads_do_not_change_a_bit(batch: int) -> None:
    network = build_network("alexnet-w20", 1, 8, 10)
    case = [z.float() for z in draw(network, batch)]
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(chain.gradient(network, *case))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_equal_pixels_of_a_pool() -> None:
    """The first of equals takes the gradient, as in PyTorch: blank borders are full of them."""
    network = build_network("lenet", 1, 8, 4)
    params, images, targets = draw(network, 3)
    blank = images.round().clamp(-1, 1) * (torch.arange(8) < 4)
    wanted = backend.gradient_reference(network, params, blank, targets)[1]
    assert far(chain.gradient(network, params, blank, targets)[1], wanted) < 1e-11


@pytest.mark.parametrize("name", ["mlp", "lenet", "alexnet-w4"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_nan_and_infinity_propagate(name: str, value: float, which: int) -> None:
    network = build_network(name, 1, 8, 3)
    case = draw(network, 2)
    case[which].view(-1)[case[which].numel() // 2] = value
    loss, grad = chain.gradient(network, *case)
    wanted_loss, wanted = backend.gradient_reference(network, *case)
    assert bool(torch.isfinite(loss)) == bool(torch.isfinite(wanted_loss))
    assert bool(torch.isfinite(grad).all()) == bool(torch.isfinite(wanted).all())


def test_foreign_strides_are_copied() -> None:
    network = build_network("lenet", 3, 8, 3)
    params, images, targets = draw(network, 4)
    strided = images.to(memory_format=torch.channels_last)
    assert torch.equal(
        chain.gradient(network, params, strided, targets)[1],
        chain.gradient(network, params, images, targets)[1],
    )


def test_it_is_what_runs_where_it_is_faster() -> None:
    for name, channels, side in (("mlp", 1, 28), ("lenet", 3, 16), ("alexnet-w32", 1, 8)):
        network = build_network(name, channels, side, 3)
        params = torch.zeros(network.num_parameters)
        assert backend.path(network, params) == f"chain-{cpu_convnet.instruction_set()}+autograd"
        assert chain.path(network, params.bfloat16()) is None
    large = build_network("lenet", 3, 32, 3)
    assert chain.path(large, torch.zeros(large.num_parameters)) is None


@pytest.mark.parametrize(
    "name",
    ["resnet18-w4", "vgg11-w4", "convnet-d2-w8", "mlp-sigmoid", "lenet-leakyrelu", "mlp-d16"],
)
def test_other_networks_have_none(name: str) -> None:
    network = build_network(name, 1, 8, 3)
    params = torch.zeros(network.num_parameters)
    assert chain.path(network, params) is None
    with pytest.raises(ValueError, match="no native chain"):
        chain.gradient(network, params, torch.zeros(1, 1, 8, 8), torch.zeros(1, 3))


def test_refusals_name_what_is_wrong() -> None:
    network = build_network("lenet", 1, 8, 3)
    params, images, targets = draw(network, 2)
    with pytest.raises(ValueError, match=r"parameters have shape \[5\]"):
        chain.gradient(network, params[:5], images, targets)
    with pytest.raises(ValueError, match=r"images have shape \[0, 1, 8, 8\], expected"):
        chain.gradient(network, params, images[:0], targets[:0])
    with pytest.raises(ValueError, match="targets have shape"):
        chain.gradient(network, params, images, targets[:1])
    with pytest.raises(ValueError, match=r"targets have shape \[2, 2\], expected \[2, 3\]"):
        chain.gradient(network, params, images, targets[:, :2])
    with pytest.raises(TypeError, match="Float, expected Double"):
        chain.gradient(network, params, images.float(), targets)
    with pytest.raises(ValueError, match="leaves maps of 6 x 6"):
        chain_of_one = [3, 3, 0, 0, 0]
        torch.ops.iadd.chain_gradient(params, images, targets, chain_of_one)
    for stages in ([], [3, 0, 0], [3, 9, 0, 0, 0], [3, 3, 3, 0, 0], [3, 0, 0, 0, 3]):
        with pytest.raises(ValueError, match="stage"):
            torch.ops.iadd.chain_gradient(params, images, targets, stages)


@pytest.mark.parametrize("isa", ["generic", "avx2"])
def test_older_instruction_sets_agree(isa: str) -> None:
    """The build for any processor, and AVX2's where there is more; in a process of its own."""
    script = (
        "import torch; from tests.test_chain import *; "
        "network = build_network('alexnet-w5', 1, 9, 3); case = draw(network, 30); "
        "got = chain.gradient(network, *case); "
        "wanted = backend.gradient_reference(network, *case); "
        "assert max(map(far, got, wanted)) < 1e-11; print(cpu_convnet.instruction_set())"
    )
    environment = os.environ | {"IADD_ISA": isa}
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [isa] or isa == "avx2"
