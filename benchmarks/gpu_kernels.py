"""Every fused kernel of a GPU once against its reference, on small shapes.

`gpu.py --tasks kernels` runs it, alone and under compute-sanitizer. References run on the CPU: a
sanitizer then watches few kernels but ours, which it makes hundreds of times slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from iadd.augment import move, move_reference
from iadd.engine import cuda_block, cuda_loss, cuda_products, cuda_sums
from iadd.engine.cuda_block import Affine, Form

Pairs = Iterator[tuple[Tensor, Tensor]]


def largest_error(device: torch.device) -> float:
    """The largest difference between what a kernel gives there and what its reference does."""
    g = torch.Generator(device=device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, device=device, dtype=torch.float64)

    pairs = [*_blocks(normal), *_products(normal), *_head(normal), *_moved(normal)]
    return float(torch.stack([_error(a.cpu(), b.cpu()) for a, b in pairs]).max())


def _error(got: Tensor, wanted: Tensor) -> Tensor:
    """The largest difference, relative to the largest number; NaN where there is one."""
    if got.shape != wanted.shape:
        raise SystemExit(f"a kernel gives {list(got.shape)}, its reference {list(wanted.shape)}")
    return ((got - wanted).abs().max() / (1 + wanted.abs().max())).double()


def _products(normal: Callable[..., Tensor]) -> Pairs:
    for shape in ((3, 5), (2, 8), (130, 64)):
        weights = [normal(*shape, 3, 3).float(), normal(17, 16, 3, 3).float()]
        yield from _on_both(cuda_products.tf32_parts, normal(*shape).float())
        for parts in (False, True):
            yield from _on_both(partial(cuda_products.conv_operands, in_parts=parts), weights)
    images = normal(3, 5, 7, 9)
    yield from _on_both(cuda_products.patches, images)
    back = partial(cuda_products.patches_adjoint, shape=tuple(images.shape))
    yield from _on_both(back, normal(3 * 7 * 9, 45))


def _head(normal: Callable[..., Tensor]) -> Pairs:
    sums, moving, bias = normal(5, 2, 9, 70), normal(5, 9, 70), normal(70)
    labels = normal(9, 70)
    yield from _on_both(partial(cuda_loss.cross_entropy, count=9), sums[:, 0], bias, labels)
    dual = partial(cuda_loss.cross_entropy_dual, count=9)
    yield from _on_both(dual, sums, moving, bias, normal(70), labels)
    yield from _on_both(cuda_sums.flat_sums, [normal(3, 40, 30).mT, normal(0, 7), normal(130, 4)])


def _moved(normal: Callable[..., Tensor]) -> Pairs:
    for transposed in (False, True):
        images, matrix = normal(4, 3, 9, 12), normal(4, 2, 3)
        found = move(images, matrix, transposed)
        yield found, move_reference(images.cpu(), matrix.cpu(), transposed)


def _on_both(function: Callable[..., Any], *given: Tensor | list[Tensor]) -> Pairs:
    """What a function gives on the device, and on the CPU, where it is its reference."""
    there = [z.cpu() if isinstance(z, Tensor) else [one.cpu() for one in z] for z in given]
    yield from zip(_tensors(function(*given)), _tensors(function(*there)), strict=True)


def _tensors(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else [z for one in found for z in _tensors(one)]


def _blocks(normal: Callable[..., Tensor]) -> Pairs:
    """The block kernels over sides, channels and forms."""
    forms = (Form(True, True), Form(True, False), Form(False, True))
    few = [(3, side, 5, forms) for side in (2, 3, 8, 9, 16, 17, 32, 33)]
    many = [(24, side, 352, forms[:1]) for side in (3, 9, 17)]  # enough for the wide blocks
    for count, side, channels, chosen in few + many:
        for form in chosen:
            pooled = side // 2 if form.pool else side
            x = normal(2, count, side, side, channels)
            by_y = normal(2, count, pooled, pooled, channels)
            vectors = [normal(channels) for _ in range(4)]
            yield from _on_both(partial(_block, form), x, by_y, vectors)


def _block(form: Form, x: Tensor, by_y: Tensor, vectors: list[Tensor]) -> list[Tensor]:
    """Forward and backward, and both along a direction."""
    affine, along = Affine(*vectors[:2]), Affine(*vectors[2:])
    y, stats = cuda_block.forward(x[0], affine, form)
    dual, moments = cuda_block.forward(x, affine, form, along)
    assert stats is not None and moments is not None
    back = cuda_block.backward(x[0], stats, affine, by_y[0], form)
    return [
        y,
        stats,
        dual,
        moments,
        *back,
        *cuda_block.backward(x, moments, affine, by_y, form, along),
    ]
