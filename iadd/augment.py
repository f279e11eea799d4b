"""Differentiable siamese augmentation (Zhao & Bilen, ICML 2021, arXiv 2102.08259).

Randomness is passed in. One call applies one family, drawn beforehand: a `Draw` is a value that can
be applied again, to other images (siamese) or in a replay. Every family is affine in the pixels, so
the gradient by the images is a linear map of its own: `augment_adjoint`, which needs no graph.
Images are normalised: what is padded or cut out becomes the mean, as in the field's code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd import extension

FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")

# Published strengths, the same for every data set; which families fit is the data set's to say.
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP_PAD, CUTOUT, FLIP, SCALE, ROTATE_DEGREES = 0.125, 0.5, 0.5, 1.2, 15.0

TOGETHER_BYTES = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Bytes of images up to which several steps' batches are augmented in one call, which is faster."""


@dataclass(frozen=True)
class Draw:
    """One family with uniform numbers (B, 3) for B images, or (1, 3) that all images share."""

    family: str
    uniform: Tensor


@dataclass(frozen=True)
class Augmentation:
    """The families allowed for a data set; none means no augmentation.

    Raises:
        ValueError: an unknown family.
    """

    families: tuple[str, ...] = FAMILIES

    def __post_init__(self) -> None:
        for family in self.families:
            if family not in FAMILIES:
                raise ValueError(
                    f"augmentation family {family!r}: allowed are {', '.join(FAMILIES)}"
                )

    def draw(self, generator: torch.Generator, count: int = 1) -> Draw | None:
        """Choose a family and its strengths for `count` images (1: shared by a whole batch)."""
        if not self.families:
            return None
        choice = int(torch.randint(len(self.families), (), generator=generator))
        return Draw(self.families[choice], torch.rand(count, 3, generator=generator))


@dataclass(frozen=True)
class PackedDraws:
    """Draws of several families as tensors, which one sequence of operations applies.

    For CUDA graphs, whose sequence of operations is fixed.
    """

    kind: Tensor
    """(..., B) int64: 0 as it is, 1 moved by `matrix`, 2 colour, 3 cutout."""
    uniform: Tensor
    """(..., B, 3) as drawn."""
    matrix: Tensor
    """(..., B, 2, 3): where pixels are taken from, as in `affine_grid`."""

    def map(self, change: Callable[[Tensor], Tensor]) -> PackedDraws:
        """All three tensors changed alike: a step's row, another device."""
        return PackedDraws(change(self.kind), change(self.uniform), change(self.matrix))

    def apply(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) augmented each its own way; bit for bit what `augment` makes."""
        kind, uniform = self.kind[:, None, None, None], _beside(self.uniform, images)
        out = torch.where(kind == 1, move(images, _beside(self.matrix, images)), images)
        out = torch.where(kind == 2, _color(images, uniform), out)
        return torch.where(kind == 3, images * _cutout_mask(images, uniform), out)


def pack_draws(
    draws: Sequence[Draw | None], count: int, side: int, dtype: torch.dtype = torch.float32
) -> PackedDraws:
    """D draws for `count` images of `side` pixels and `dtype` each, as tensors (D, count, ...)."""
    identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=dtype)
    kind = torch.zeros(len(draws), count, dtype=torch.long)
    uniform = torch.zeros(len(draws), count, 3)
    matrix = identity.repeat(len(draws), count, 1, 1)
    for family in FAMILIES:
        rows = [k for k, draw in enumerate(draws) if draw is not None and draw.family == family]
        if not rows:
            continue
        drawn = torch.stack([draws[k].uniform.expand(count, 3) for k in rows])  # type: ignore[union-attr]
        kind[rows], uniform[rows] = _KINDS.get(family, 1), drawn
        if family in _MATRICES:
            moved = _MATRICES[family](drawn.flatten(0, 1).to(dtype), side)
            matrix[rows] = moved.view(len(rows), count, 2, 3)
    return PackedDraws(kind, uniform, matrix)


_KINDS = {"color": 2, "cutout": 3}


def augment(images: Tensor, draw: Draw | None) -> Tensor:
    """Apply a draw to images (B, C, H, W); differentiable in the images."""
    return _apply(images, draw, transposed=False)


def augment_adjoint(gradient: Tensor, draw: Draw | None) -> Tensor:
    """Gradient (B, C, H, W) by the images, from that by `augment(images, draw)`."""
    return _apply(gradient, draw, transposed=True)


def steps_together(images: Tensor, count: int) -> int:
    """How many steps, which see `count` of the images (N, C, H, W) each, to augment together."""
    most = TOGETHER_BYTES.get(images.device.type, TOGETHER_BYTES["cpu"])
    return max(1, most // (count * images[0].nbytes))


def augment_together(
    batches: Sequence[Tensor], draws: Sequence[Draw | None], transposed: bool = False
) -> list[Tensor]:
    """`augment`, or its adjoint, of many batches (B, C, H, W) with a draw each, bit for bit.

    A family's go through it in one call: of small images, calls cost more than pixels.
    """
    done = list(batches)
    for family in FAMILIES:
        alike = [
            (k, draw.uniform)
            for k, draw in enumerate(draws)
            if draw is not None and draw.family == family
        ]
        if not alike:
            continue
        together = torch.cat([batches[k] for k, _ in alike])
        uniform = torch.cat([uniform.expand(len(batches[k]), 3) for k, uniform in alike])
        parts = _apply(together, Draw(family, uniform), transposed)
        sizes = [len(batches[k]) for k, _ in alike]
        for (k, _), part in zip(alike, parts.split(sizes), strict=True):
            done[k] = part
    return done


def _apply(images: Tensor, draw: Draw | None, transposed: bool) -> Tensor:
    """A draw, or the transpose of its linear part."""
    if draw is None:
        return images
    uniform = _beside(draw.uniform, images).expand(len(images), 3)
    if draw.family == "color":
        if transposed:  # no brightness; saturation and contrast are symmetric, and they commute
            uniform = torch.cat((torch.full_like(uniform[:, :1], 0.5), uniform[:, 1:]), 1)
        return _color(images, uniform)
    if draw.family == "cutout":
        return images * _cutout_mask(images, uniform)
    return move(images, _MATRICES[draw.family](uniform, images.shape[-1]), transposed)


def _beside(drawn: Tensor, images: Tensor) -> Tensor:
    """What was drawn on the CPU, where the images are; without waiting for what a device does."""
    return drawn.to(images.device, images.dtype, non_blocking=True)


def move(images: Tensor, matrix: Tensor, transposed: bool = False) -> Tensor:
    """Images (B, C, H, W) sampled bilinearly where matrices (B, 2, 3) lead, zeros around them.

    In `affine_grid`'s coordinates, corners aligned. `transposed`: the adjoint map, of gradients.
    The kernels are csrc/augment.cpp and augment.cu.
    """
    kernels = images.dtype in (torch.float32, torch.float64) and extension.has_kernels(
        images.device
    )
    if not kernels:
        return move_reference(images, matrix, transposed)
    if images.requires_grad and torch.is_grad_enabled():
        return cast(Tensor, _Move.apply(images, matrix, transposed))
    return cast(Tensor, torch.ops.iadd.affine_sample(images, matrix, transposed))


class _Move(torch.autograd.Function):
    """Linear in the images, so that each way is the other's gradient, to any order."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, matrix: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(matrix)
        ctx.transposed = transposed
        return move(images, matrix, transposed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (matrix,) = ctx.saved_tensors
        return move(gradient, matrix, not ctx.transposed), None, None


def move_reference(images: Tensor, matrix: Tensor, transposed: bool = False) -> Tensor:
    """`move` by PyTorch, on any device."""
    grid = F.affine_grid(matrix, list(images.shape), align_corners=True)
    if not transposed:
        return F.grid_sample(images, grid, align_corners=True)
    with torch.enable_grad():
        blank = torch.zeros_like(images, requires_grad=True)
        sampled = F.grid_sample(blank, grid, align_corners=True)
    return torch.autograd.grad(sampled, blank, images)[0]


def _color(images: Tensor, uniform: Tensor) -> Tensor:
    brightness, saturation, contrast = uniform[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1)
    images = images + (brightness - 0.5) * BRIGHTNESS
    if images.shape[1] > 1:
        grey = images.mean(1, keepdim=True)
        images = (images - grey) * (saturation * SATURATION) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + CONTRAST) + mean


def _cutout_mask(images: Tensor, uniform: Tensor) -> Tensor:
    """1 outside a square hole of half the side whose centre is anywhere in the image."""
    side = images.shape[-1]
    hole = int(side * CUTOUT + 0.5)
    pixels = torch.arange(side, device=images.device)
    first = (uniform[:, :2] * (side + 1 - hole % 2)).long() - hole // 2  # (B, 2)
    inside = (pixels >= first[..., None]) & (pixels < first[..., None] + hole)  # (B, 2, side)
    return 1 - (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None].to(images.dtype)


Entries = tuple[float, float, float, float, float, float]


def _matrix(values: Tensor, columns: Entries, gain: Entries, offset: Entries) -> Tensor:
    """Matrices (B, 2, 3) whose entries are `gain` of a column of `values` (B, 3), plus `offset`."""
    picked, factor, summand = _constants(columns, gain, offset, values.dtype, values.device)
    return torch.addcmul(summand, values.index_select(1, picked), factor).view(-1, 2, 3)


@cache
def _constants(
    columns: Entries, gain: Entries, offset: Entries, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    factor, summand = torch.tensor((gain, offset), dtype=dtype, device=device)
    return torch.tensor(columns, dtype=torch.long, device=device), factor, summand


def _crop(uniform: Tensor, side: int) -> Tensor:
    """Shift by whole pixels, up to an eighth of the side."""
    pad, pixel = int(side * CROP_PAD + 0.5), 2 / (side - 1)
    shift = (uniform * (2 * pad + 1)).floor() - pad
    return _matrix(shift, (0, 0, 0, 0, 0, 1), (0, 0, pixel, 0, 0, pixel), (1, 0, 0, 0, 1, 0))


def _flip(uniform: Tensor, side: int) -> Tensor:
    mirrored = (uniform < FLIP).to(uniform.dtype)
    return _matrix(mirrored, (0, 0, 0, 0, 0, 0), (-2, 0, 0, 0, 0, 0), (1, 0, 0, 0, 1, 0))


def _scale(uniform: Tensor, side: int) -> Tensor:
    low, span = 1 / SCALE, SCALE - 1 / SCALE
    return _matrix(uniform, (0, 0, 0, 0, 1, 0), (span, 0, 0, 0, span, 0), (low, 0, 0, 0, low, 0))


def _rotate(uniform: Tensor, side: int) -> Tensor:
    most = math.radians(ROTATE_DEGREES)  # the angle is (2 u - 1) of it; cos(a) = sin(pi/2 + a)
    twice, cosine = 2 * most, math.pi / 2 - most
    gain, offset = (twice, -twice, 0, twice, twice, 0), (cosine, most, 0, -most, cosine, 0)
    return _matrix(uniform, (0, 0, 0, 0, 0, 0), gain, offset).sin()


_MATRICES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "crop": _crop,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
