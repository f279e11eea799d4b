"""The fused blocks: the kernels' text, run on the CPU, against the plain reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd.engine import cuda_block
from iadd.engine.cuda_block import Affine, Form

KERNELS = torch.ops.iadd
STILL = (None, None)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)


def far(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3))


def check(shape: tuple[int, int, int, int], form: Form, dtype: torch.dtype, bound: float) -> None:
    batch, height, width, channels = shape
    x = normal(2, *shape, dtype=dtype)
    affine = Affine(normal(channels, seed=1, dtype=dtype), normal(channels, seed=2, dtype=dtype))
    along = Affine(normal(channels, seed=3, dtype=dtype), normal(channels, seed=4, dtype=dtype))
    rows, columns = (height // 2, width // 2) if form.pool else (height, width)
    by_y = normal(2, batch, rows, columns, channels, seed=5, dtype=dtype)

    wanted_y, wanted_stats = cuda_block.forward_reference(x[0], affine, form)
    y, stats = KERNELS.block_forward(x[0], *affine, *STILL, *form)
    assert far(y, wanted_y) < bound and far(stats, wanted_stats) < bound
    by_x, parts = KERNELS.block_backward(x[0], stats, *affine, *STILL, by_y[0], *form)
    wanted = cuda_block.backward_reference(x[0], wanted_stats, affine, by_y[0], form)
    assert far(by_x, wanted[0]) < bound and far(parts, wanted[1]) < bound

    wanted_y, wanted_stats = cuda_block.forward_reference(x, affine, form, along)
    y, stats = KERNELS.block_forward(x, *affine, *along, *form)
    assert far(y, wanted_y) < bound and far(stats, wanted_stats) < bound
    by_x, parts = KERNELS.block_backward(x, stats, *affine, *along, by_y, *form)
    wanted = cuda_block.backward_reference(x, wanted_stats, affine, by_y, form, along)
    assert far(by_x, wanted[0]) < bound and far(parts, wanted[1]) < bound


@pytest.mark.kernels
@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(2, 17), st.integers(2, 17), st.integers(1, 5)),
    relu=st.booleans(),
    pool=st.booleans(),
)
def test_kernels_are_the_reference(
    shape: tuple[int, int, int, int], relu: bool, pool: bool
) -> None:
    check(shape, Form(relu, pool), torch.float64, 1e-11)


@pytest.mark.kernels
@pytest.mark.parametrize("side", [8, 9, 16, 32])
def test_kernels_in_float32(side: int) -> None:
    # Without ReLU: a unit whose sign differs by rounding would be a difference of another kind.
    check((3, side, side, 4), Form(relu=False, pool=True), torch.float32, 2e-4)


@pytest.mark.kernels
def test_kernels_take_maps_that_are_not_contiguous_or_aligned() -> None:
    form, affine = (
        Form(relu=True, pool=True),
        Affine(torch.ones(3).double(), torch.zeros(3).double()),
    )
    wide = normal(2, 8, 8, 4)
    for x in (wide[..., 1:], wide[..., :3], wide.transpose(1, 2)[..., 1:], wide.flatten()[1:385]):
        x = x.view(2, 8, 8, 3) if x.dim() == 1 else x
        y, _ = KERNELS.block_forward(x, *affine, *STILL, *form)
        assert far(y, cuda_block.forward_reference(x, affine, form)[0]) < 1e-12


@pytest.mark.kernels
def test_kernels_refuse_what_does_not_fit() -> None:
    x, one = normal(2, 8, 8, 3), torch.ones(3).double()
    with pytest.raises(ValueError, match=r"scale has shape \[2\], expected \[3\]"):
        KERNELS.block_forward(x, one[:2], one, *STILL, True, True)
    with pytest.raises(TypeError, match="shift is Float, expected Double"):
        KERNELS.block_forward(x, one, one.float(), *STILL, True, True)
    with pytest.raises(ValueError, match=r"expected \(2, B, H, W, C\)"):
        KERNELS.block_forward(x, one, one, one, one, True, True)


@pytest.mark.kernels
def test_nan_propagates() -> None:
    x, one = normal(2, 8, 8, 3), torch.ones(3).double()
    x[0, 2, 3, 1] = float("nan")
    y, stats = KERNELS.block_forward(x, one, one, *STILL, True, True)
    assert bool(y[0, ..., 1].isnan().all()) and not bool(y[0, ..., 0].isnan().any())
    by_x, _ = KERNELS.block_backward(x, stats, one, one, *STILL, torch.ones_like(y), True, True)
    assert bool(by_x[0, ..., 1].isnan().all()) and not bool(by_x[1].isnan().any())


def test_a_plane_by_hand() -> None:
    """Values 0, 0, 2, 2: mean 1, deviation 1; scaled by 3 and shifted by 1: -2, -2, 4, 4."""
    x = torch.tensor([0.0, 0.0, 2.0, 2.0]).double().view(1, 2, 2, 1)
    affine = Affine(torch.tensor([3.0]).double(), torch.tensor([1.0]).double())
    y, stats = cuda_block.forward_reference(x, affine, Form(relu=True, pool=True))
    assert float(y) == pytest.approx(2.0, abs=1e-4)  # (0 + 0 + 4 + 4) / 4
    assert stats is not None and stats.flatten().tolist() == pytest.approx([1.0, 1.0], abs=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [5, 8, 20, 2900])
@pytest.mark.parametrize("side", [2, 8, 11, 16, 17, 32, 33])
def test_cuda_kernels_are_the_reference(side: int, channels: int) -> None:
    form = Form(relu=True, pool=True)
    x = normal(2, 3, side, side, channels).cuda()
    affine = Affine(normal(channels, seed=1).cuda(), normal(channels, seed=2).cuda())
    along = Affine(normal(channels, seed=3).cuda(), normal(channels, seed=4).cuda())
    y, stats = cuda_block.forward(x, affine, form, along)
    wanted, wanted_stats = cuda_block.forward_reference(x, affine, form, along)
    assert cuda_block.fused(x.device) and far(y, wanted) < 1e-11
    by_y = torch.randn_like(y)
    found = cuda_block.backward(x, stats, affine, by_y, form, along)
    reference = cuda_block.backward_reference(x, wanted_stats, affine, by_y, form, along)
    assert all(far(a, b) < 1e-11 for a, b in zip(found, reference, strict=True))
    again = cuda_block.backward(x, stats, affine, by_y, form, along)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
