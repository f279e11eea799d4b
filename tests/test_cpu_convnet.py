"""The C++ ConvNet passes against autograd in float64, by hand, and where they must refuse."""

import math
import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd.engine.autograd import AutogradBackend
from iadd.engine.backend import choose_backend
from iadd.engine.base import cross_entropy
from iadd.engine.cpu_convnet import CpuConvNet
from iadd.networks import Network, build_network

pytestmark = pytest.mark.kernels
CPU = torch.device("cpu")

FAMILY = (
    "convnet-d1-w3",
    "convnet-d2-w32",
    "convnet-d3-w20",
    "convnet-d2-w17-nonorm",
    "convnet-d2-w9-linear",
    "convnet-d2-w5-nopool",
    "convnet-d3-w6-nonorm-linear-nopool",
)


class Case(NamedTuple):
    params: Tensor
    images: Tensor
    targets: Tensor
    direction: Tensor


def draw(network: Network, batch: int, seed: int = 0, scale: float = 1.0) -> Case:
    g = torch.Generator().manual_seed(seed)
    params = network.init(g).double()

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    params += 0.1 * scale * normal(len(params))
    images = normal(batch, network.channels, network.resolution, network.resolution)
    # Not normalised: the formulas must not lean on targets that sum to one.
    targets = torch.rand(batch, network.classes, generator=g, dtype=torch.float64)
    return Case(params, images, targets, normal(len(params)))


def passes(network: Network, dtype: torch.dtype = torch.float64) -> CpuConvNet:
    return CpuConvNet(network, CPU, dtype)


def by_autograd(network: Network) -> AutogradBackend:
    return AutogradBackend(network, CPU, torch.float64)


def far(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got.double() - wanted).abs().max() / wanted.abs().max())


def plain(config: list[int], classes: int, flat: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and features of any map size: what csrc/cpu_convnet.h describes, layer by layer."""
    width, depth, norm, relu, pool = config
    at = 0

    def take(*shape: int) -> Tensor:
        nonlocal at
        at += math.prod(shape)
        return flat[at - math.prod(shape) : at].view(shape)

    for _ in range(depth):
        x = F.conv2d(x, take(width, x.shape[1], 3, 3), take(width), padding=1)
        x = F.group_norm(x, width, take(width), take(width)) if norm else x
        x = F.relu(x) if relu else x
        x = F.avg_pool2d(x, 2) if pool and min(x.shape[2:]) >= 4 else x
    x = x.flatten(1)
    return F.linear(x, take(classes, x.shape[1]), take(classes)), x


def size(config: list[int], classes: int, image: Tensor) -> int:
    width, depth, norm, _, pool = config
    (channels, *sides), total = image.shape, 0
    for _ in range(depth):
        total += width * (channels * 9 + 1 + 2 * norm)
        channels = width
        if pool and min(sides) >= 4:
            sides = [side // 2 for side in sides]
    return total + classes * (width * math.prod(sides) + 1)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("resolution", [8, 11])
def test_float64_is_autograd(name: str, resolution: int) -> None:
    network = build_network(name, 3, resolution, 4)
    case = draw(network, 3)
    assert choose_backend(network, CPU, torch.float64).name.startswith("cpu-convnet-")
    loss, grad = passes(network).gradient(*case[:3])
    wanted_loss, wanted_grad = by_autograd(network).gradient(*case[:3])
    assert far(loss, wanted_loss) < 1e-12
    assert far(grad, wanted_grad) < 1e-11
    wanted = by_autograd(network).tangent(*case)
    for got, reference in zip(passes(network).tangent(*case), wanted, strict=True):
        assert far(got, reference) < 1e-11


configs = st.tuples(
    st.integers(1, 40), st.integers(1, 3), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1)
)


@settings(max_examples=40, deadline=None)
@given(
    config=configs,
    batch=st.integers(1, 13),
    image=st.tuples(st.integers(1, 4), st.integers(2, 19), st.integers(2, 19)),
    classes=st.integers(2, 18),
    seed=st.integers(0, 9),
)
def test_any_shape(
    config: tuple[int, ...], batch: int, image: tuple[int, ...], classes: int, seed: int
) -> None:
    """Odd and oblong maps, batch 1, widths that fill no register: all equal autograd."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    x = normal(batch, *image).requires_grad_()
    params = (0.3 * normal(size(list(config), classes, x[0]))).requires_grad_()
    targets = torch.rand(batch, classes, generator=g, dtype=torch.float64).requires_grad_()
    direction = normal(len(params))
    logits, features = plain(list(config), classes, params, x)
    loss = cross_entropy(logits, targets)
    (grad,) = torch.autograd.grad(loss, params, create_graph=True)
    wanted = torch.autograd.grad(grad @ direction, (params, x, targets), retain_graph=True)

    data = [z.detach() for z in (params, x, targets)]
    h, by_params = torch.empty_like(direction), torch.empty_like(direction)
    got = torch.ops.iadd.convnet_tangent(*data, direction, None, config, h)
    got_loss = torch.ops.iadd.convnet_gradient(*data, None, config, by_params)
    forward = torch.ops.iadd.convnet_forward(*data[:2], classes, config)
    pairs = [
        *zip((h, *got), (*wanted, grad @ direction), strict=True),
        *zip((got_loss, by_params), (loss, grad), strict=True),
        *zip(forward, (logits, features), strict=True),
    ]
    for mine, theirs in pairs:
        assert mine.shape == theirs.shape
        # Absolute, because a derivative may vanish; all are of order one or larger by construction.
        error = (mine - theirs).abs().max()
        assert error <= 1e-9 * max(1.0, float(theirs.detach().abs().max()))


@pytest.mark.parametrize("name", ["convnet-d3-w128", "convnet-d2-w32"])
def test_float32_is_near_float64_where_no_sign_differs(name: str) -> None:
    """One Hessian-vector product within 1e-5; a network without ReLU has no signs to differ."""
    network = build_network(f"{name}-linear", 3, 16, 10)
    case = draw(network, 6, scale=0.1)
    wanted = passes(network).tangent(*case)
    single = Case(*(z.float() for z in case))
    for got, reference in zip(passes(network).tangent(*single)[:3], wanted[:3], strict=True):
        assert far(got, reference) < 1e-5
    assert (
        far(
            passes(network).gradient(*single[:3])[1],
            passes(network).gradient(*case[:3])[1],
        )
        < 1e-5
    )


def test_one_block_by_hand() -> None:
    """An identity convolution and a zero head: loss log 2, gradient (p - target) x feature."""
    network = build_network("convnet-d1-w1-nonorm-linear-nopool", 1, 8, 2)
    params = torch.zeros(network.num_parameters, dtype=torch.float64)
    params[4] = 1  # the centre tap
    image = torch.arange(64, dtype=torch.float64).view(1, 1, 8, 8)
    target = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    loss, grad = passes(network).gradient(params, image, target)
    assert math.isclose(float(loss), math.log(2))
    convolution, head = grad[:10], grad[10:]
    assert not convolution.any()  # the head is zero, so nothing flows through it
    torch.testing.assert_close(head[:64], -0.5 * image.flatten(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head[64:128], 0.5 * image.flatten(), rtol=1e-12, atol=1e-12)
    assert head[128:].tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("name", FAMILY)
def test_logits_embedding_and_its_gradient(name: str) -> None:
    network = build_network(name, 1, 10, 3)
    params, images, _, _ = draw(network, 5)
    leaf = images.clone().requires_grad_()
    embedding = network.embed(params, leaf)
    assert far(passes(network).logits(params, images), network.apply(params, images)) < 1e-12
    assert far(passes(network).embed(params, images), embedding.detach()) < 1e-12
    g = torch.Generator().manual_seed(1)
    cotangent = torch.randn(embedding.shape, generator=g, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(embedding, leaf, cotangent)
    assert far(passes(network).embed_gradient(params, images, cotangent), wanted) < 1e-11


def test_step_and_step_back_are_gradient_and_tangent_taken_in_place() -> None:
    network = build_network("convnet-d2-w17", 3, 11, 4)
    case = draw(network, 6)
    params, adjoint = case.params, case.direction
    _, grad = passes(network).gradient(params, case.images, case.targets)
    h, *others = passes(network).tangent(params, case.images, case.targets, adjoint)
    moved, kept = adjoint.clone(), params.clone()
    pulled = passes(network).step_back(params, case.images, case.targets, 0.3, moved)
    passes(network).step(kept, case.images, case.targets, 0.3, kept)
    assert far(kept, params - 0.3 * grad) < 1e-15
    assert far(moved, adjoint - 0.3 * h) < 1e-15
    assert all(torch.equal(a, b) for a, b in zip(pulled, others, strict=True))


@pytest.mark.parametrize(
    ("network", "batch"),
    [
        # Wide enough for all threads to share a micro-batch, of odd sizes: one image; two pieces.
        *((build_network("convnet-d3-w100", 3, 19, 7), batch) for batch in (1, 13)),
        # 84: eight equal pieces. Then pieces of twelve and a rest: one image, none, four.
        *((build_network("convnet-d2-w9", 1, 8, 3), batch) for batch in (84, 85, 96, 100)),
    ],
)
def test_however_a_batch_is_cut(network: Network, batch: int) -> None:
    case = draw(network, batch)
    got = [*passes(network).gradient(*case[:3]), *passes(network).tangent(*case)]
    wanted = [
        *by_autograd(network).gradient(*case[:3]),
        *by_autograd(network).tangent(*case),
    ]
    assert max(map(far, got, wanted)) < 1e-10


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("width", [64, 128])  # a micro-batch a thread; all threads on one
@pytest.mark.parametrize("batch", [1, 10, 37, 100])
def test_threads_do_not_change_a_bit(batch: int, width: int) -> None:
    network = build_network(f"convnet-d3-w{width}", 3, 16, 10)
    case = Case(*(z.float() for z in draw(network, batch)))
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append([*passes(network).gradient(*case[:3]), *passes(network).tangent(*case)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", ["convnet-d2-w17", "convnet-d2-w17-nonorm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_propagate(name: str, value: float) -> None:
    network = build_network(name, 1, 9, 3)
    clean = draw(network, 2)
    bias = 9 * 17  # of the first convolution, which a norm would take off again
    for field, at in (("params", bias), ("images", 5), ("targets", 1), ("direction", bias)):
        case = clean._replace(**{field: getattr(clean, field).clone()})
        getattr(case, field).view(-1)[at] = value
        loss, grad = passes(network).gradient(*case[:3])
        assert bool(torch.isfinite(loss)) == (field == "direction")
        assert bool(torch.isfinite(grad).all()) == (field == "direction")
        assert not bool(torch.isfinite(passes(network).tangent(*case)[0]).all())


def test_unordered_and_foreign_strides_are_copied() -> None:
    network = build_network("convnet-d2-w8", 3, 8, 3)
    case = draw(network, 4)
    strided = case._replace(images=case.images.to(memory_format=torch.channels_last))
    assert not strided.images.is_contiguous()
    assert torch.equal(
        passes(network).gradient(*strided[:3])[1], passes(network).gradient(*case[:3])[1]
    )


@pytest.mark.parametrize(
    "name",
    ["mlp", "resnet18-w4", "convnet-d2-w8-maxpool", "convnet-d2-w8-batchnorm",
     "convnet-d2-w8-leakyrelu"],
)  # fmt: skip
def test_other_networks_have_no_such_passes(name: str) -> None:
    network = build_network(name, 1, 16, 3)
    assert choose_backend(network, CPU).name == "autograd"
    with pytest.raises(ValueError, match="it is no ConvNet of the family"):
        passes(network)


def test_other_dtypes_and_devices_have_no_such_passes() -> None:
    network = build_network("convnet-d2-w8", 1, 8, 3)
    assert choose_backend(network, CPU, torch.bfloat16).name == "autograd"
    assert choose_backend(network, torch.device("meta")).name == "autograd"


def test_refusals_name_what_is_wrong() -> None:
    network = build_network("convnet-d2-w8", 1, 8, 3)
    params, images, targets, direction = draw(network, 2)
    with pytest.raises(ValueError, match="parameters has shape"):
        passes(network).gradient(params[1:], images, targets)
    with pytest.raises(ValueError, match="targets has shape"):
        passes(network).gradient(params, images, targets[:1])
    with pytest.raises(ValueError, match="direction has shape"):
        passes(network).tangent(params, images, targets, direction[1:])
    with pytest.raises(ValueError, match="dimensions"):
        passes(network).gradient(params, images[0], targets)
    with pytest.raises(ValueError, match="no image"):
        passes(network).gradient(params, images[:0], targets[:0])
    with pytest.raises(TypeError, match="images is"):
        passes(network).gradient(params, images.float(), targets)


PROBE = """
import torch
from iadd.engine.autograd import AutogradBackend
from iadd.engine.cpu_convnet import CpuConvNet
from iadd.networks import build_network
network = build_network("convnet-d3-w20", 3, 13, 5)
g = torch.Generator().manual_seed(0)
params = network.init(g).double()
images = torch.randn(3, 3, 13, 13, generator=g, dtype=torch.float64)
targets = torch.rand(3, 5, generator=g, dtype=torch.float64)
direction = torch.randn(len(params), generator=g, dtype=torch.float64)
where = network, params.device, params.dtype
wanted = AutogradBackend(*where).tangent(params, images, targets, direction)
got = CpuConvNet(*where).tangent(params, images, targets, direction)
assert all(float((a - b).abs().max() / b.abs().max()) < 1e-11 for a, b in zip(got, wanted))
print(CpuConvNet(*where).name)
"""


@pytest.mark.parametrize("isa", ["avx2", "generic"])
def test_every_instruction_set(isa: str) -> None:
    """The builds for lesser processors, in a process of their own: the choice is made once."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=os.environ | {"IADD_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (f"cpu-convnet-{isa}", "cpu-convnet-generic")
