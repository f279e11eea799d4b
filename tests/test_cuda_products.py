"""Convolutions on maps with channels last, and float32 operands in three TF32 parts."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd import devices
from iadd.engine import cuda_products
from iadd.engine.cuda_products import (
    Convolution,
    Patches,
    conv_operands,
    long_products,
    patches,
    patches_adjoint,
    tf32_parts,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=g)


def bits_below_ten(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32) & 0x1FFF


def test_parts_of_a_number_by_hand() -> None:
    """1 + 2^-11 + 2^-20: TF32 rounds to 1 + 2^-10, and the rest is -2^-11 + 2^-20."""
    x = torch.tensor([1 + 2**-11 + 2**-20])
    high, low, again = tf32_parts(x).tolist()
    assert high == again == 1 + 2**-10 and low == 2**-20 - 2**-11


@given(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False))
def test_parts_add_up_and_the_high_one_is_tf32(x: float) -> None:
    high, low, _ = tf32_parts(torch.tensor([x]))
    assert float(high) + float(low) == x
    assert int(bits_below_ten(high)) == 0 and abs(float(low)) <= abs(x) * 2**-11


@pytest.mark.parametrize("x", [float("inf"), -float("inf"), float("nan"), 3.4028234e38])
def test_what_is_not_finite_stays_so(x: float) -> None:
    payload = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)  # a GPU's NaN
    for value in (torch.tensor([x]), payload):
        high, low, _ = tf32_parts(value)
        assert not bool(high.isfinite()) and float(low) == 0


def test_a_weights_parts_stand_beside_a_maps() -> None:
    weight = normal(2, 3, 3, 3)
    map_parts = tf32_parts(weight.permute(0, 2, 3, 1))
    ((weight_parts, flipped),) = conv_operands([weight], in_parts=True)
    assert torch.equal(map_parts[..., :3], weight_parts[..., :3])
    assert torch.equal(map_parts[..., 3:6], weight_parts[..., 6:])
    assert flipped.shape == (3, 3, 3, 6)
    assert torch.equal(flipped[1, 0, 2, :2], weight_parts[:, 2, 0, 1])


@pytest.mark.kernels
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.sampled_from([1, 3, 4, 8, 33]), st.integers(1, 20), st.booleans())
def test_the_kernels_are_the_reference(outputs: int, inputs: int, many: int, parts: bool) -> None:
    x = normal(outputs, inputs)
    weights = [normal(outputs, inputs + k % 2, 3, 3, seed=k) for k in range(many)]
    x[0, 0] = weights[0][0, 0, 0, 1] = float("nan")
    wanted = [tf32_parts(x), *sum(conv_operands(weights, parts), ())]
    found = [torch.ops.iadd.tf32_parts(x), *torch.ops.iadd.conv_operands(weights, parts)]
    for got, right in zip(found, wanted, strict=True):
        assert torch.equal(got.view(torch.int32), right.view(torch.int32))


@pytest.mark.kernels
def test_the_kernels_refuse_what_does_not_fit() -> None:
    with pytest.raises(TypeError, match="x is Double, allowed is float32"):
        torch.ops.iadd.tf32_parts(normal(4).double())
    with pytest.raises(ValueError, match=r"allowed is \(O, C, 3, 3\)"):
        torch.ops.iadd.conv_operands([normal(4, 2, 3, 3), normal(4, 2, 5, 5)], True)


@pytest.mark.kernels
@settings(max_examples=30, deadline=None)
@given(st.tuples(*(st.integers(1, 5) for _ in range(4))))
def test_the_kernels_of_patches_are_the_reference(shape: tuple[int, ...]) -> None:
    images = normal(*shape).double()
    rows = torch.ops.iadd.patches(images)
    assert torch.equal(rows, patches(images))
    back = torch.ops.iadd.patches_adjoint(normal(*rows.shape).double(), shape[0], *shape[2:])
    assert relative(back, patches_adjoint(normal(*rows.shape).double(), shape)) < 1e-14
    with pytest.raises(ValueError, match="rows have shape"):
        torch.ops.iadd.patches_adjoint(rows, shape[0] + 1, *shape[2:])


@pytest.mark.parametrize("length", [5, 48, 2048])
def test_a_long_product_is_a_product(length: int) -> None:
    a, b = normal(3, length).double(), normal(4, length).double().T
    assert relative(long_products(a, b).sum(0), a @ b) < 1e-14


def relative(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got.double() - wanted).norm() / wanted.norm())


def through(product: Convolution, dtype: torch.dtype) -> list[Tensor]:
    """A convolution of 5 to 6 channels and its two adjoints, channels first."""
    x, weight, by_y = (
        normal(3, 7, 9, 5).to(dtype),
        normal(6, 5, 3, 3).to(dtype),
        normal(3, 7, 9, 6).to(dtype),
    )
    ((forward, flipped),) = product.ready_weights([weight])
    by_x = product.forward(product.ready(by_y), flipped)
    return [
        product.forward(product.ready(x), forward).permute(0, 3, 1, 2),
        by_x.permute(0, 3, 1, 2),
        product.by_weight(by_y, x),
    ]


def by_autograd() -> list[Tensor]:
    x, by_y = (z.double().permute(0, 3, 1, 2) for z in (normal(3, 7, 9, 5), normal(3, 7, 9, 6)))
    leaves = [z.clone().requires_grad_() for z in (x, normal(6, 5, 3, 3).double())]
    y = F.conv2d(*leaves, padding=1)
    return [y.detach(), *torch.autograd.grad(y, leaves, by_y)]


def test_products_are_convolutions() -> None:
    for got, wanted in zip(through(Convolution(), torch.float64), by_autograd(), strict=True):
        assert relative(got, wanted) < 1e-14


def test_operands_in_parts_keep_float32s_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts = Convolution(parts=True)
    for got, wanted in zip(through(in_parts, torch.float32), by_autograd(), strict=True):
        assert relative(got, wanted) < 1e-6
    # The products really are of TF32 numbers: without the low parts they are as coarse as those.
    only_high = torch.tensor([1.0, 0.0, 0.0])

    def high(x: Tensor) -> Tensor:
        return tf32_parts(x) * only_high.repeat_interleave(x.shape[-1])

    monkeypatch.setattr(cuda_products, "tf32_parts", high)
    coarse = zip(through(in_parts, torch.float32)[:2], by_autograd()[:2], strict=True)
    assert all(relative(got, wanted) > 1e-5 for got, wanted in coarse)


def test_bf16_rounds_and_widens() -> None:
    rounded = through(Convolution("bf16"), torch.float32)
    for got, wanted in zip(rounded, by_autograd(), strict=True):
        assert got.dtype == torch.float32 and 1e-4 < relative(got, wanted) < 1e-1


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_the_first_convolution(channels: int) -> None:
    images, by_y = normal(2, channels, 6, 7).double(), normal(2, 6, 7, 4).double()
    weights = [normal(4, channels, 3, 3, seed=k).double() for k in range(2)]
    leaves = [z.clone().requires_grad_() for z in (images, *weights)]
    maps = [F.conv2d(leaves[0], weight, padding=1) for weight in leaves[1:]]
    rows = Patches(images, Convolution())
    for got, wanted in zip(rows.forward(weights), maps, strict=True):
        assert relative(got.permute(0, 3, 1, 2), wanted.detach()) < 1e-14
    upstream = by_y.permute(0, 3, 1, 2)
    wanted = torch.autograd.grad(maps, leaves, [upstream, 2 * upstream])
    pairs = list(zip((by_y, 2 * by_y), weights, strict=True))
    assert relative(rows.by_images(pairs), wanted[0]) < 1e-14
    assert relative(rows.by_weight(by_y).sum(0), wanted[1].flatten(1)) < 1e-14


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(3, 5), (2, 8), (1001, 128), (7, 4096)])
def test_parts_on_a_card(shape: tuple[int, int]) -> None:
    x = normal(*shape)
    assert torch.equal(tf32_parts(x.cuda()).cpu(), tf32_parts(x))
    weights = [normal(shape[1] % 100, 7, 3, 3), normal(64, 130, 3, 3)]
    for in_parts in (False, True):
        found = conv_operands([weight.cuda() for weight in weights], in_parts)
        for got, wanted in zip(found, conv_operands(weights, in_parts), strict=True):
            assert all(torch.equal(a.cpu(), b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (10, 3, 32, 32), (3, 5, 7, 9)])
def test_patches_on_a_card(shape: tuple[int, ...]) -> None:
    images = normal(*shape).double()
    rows = patches(images)
    assert torch.equal(patches(images.cuda()).cpu(), rows)
    assert relative(patches_adjoint(rows.cuda(), shape).cpu(), patches_adjoint(rows, shape)) < 1e-14


@pytest.mark.gpu
def test_a_card_multiplies_parts_as_float32() -> None:
    devices.choose("cuda:0")
    x, weight, by_y = normal(8, 16, 16, 64), normal(64, 64, 3, 3), normal(8, 16, 16, 64)

    def products(product: Convolution, device: str, dtype: torch.dtype) -> list[Tensor]:
        a, w, b = (z.to(device, dtype) for z in (x, weight, by_y))
        ((forward, flipped),) = product.ready_weights([w])
        return [
            product.forward(product.ready(a), forward).cpu(),
            product.forward(product.ready(b), flipped).cpu(),
            product.by_weight(b, a).cpu(),
        ]

    exact = products(Convolution(), "cpu", torch.float64)
    for precision, most in (("float32", 1e-5), ("tf32", 1e-2)):
        product = Convolution(precision, parts=precision == "float32")
        with devices.arithmetic(precision, torch.device("cuda", 0), autocast=False):
            found = products(product, "cuda", torch.float32)
        errors = [relative(got, wanted) for got, wanted in zip(found, exact, strict=True)]
        assert max(errors) < most, (precision, errors)
        # Forwards TF32 is what was asked for; cuDNN may still take better for weights' gradients.
        assert precision == "float32" or min(errors[:2]) > 1e-4
