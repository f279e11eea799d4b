"""A gradient put together: the kernel's text, run on the CPU, against the plain reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd.engine.cuda_sums import flat_sums_reference


def draw(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Tensors of those shapes, every other one with its dimensions the other way round."""
    g = torch.Generator().manual_seed(len(shapes))
    drawn = [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]
    return [
        z
        if k % 2
        else z.permute(*reversed(range(z.dim()))).contiguous().permute(*reversed(range(z.dim())))
        for k, z in enumerate(drawn)
    ]


def compare(parts: list[Tensor], device: str = "cpu") -> None:
    found = torch.ops.iadd.flat_sums([part.to(device) for part in parts]).cpu()
    wanted = flat_sums_reference(parts)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    bound = 1e-5 if wanted.dtype == torch.float32 else 1e-13
    assert float((found - wanted).abs().max()) < bound * (1 + float(wanted.abs().max()))


def test_by_hand() -> None:
    parts = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.empty(0, 2), torch.tensor([[[5.0]]])]
    assert flat_sums_reference(parts).tolist() == [4.0, 6.0, 0.0, 0.0, 5.0]


@pytest.mark.kernels
@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.lists(st.integers(1, 4), max_size=4)),
        min_size=1,
        max_size=60,
    ),
    st.booleans(),
)
def test_the_kernel_is_the_reference(drawn: list[tuple[int, list[int]]], single: bool) -> None:
    shapes = [(summands, *rest) for summands, rest in drawn]
    compare(draw(shapes, torch.float32 if single else torch.float64))


@pytest.mark.kernels
def test_the_kernel_refuses_what_does_not_fit() -> None:
    one = torch.ones(2, 3)
    with pytest.raises(TypeError, match="x is Double, expected Float"):
        torch.ops.iadd.flat_sums([one, one.double()])
    with pytest.raises(ValueError, match="allowed are 1 to 5 dimensions"):
        torch.ops.iadd.flat_sums([one.view(1, 1, 1, 1, 2, 3)])
    with pytest.raises(ValueError, match="elements of a summand"):
        torch.ops.iadd.flat_sums([torch.ones(2, 0)])


@pytest.mark.gpu
def test_the_kernel_on_a_card() -> None:
    shapes = [(1, 128, 128, 3, 3), (0, 128), (200, 128), (128, 128, 27), (1, 10, 2048), (7, 1)]
    compare(draw(shapes * 5), "cuda")
    compare(draw(shapes * 5, torch.float32), "cuda")
