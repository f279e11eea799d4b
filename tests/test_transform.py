"""Transforms are fitted as defined, invertible, and kept exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iadd.data import Dataset, Split, Transform, load_dataset
from iadd.data.transform import fit


def pixels_of(dataset: Dataset, split: Split) -> torch.Tensor:
    return dataset.transform.invert(split.images)


def test_standard_is_by_channel_and_leaves_a_constant_channel_alone() -> None:
    pixels = torch.stack([torch.tensor([0.0, 0.5, 1.0, 0.5]), torch.full((4,), 0.3)])
    pixels = pixels.T.reshape(4, 2, 1, 1)
    transform = fit("standard", pixels)
    assert transform.mean is not None
    assert transform.std is not None
    assert transform.mean.tolist() == pytest.approx([0.5, 0.3])
    assert transform.std.tolist() == pytest.approx([0.125**0.5, 1.0])
    assert transform.apply(pixels)[:, 1].abs().max() < 1e-6


def test_zca_by_hand() -> None:
    """Two opposite points: variance 1 along (1, -1)/sqrt 2, none along (1, 1)/sqrt 2."""
    pixels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
    transform = fit("zca", pixels)
    along, across = 1.1**-0.5, 0.1**-0.5
    expected = [[(along + across) / 2, (across - along) / 2]]
    expected.append(expected[0][::-1])
    assert transform.matrix is not None
    assert torch.allclose(transform.matrix, torch.tensor(expected), atol=1e-6)
    white = transform.apply(pixels).flatten(1)
    assert torch.allclose(white, torch.tensor([[0.5, -0.5], [-0.5, 0.5]]) * along, atol=1e-6)


@pytest.mark.parametrize("zca", [False, True])
def test_the_inverse_is_exact_also_outside_the_range_of_pixels(zca: bool) -> None:
    digits = load_dataset("digits", zca=zca)
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    back = digits.transform.apply(digits.transform.invert(images))
    assert (back - images).abs().max() < 1e-5
    pixels = 16 * pixels_of(digits, digits.train)
    assert (pixels - pixels.round()).abs().max() < 1e-4


@pytest.mark.parametrize("zca", [False, True])
def test_a_transform_kept_as_tensors_acts_the_same_bit_for_bit(zca: bool) -> None:
    blobs = load_dataset("blobs", zca=zca)
    copy = Transform.from_tensors(blobs.transform.kind, blobs.transform.tensors())
    pixels = pixels_of(blobs, blobs.train)
    assert torch.equal(copy.apply(pixels), blobs.transform.apply(pixels))
    assert torch.equal(copy.invert(blobs.train.images), pixels)


def test_transforms_are_differentiable_and_keep_double() -> None:
    for zca in (False, True):
        pixels = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        transform = fit("zca" if zca else "standard", pixels)
        pixels = pixels[:2].double().requires_grad_()
        assert torch.autograd.gradcheck(transform.apply, (pixels,))
        assert torch.autograd.gradcheck(transform.invert, (pixels,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Transform("pca"), "unknown kind 'pca'; known: standard, zca, none"),
        (lambda: Transform("standard", mean=torch.zeros(1)), r"needs \['mean', 'std'\]"),
        (lambda: fit("zca", torch.rand(3, 3, 64, 64)), "12288 features, at most 4096"),
        (lambda: fit("standard", torch.rand(0, 1, 8, 8)), "no images"),
        (lambda: fit("zca", torch.rand(1, 1, 8, 8)), "at least 2"),
        (
            lambda: load_dataset("blobs").transform.apply(torch.rand(2, 3, 8, 8)),
            "fitted on 1 channels",
        ),
        (
            lambda: load_dataset("blobs", zca=True).transform.invert(torch.rand(2, 1, 9, 9)),
            "fitted on 64 features",
        ),
        (lambda: Transform().apply(torch.zeros(2, 8, 8)), "must be floating"),
    ],
)
def test_a_transform_that_does_not_fit_is_one_line(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()
