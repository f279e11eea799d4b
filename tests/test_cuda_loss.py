"""The softmax cross-entropy's kernels and reference, against autograd in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd.engine import cuda_loss

KERNELS = torch.ops.iadd


def draw(
    parts: int, images: int, classes: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """Sums (S, 2, B, K), those that move (S, B, K), biases (K,) twice, targets (B, K)."""
    g = torch.Generator().manual_seed(parts + 7 * images + 31 * classes)
    shapes = ((parts, 2, images, classes), (parts, images, classes), (classes,), (classes,))
    drawn = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
    targets = torch.rand(images, classes, generator=g, dtype=torch.float64)  # of any mass
    return tuple(z.to(dtype) for z in (*drawn, targets))


def far(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3))


def plain(given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The sums without tangents, the bias, the targets."""
    return given[0][:, 0], given[2], given[4]


@pytest.mark.parametrize("classes", [1, 10, 70])
def test_the_reference_is_autograd(classes: int) -> None:
    sums, moving, bias, bias_dot, targets = given = draw(3, 4, classes)
    logits = (sums[:, 0].sum(0) + bias).requires_grad_()
    along, labels = sums[:, 1].sum(0) + moving.sum(0) + bias_dot, targets.clone().requires_grad_()
    losses = -(labels * logits.log_softmax(1)).sum(1) / 7
    (by_logits,) = torch.autograd.grad(losses.sum(), logits, create_graph=True)
    slopes = (by_logits * along).sum(1)
    tangents = torch.autograd.grad(slopes.sum(), (logits, labels))
    losses, by_logits, slopes = (z.detach() for z in (losses, by_logits, slopes))
    found = cuda_loss.cross_entropy_reference(*plain(given), 7)
    assert far(found[0], losses) < 1e-12 and far(found[1], by_logits) < 1e-12
    dual = cuda_loss.cross_entropy_dual_reference(*given, 7)
    assert far(dual.slopes, slopes) < 1e-12 and far(dual.by_targets, tangents[1]) < 1e-12
    assert far(dual.by_logits, torch.stack((tangents[0], by_logits))) < 1e-12


def compare(given: tuple[Tensor, ...], device: str, bound: float) -> None:
    there = tuple(z.to(device) for z in given)
    found = [*KERNELS.cross_entropy(*plain(there), 1 / 7)]
    found += KERNELS.cross_entropy_dual(*there, 1 / 7)
    wanted = [*cuda_loss.cross_entropy_reference(*plain(given), 7)]
    wanted += cuda_loss.cross_entropy_dual_reference(*given, 7)
    assert all(far(a.cpu(), b) < bound for a, b in zip(found, wanted, strict=True))


@pytest.mark.kernels
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 70))
def test_the_kernels_are_the_reference(parts: int, images: int, classes: int) -> None:
    compare(draw(parts, images, classes), "cpu", 1e-11)
    compare(draw(parts, images, classes, torch.float32), "cpu", 1e-4)


@pytest.mark.kernels
def test_large_logits_do_not_overflow_and_nan_stays_in_its_row() -> None:
    sums, bias = torch.tensor([[[1e4, 0.0], [float("nan"), 0.0]]]), torch.zeros(2)
    losses, by_logits = KERNELS.cross_entropy(sums, bias, torch.tensor([[0.0, 1.0]] * 2), 1.0)
    assert float(losses[0]) == 1e4 and by_logits[0].tolist() == [1.0, -1.0]
    assert bool(losses[1].isnan()) and bool(by_logits[1].isnan().all())


@pytest.mark.kernels
def test_the_kernels_refuse_what_does_not_fit() -> None:
    given = draw(2, 3, 4)
    with pytest.raises(ValueError, match=r"targets has shape \[3, 4\], expected \[2, 4\]"):
        KERNELS.cross_entropy(given[0][:, 0, :2], given[2], given[4], 1.0)
    with pytest.raises(TypeError, match="bias is Float, expected Double"):
        KERNELS.cross_entropy(given[0][:, 0], given[2].float(), given[4], 1.0)
    with pytest.raises(ValueError, match=r"expected \(S, 2, B, K\)"):
        KERNELS.cross_entropy_dual(given[1], *given[1:], 1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 1, 1), (32, 10, 10), (32, 257, 100), (5, 9, 1000)])
def test_the_kernels_on_a_card(shape: tuple[int, int, int]) -> None:
    compare(draw(*shape), "cuda", 1e-11)
    compare(draw(*shape, torch.float32), "cuda", 1e-4)
