"""Convolutions on maps with channels last, and float32 operands in three TF32 parts."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd.engine import cuda_products
from iadd.engine.cuda_products import Convolution, Patches, tf32_parts
from iadd.extension import has_kernels

built = pytest.mark.skipif(
    not has_kernels(torch.device("cpu")), reason="the extension is not built"
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=g)


def bits_below_ten(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32) & 0x1FFF


def test_parts_of_a_number_by_hand() -> None:
    """1 + 2^-11 + 2^-20: TF32 rounds to 1 + 2^-10, and the rest is -2^-11 + 2^-20."""
    x = torch.tensor([1 + 2**-11 + 2**-20])
    high, low, again = tf32_parts(x, 1, second=False).flatten().tolist()
    assert high == again == 1 + 2**-10 and low == 2**-20 - 2**-11
    assert tf32_parts(x, 1, second=True).flatten().tolist() == [high, high, low]


@given(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False))
def test_parts_add_up_and_the_high_one_is_tf32(x: float) -> None:
    high, low, _ = tf32_parts(torch.tensor([x]), 1, second=False).flatten()
    assert float(high) + float(low) == x
    assert int(bits_below_ten(high)) == 0 and abs(float(low)) <= abs(x) * 2**-11


@pytest.mark.parametrize("x", [float("inf"), -float("inf"), float("nan"), 3.4028234e38])
def test_what_is_not_finite_stays_so(x: float) -> None:
    payload = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)  # a GPU's NaN
    for value in (torch.tensor([x]), payload):
        high, low, _ = tf32_parts(value, 1, second=False).flatten()
        assert not bool(high.isfinite()) and float(low) == 0


@built
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.sampled_from([1, 3, 4, 8]), st.booleans())
def test_the_kernel_is_the_reference(runs: int, inner: int, second: bool) -> None:
    x = normal(runs, inner)
    x[0, 0] = float("nan")
    found = torch.ops.iadd.tf32_parts(x, inner, second)
    wanted = tf32_parts(x, inner, second)
    assert torch.equal(found.view(torch.int32), wanted.view(torch.int32))


@built
def test_the_kernel_refuses_what_does_not_fit() -> None:
    with pytest.raises(TypeError, match="x is Double, allowed is float32"):
        torch.ops.iadd.tf32_parts(normal(4).double(), 4, False)
    with pytest.raises(ValueError, match="inner is 3, allowed is what divides"):
        torch.ops.iadd.tf32_parts(normal(4), 3, False)


def relative(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got.double() - wanted).norm() / wanted.norm())


def through(convolution: Convolution, dtype: torch.dtype) -> list[Tensor]:
    """A convolution of 5 to 6 channels and its two adjoints, channels first."""
    x, weight, by_y = (
        normal(3, 7, 9, 5).to(dtype),
        normal(6, 3, 3, 5).to(dtype),
        normal(3, 7, 9, 6).to(dtype),
    )
    channels, batch = convolution.along_channels, convolution.along_batch
    return [
        convolution.forward(channels(x), channels(weight, second=True)).permute(0, 3, 1, 2),
        convolution.by_input(channels(by_y), batch(weight, second=True)).permute(0, 3, 1, 2),
        convolution.by_weight(batch(by_y, second=True), batch(x)),
    ]


def by_autograd() -> list[Tensor]:
    x, weight, by_y = (
        z.double().permute(0, 3, 1, 2)
        for z in (normal(3, 7, 9, 5), normal(6, 3, 3, 5), normal(3, 7, 9, 6))
    )
    leaves = [z.clone().requires_grad_() for z in (x, weight)]
    y = F.conv2d(*leaves, padding=1)
    return [y.detach(), *torch.autograd.grad(y, leaves, by_y)]


def test_products_are_convolutions() -> None:
    for got, wanted in zip(through(Convolution(), torch.float64), by_autograd(), strict=True):
        assert relative(got, wanted) < 1e-14


def test_operands_in_parts_keep_float32s_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    for got, wanted in zip(
        through(Convolution(split=True), torch.float32), by_autograd(), strict=True
    ):
        assert relative(got, wanted) < 1e-6
    # The products really are of TF32 numbers: without the low parts they are as coarse as those.
    high = lambda x, inner, second: tf32_parts(x, inner, second) * torch.tensor([1.0, 0, 0])[:, None]  # noqa: E731
    monkeypatch.setattr(cuda_products, "tf32_parts", high)
    coarse = through(Convolution(split=True), torch.float32)
    assert all(relative(a, b) > 1e-5 for a, b in zip(coarse, by_autograd(), strict=True))


def test_bf16_rounds_and_widens() -> None:
    for got, wanted in zip(
        through(Convolution(dtype=torch.bfloat16), torch.float32), by_autograd(), strict=True
    ):
        assert got.dtype == torch.float32 and 1e-4 < relative(got, wanted) < 1e-1


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_the_first_convolution(channels: int) -> None:
    images, by_y = normal(2, channels, 6, 7).double(), normal(2, 6, 7, 4).double()
    weights = [normal(4, channels, 3, 3, seed=k).double() for k in range(2)]
    leaves = [z.clone().requires_grad_() for z in (images, *weights)]
    maps = [F.conv2d(leaves[0], weight, padding=1) for weight in leaves[1:]]
    patches = Patches(images, Convolution())
    for got, wanted in zip(patches.forward(weights), maps, strict=True):
        assert relative(got.permute(0, 3, 1, 2), wanted.detach()) < 1e-14
    upstream = by_y.permute(0, 3, 1, 2)
    wanted = torch.autograd.grad(maps, leaves, [upstream, 2 * upstream])
    pairs = list(zip((by_y, 2 * by_y), weights, strict=True))
    assert relative(patches.by_images(pairs), wanted[0]) < 1e-14
    assert relative(patches.by_weight(by_y), wanted[1].flatten(1)) < 1e-14


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shape", [(3, 5), (2, 8), (1001, 128), (7, 4096)])
def test_parts_on_a_card(shape: tuple[int, int]) -> None:
    x = normal(*shape)
    for inner in (shape[1], x.numel()):
        for second in (False, True):
            assert torch.equal(
                tf32_parts(x.cuda(), inner, second).cpu(), tf32_parts(x, inner, second)
            )
