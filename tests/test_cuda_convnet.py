"""The hand-written passes against autograd in float64: on the CPU, where a GPU's can be checked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd.engine.autograd import AutogradBackend
from iadd.engine.backend import choose_backend
from iadd.engine.base import convnet_config
from iadd.engine.cuda_block import Affine, Form, backward_reference
from iadd.engine.cuda_convnet import CudaConvNet
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


def draw(network: Network, students: int, batch: int, shared: bool = False) -> tuple[Tensor, ...]:
    """Parameters (M, P), images, targets and a direction (M, P), in float64."""
    g = generator_for("tangents", network.name, students, batch)
    params = torch.stack([network.init(g) for _ in range(students)]).double()
    params += 0.1 * torch.randn(params.shape, generator=g, dtype=torch.float64)
    side, own = network.resolution, () if shared else (students,)
    images = torch.randn(
        *own, batch, network.channels, side, side, generator=g, dtype=torch.float64
    )
    # Not normalised: the formulas must not lean on targets that sum to one.
    targets = torch.rand(*own, batch, network.classes, generator=g, dtype=torch.float64)
    return (
        params,
        images,
        targets,
        torch.randn(params.shape, generator=g, dtype=torch.float64),
    )


def assert_close(got: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= tolerance * max(float(wanted.abs().max()), 1e-3)


def compare(network: Network, students: int, batch: int, shared: bool = False) -> None:
    params, images, targets, direction = draw(network, students, batch, shared)
    loss, grad = passes(network).gradient(params, images, targets)
    found = passes(network).tangent(params, images, targets, direction)
    logits = passes(network).logits(params, images)
    features = passes(network).embed(params, images)
    by_images = passes(network).embed_gradient(params, images, features)
    for m in range(students):
        x, y = (images, targets) if shared else (images[m], targets[m])
        wanted_loss, wanted_grad = by_autograd(network).gradient(params[m], x, y)
        assert_close(loss[m], wanted_loss)
        assert_close(grad[m], wanted_grad)
        wanted = by_autograd(network).tangent(params[m], x, y, direction[m])
        for got, reference in zip(found, wanted, strict=True):
            assert_close(got[m], reference)
        assert_close(logits[m], network.apply(params[m], x))
        leaf = x.clone().requires_grad_()
        embedding = network.embed(params[m], leaf)
        assert_close(features[m], embedding.detach())
        embedding.backward(embedding.detach())
        assert leaf.grad is not None
        assert_close(by_images[m], leaf.grad)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("channels", [1, 3])
def test_passes_are_autograd(name: str, channels: int) -> None:
    compare(build_network(name, channels, 8, 4), 1, 3)
    compare(build_network(name, channels, 11, 4), 2, 2)


@settings(max_examples=12, deadline=None)
@given(
    students=st.integers(1, 3),
    batch=st.integers(1, 4),
    resolution=st.integers(8, 15),
    name=st.sampled_from(FAMILY),
    shared=st.booleans(),
)
def test_any_shape(students: int, batch: int, resolution: int, name: str, shared: bool) -> None:
    compare(build_network(name, 3, resolution, 3), students, batch, shared)


def test_one_student_needs_no_leading_dimension() -> None:
    network = build_network("convnet-d2-w4", 1, 8, 3)
    params, images, targets, direction = draw(network, 1, 2)
    flat = (params[0], images[0], targets[0])
    many = passes(network).tangent(params, images, targets, direction)
    for one, first in zip(passes(network).tangent(*flat, direction[0]), many, strict=True):
        assert torch.equal(one, first[0])
    loss, grad = passes(network).gradient(*flat)
    assert loss.shape == () and grad.shape == (network.num_parameters,)


def test_what_is_outside_the_family() -> None:
    for name in ("mlp", "convnet-batchnorm", "convnet-leakyrelu", "convnet-maxpool"):
        assert convnet_config(build_network(name, 3, 8, 3)) is None
    assert convnet_config(build_network("convnet", 3, 8, 3)) == [128, 3, 1, 1, 1]


def test_nan_propagates() -> None:
    network = build_network("convnet-d1-w3", 1, 8, 3)
    params, images, targets, direction = draw(network, 1, 2)
    images[0, 0, 0, 0, 0] = float("nan")
    assert bool(passes(network).gradient(params, images, targets)[0].isnan())
    assert bool(passes(network).tangent(params, images, targets, direction)[0].isnan().any())


def test_bf16_rounds_operands_and_says_so() -> None:
    exact = build_network("convnet-d2-w8", 3, 8, 3)
    rounded = build_network("convnet-d2-w8", 3, 8, 3, "bf16")
    params, images, targets, direction = (z.float() for z in draw(exact, 1, 4))
    fine = passes(exact).tangent(params, images, targets, direction)[0]
    coarse = passes(rounded).tangent(params, images, targets, direction)[0]
    assert coarse.dtype == torch.float32
    assert 1e-4 < float((fine - coarse).norm() / fine.norm()) < 0.3
    assert passes(rounded).name == "cuda-convnet-bf16"
    assert passes(exact).name == "cuda-convnet"


def test_a_unit_that_is_off_passes_nothing() -> None:
    """By hand: one plane without norm, (-1, 2) under ReLU; only the second pixel passes."""
    x, form = torch.tensor([[[[-1.0, 2.0]]]]), Form(relu=True, pool=False)
    still = Affine(None, torch.zeros(1))
    by_x, by_affine = backward_reference(x, None, still, torch.full_like(x, 3.0), form)
    assert by_x.tolist() == [[[[0.0, 3.0]]]] and by_affine.tolist() == [[0.0, 3.0]]
    pair = torch.stack((torch.full_like(x, 5.0), torch.full_like(x, 7.0)))  # tangents first
    dual, sums = backward_reference(torch.stack((x, x)), None, still, pair, form, still)
    assert dual.tolist() == [[[[[0.0, 5.0]]]], [[[[0.0, 7.0]]]]] and sums.tolist() == [[0.0, 5.0]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FAMILY)
def test_a_card_computes_what_the_cpu_does(name: str) -> None:
    network = build_network(name, 3, 11, 4)
    given = [z.cuda() for z in draw(network, 2, 3)]
    backend = choose_backend(network, torch.device("cuda", 0), torch.float64)
    assert backend.name.startswith("cuda-convnet")
    many = backend.tangent(*given)
    for m in range(2):
        one = [z[m].cpu() for z in given]
        wanted = by_autograd(network).tangent(*one)
        for got, reference in zip(many, wanted, strict=True):
            assert_close(got[m].cpu(), reference)
        loss, grad = backend.gradient(*(z[m] for z in given[:3]))
        wanted_loss, wanted_grad = by_autograd(network).gradient(*one[:3])
        assert_close(loss.cpu(), wanted_loss)
        assert_close(grad.cpu(), wanted_grad)
        assert_close(backend.logits(given[0][m], given[1][m]).cpu(), network.apply(one[0], one[1]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_float32_on_a_card_is_no_tf32() -> None:
    """One product of float32 stays within 1e-5 of float64; TF32 would be at 1e-3."""
    network = build_network("convnet-d3-w32-linear", 3, 16, 4)
    given = [z[0].cuda() for z in draw(network, 1, 8)]
    card = torch.device("cuda", 0)
    exact = choose_backend(network, card, torch.float64).tangent(*given)
    for precision, low, high in (("float32", 0.0, 1e-5), ("tf32", 1e-5, 1e-2), ("bf16", 1e-4, 1)):
        rounded = build_network(network.name, 3, 16, 4, precision)
        found = choose_backend(rounded, card).tangent(*(z.float() for z in given))
        error = float((found.images.double() - exact.images).norm() / exact.images.norm())
        assert low <= error < high, precision
