"""The hand-written passes against autograd in float64: on the CPU, where a GPU's can be checked."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd.engine import cuda_block
from iadd.engine.autograd import AutogradBackend
from iadd.engine.backend import choose_backend
from iadd.engine.base import convnet_config
from iadd.engine.cuda_block import Affine, Form, backward_reference
from iadd.engine.cuda_convnet import CudaConvNet
from iadd.engine.cuda_products import Convolution
from iadd.networks import Network, build_network
from iadd.seeds import generator_for

FAMILY = (
    "convnet-d1-w3",
    "convnet-d3-w4",
    "convnet-d2-w5-nonorm",
    "convnet-d2-w4-linear",
    "convnet-d2-w3-nopool",
    "convnet-d2-w6-nonorm-linear-nopool",
)


def passes(network: Network, dtype: torch.dtype = torch.float64) -> CudaConvNet:
    return CudaConvNet(network, torch.device("cpu"), dtype)


def by_autograd(network: Network) -> AutogradBackend:
    return AutogradBackend(network, torch.device("cpu"), torch.float64)


def draw(network: Network, batch: int) -> tuple[Tensor, ...]:
    """Parameters (P,), images, targets and a direction (P,), in float64."""
    g = generator_for("tangents", network.name, batch)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    params = network.init(g).double() + 0.1 * normal(network.num_parameters)
    images = normal(batch, network.channels, network.resolution, network.resolution)
    # Not normalised: the formulas must not lean on targets that sum to one.
    targets = torch.rand(batch, network.classes, generator=g, dtype=torch.float64)
    return params, images, targets, normal(network.num_parameters)


def assert_close(got: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= tolerance * max(float(wanted.abs().max()), 1e-3)


def compare(network: Network, batch: int) -> None:
    params, images, targets, direction = draw(network, batch)
    ours, plain = passes(network), by_autograd(network)
    for got, wanted in (
        (ours.gradient(params, images, targets), plain.gradient(params, images, targets)),
        (
            ours.tangent(params, images, targets, direction),
            plain.tangent(params, images, targets, direction),
        ),
    ):
        for mine, reference in zip(got, wanted, strict=True):
            assert_close(mine, reference)
    assert_close(ours.logits(params, images), network.apply(params, images))
    leaf = images.clone().requires_grad_()
    features = network.embed(params, leaf)
    assert_close(ours.embed(params, images), features.detach())
    features.backward(features.detach())
    assert leaf.grad is not None
    assert_close(ours.embed_gradient(params, images, features.detach()), leaf.grad)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("channels", [1, 3])
def test_passes_are_autograd(name: str, channels: int) -> None:
    compare(build_network(name, channels, 8, 4), 3)
    compare(build_network(name, channels, 11, 4), 2)


@settings(max_examples=12, deadline=None)
@given(batch=st.integers(1, 4), resolution=st.integers(8, 15), name=st.sampled_from(FAMILY))
def test_any_shape(batch: int, resolution: int, name: str) -> None:
    compare(build_network(name, 3, resolution, 3), batch)


def test_a_large_batch_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iadd.engine.cuda_convnet.CHUNK_PIXELS", 3 * 8 * 8)
    monkeypatch.setattr("iadd.engine.base.FEATURE_PIXELS", 3 * 8 * 8)
    for batch in (3, 4, 7):
        compare(build_network("convnet-d2-w4", 3, 8, 3), batch)


@pytest.mark.parametrize(
    ("name", "fixed", "most"),
    [
        ("convnet-d1-w3", False, 3),
        ("convnet-d1-w3-batchnorm", False, 7),
        ("convnet-d1-w3-batchnorm", True, 3),
    ],
)
def test_features_are_taken_in_parts_unless_images_see_each_other(
    name: str, fixed: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: memory does not grow with the batch; batch norm looks at all of it if not fixed."""
    network, seen = build_network(name, 3, 8, 3), list[int]()
    params, images, _, _ = draw(network, 7)
    if fixed:
        network = network.fixed(network.batch_statistics(params, images[:4]))
    wanted = network.embed(params, images)
    leaf = images.clone().requires_grad_()
    (by_images,) = torch.autograd.grad(network.embed(params, leaf), leaf, wanted)
    asked = type(network).embed

    def counting(self: Network, params: Tensor, images: Tensor, *rest: Any) -> Tensor:
        seen.append(len(images))
        return asked(self, params, images, *rest)

    monkeypatch.setattr(type(network), "embed", counting)
    monkeypatch.setattr("iadd.engine.base.FEATURE_PIXELS", 3 * 8 * 8)
    assert_close(by_autograd(network).embed(params, images), wanted)
    assert_close(by_autograd(network).embed_gradient(params, images, wanted), by_images)
    assert max(seen) == most and sum(seen) == 14


def test_what_is_outside_the_family() -> None:
    for name in ("mlp", "convnet-batchnorm", "convnet-leakyrelu", "convnet-maxpool"):
        assert convnet_config(build_network(name, 3, 8, 3)) is None
    assert convnet_config(build_network("convnet", 3, 8, 3)) == [128, 3, 1, 1, 1]


def test_nan_propagates() -> None:
    network = build_network("convnet-d1-w3", 1, 8, 3)
    params, images, targets, direction = draw(network, 2)
    images[0, 0, 0, 0] = float("nan")
    assert bool(passes(network).gradient(params, images, targets)[0].isnan())
    assert bool(passes(network).tangent(params, images, targets, direction)[0].isnan().any())


def test_bf16_rounds_operands_and_says_so() -> None:
    exact = build_network("convnet-d2-w8", 3, 8, 3)
    rounded = build_network("convnet-d2-w8", 3, 8, 3, "bf16")
    params, images, targets, direction = (z.float() for z in draw(exact, 4))
    fine = passes(exact).tangent(params, images, targets, direction)[0]
    coarse = passes(rounded).tangent(params, images, targets, direction)[0]
    assert coarse.dtype == torch.float32
    assert 1e-4 < float((fine - coarse).norm() / fine.norm()) < 0.3
    assert passes(rounded).name == "cuda-convnet-bf16"
    assert passes(exact).name == "cuda-convnet"


def test_a_unit_that_is_off_passes_nothing() -> None:
    """By hand: one plane without norm, (-1, 2) under ReLU; only the second pixel passes."""
    x, form = torch.tensor([-1.0, 2.0]).view(1, 1, 2, 1), Form(relu=True, pool=False)
    still = Affine(None, torch.zeros(1))
    by_x, by_affine = backward_reference(x, None, still, torch.full_like(x, 3.0), form)
    assert by_x.flatten().tolist() == [0.0, 3.0] and by_affine.tolist() == [[[0.0, 3.0]]]
    pair = torch.stack((torch.full_like(x, 5.0), torch.full_like(x, 7.0)))  # tangents first
    dual, sums = backward_reference(torch.stack((x, x)), None, still, pair, form, still)
    assert dual.flatten().tolist() == [0.0, 5.0, 0.0, 7.0] and sums.tolist() == [[[0.0, 5.0]]]


@pytest.mark.kernels
@pytest.mark.parametrize("name", FAMILY)
def test_the_kernels_text_in_the_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on a card in place of plain operators, run on the CPU."""
    monkeypatch.setattr(cuda_block, "fused", lambda device: True)
    compare(build_network(name, 3, 11, 4), 3)
    monkeypatch.setattr("iadd.engine.cuda_convnet.CHUNK_PIXELS", 2 * 11 * 11)
    compare(build_network(name, 1, 11, 4), 5)


@pytest.mark.kernels
def test_the_kernels_text_in_a_deep_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more weights and parts of the gradient than one launch takes."""
    monkeypatch.setattr(cuda_block, "fused", lambda device: True)
    compare(build_network("convnet-d10-w3", 3, 16, 4), 2)


@pytest.mark.kernels
@pytest.mark.parametrize("in_parts", [False, True])
def test_the_kernels_text_in_float32(in_parts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_block, "fused", lambda device: True)
    network = build_network("convnet-d3-w8-linear", 3, 16, 4)
    given = draw(network, 6)
    ours = passes(network, torch.float32)
    vars(ours)["convolution"] = Convolution("float32", in_parts)
    found = ours.tangent(*(z.float() for z in given))
    for got, wanted in zip(found, by_autograd(network).tangent(*given), strict=True):
        assert_close(got.double(), wanted, 1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILY)
def test_a_card_computes_what_the_cpu_does(name: str) -> None:
    network = build_network(name, 3, 11, 4)
    given = draw(network, 3)
    there = [z.cuda() for z in given]
    backend = choose_backend(network, torch.device("cuda", 0), torch.float64)
    assert backend.name.startswith("cuda-convnet")
    plain = by_autograd(network)
    for got, wanted in (
        (backend.tangent(*there), plain.tangent(*given)),
        (backend.gradient(*there[:3]), plain.gradient(*given[:3])),
    ):
        for mine, reference in zip(got, wanted, strict=True):
            assert_close(mine.cpu(), reference)
    assert_close(backend.logits(*there[:2]).cpu(), network.apply(*given[:2]))


@pytest.mark.gpu
def test_float32_on_a_card_is_no_tf32() -> None:
    """One product of float32 stays within 1e-5 of float64; TF32 would be at 1e-3."""
    network = build_network("convnet-d3-w32-linear", 3, 16, 4)
    given = [z.cuda() for z in draw(network, 8)]
    card = torch.device("cuda", 0)
    exact = choose_backend(network, card, torch.float64).tangent(*given)
    for precision, low, high in (("float32", 0.0, 1e-5), ("tf32", 1e-5, 1e-2), ("bf16", 1e-4, 1)):
        rounded = build_network(network.name, 3, 16, 4, precision)
        found = choose_backend(rounded, card).tangent(*(z.float() for z in given))
        error = float((found.images.double() - exact.images).norm() / exact.images.norm())
        assert low <= error < high, precision
