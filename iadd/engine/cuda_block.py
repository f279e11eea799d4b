"""Instance norm, activation and average pool of a ConvNet block as one step, without autograd.

Four passes: forward and backward, and both again in dual numbers (value and derivative along a
direction of the parameters), so that the mixed Hessian-vector product needs no double backward. On
CUDA each is one kernel (csrc/cuda_block.cu); the plain reference beside it runs anywhere and is
the specification. A map is (B, H, W, C); a plane is one image's one channel. Maps of dual numbers
are (2, B, H, W, C): values, then tangents; adjoints lie the other way round, tangents first,
because a weight's derivative pairs them so.

With x' = (x - mean) r, r = 1 / sqrt(var + eps), a = scale x' + shift, y = pool(relu(a)).
Without norm (scale None) a = x + shift.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd import extension

EPSILON = 1e-5


class Affine(NamedTuple):
    """A block's scale (C,), None without norm, and shift (C,); or their tangents."""

    scale: Tensor | None
    shift: Tensor


class Form(NamedTuple):
    """What a block does after its norm."""

    relu: bool
    pool: bool


def fused(device: torch.device) -> bool:
    """Whether the CUDA kernels run for maps on that device."""
    return device.type == "cuda" and extension.has_kernels(device)


def forward(
    x: Tensor, affine: Affine, form: Form, along: Affine | None = None
) -> tuple[Tensor, Tensor | None]:
    """The block's output (B, h, w, C) and the moments that `backward` needs: (B, C, 2).

    With `along`, which affine moves along: values and tangents (2, B, h, w, C), and moments
    (B, C, 4): mean, r, and their tangents' mean(x.) and mean(x' x.).
    """
    if affine.scale is not None and fused(x.device):
        y, stats = torch.ops.iadd.block_forward(x, *affine, *(along or (None, None)), *form)
        return y, stats
    return forward_reference(x, affine, form, along)


def backward(
    x: Tensor,
    stats: Tensor | None,
    affine: Affine,
    by_y: Tensor,
    form: Form,
    along: Affine | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradient by x (B, H, W, C), and each image's by scale and shift (B, C, 2), from the output's.

    With `along`: adjoints (2, B, H, W, C), tangents first, here and in `by_y`; and the tangents of
    those by scale and shift.
    """
    if affine.scale is not None and fused(x.device):
        by_x, parts = torch.ops.iadd.block_backward(
            x, stats, *affine, *(along or (None, None)), by_y.contiguous(), *form
        )
        return by_x, parts
    return backward_reference(x, stats, affine, by_y, form, along)


# ---------------------------------------------------------------------------------- The reference


def forward_reference(
    x: Tensor, affine: Affine, form: Form, along: Affine | None = None
) -> tuple[Tensor, Tensor | None]:
    """`forward` in plain operators, for any dtype and device."""
    value, tangent = (x, None) if along is None else x
    unit, unit_dot, moments = value, tangent, []
    if affine.scale is not None:
        mean, rate = moments = list(_moments(value))
        unit = (value - mean) * rate
        if tangent is not None:
            moments += [_mean(tangent), _mean(unit * tangent)]
            unit_dot = rate * (tangent - moments[2] - unit * moments[3])
    a = _transformed(unit, affine)
    y = _pool(a.relu() if form.relu else a, form)
    if along is not None and unit_dot is not None:
        a_dot = _transformed(unit_dot, affine._replace(shift=along.shift))
        if along.scale is not None:
            a_dot = a_dot + along.scale * unit
        y = torch.stack((y, _pool(_through_relu(a_dot, a, form), form)))
    return y, torch.stack(moments, -1)[:, 0, 0] if moments else None  # (B, C, 2 or 4)


def backward_reference(
    x: Tensor,
    stats: Tensor | None,
    affine: Affine,
    by_y: Tensor,
    form: Form,
    along: Affine | None = None,
) -> tuple[Tensor, Tensor]:
    """`backward` in plain operators."""
    value = x if along is None else x[0]
    unit, moments = value, [] if stats is None else list(stats[:, None, None].unbind(-1))
    if moments:
        unit = (value - moments[0]) * moments[1]
    a = _transformed(unit, affine)
    adjoints = [by_y] if along is None else list(by_y)
    *moving, by_a = (_through_relu(_unpool(z, value, form), a, form) for z in adjoints)
    if affine.scale is None:
        by_x = torch.stack((*moving, by_a)) if moving else by_a
        return by_x, _without_scale((*moving, by_a)[0])
    rate = moments[1]
    shift, weight = _mean(by_a), _mean(by_a * unit)
    centred, gain = by_a - shift - unit * weight, rate * affine.scale
    if along is None or along.scale is None:
        return gain * centred, _parts(weight, shift, value)
    (by_a_dot,), (mean_dot, slope) = moving, moments[2:]
    unit_dot = rate * (x[1] - mean_dot - unit * slope)
    shift_dot, weight_dot = _mean(by_a_dot), _mean(by_a_dot * unit + by_a * unit_dot)
    centred_dot = by_a_dot - shift_dot - unit_dot * weight - unit * weight_dot
    gain_dot = rate * (along.scale - slope * gain)
    by_x = torch.stack((gain_dot * centred + gain * centred_dot, gain * centred))
    return by_x, _parts(weight_dot, shift_dot, value)


def _transformed(unit: Tensor, affine: Affine) -> Tensor:
    scaled = unit if affine.scale is None else affine.scale * unit
    return scaled + affine.shift


def _mean(x: Tensor) -> Tensor:
    return x.mean((1, 2), keepdim=True)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = _mean(x)
    return mean, (_mean((x - mean).square()) + EPSILON).rsqrt()


def _parts(by_scale: Tensor, by_shift: Tensor, x: Tensor) -> Tensor:
    """Sums over pixels (B, C, 2) from means over planes."""
    return torch.stack((by_scale, by_shift), -1)[:, 0, 0] * (x.shape[1] * x.shape[2])


def _without_scale(by_a: Tensor) -> Tensor:
    by_shift = by_a.sum((1, 2))
    return torch.stack((torch.zeros_like(by_shift), by_shift), -1)


def _through_relu(by_a: Tensor, a: Tensor, form: Form) -> Tensor:
    # Not a product: where the unit is off, nothing passes, not even NaN.
    return torch.where(a > 0, by_a, 0.0) if form.relu else by_a


def _pool(x: Tensor, form: Form) -> Tensor:
    return planes_last(F.avg_pool2d(planes_first(x), 2)) if form.pool else x


def _unpool(by_y: Tensor, x: Tensor, form: Form) -> Tensor:
    if not form.pool:
        return by_y
    maps = planes_first(by_y), planes_first(x)
    by_x = torch.ops.aten.avg_pool2d_backward(*maps, [2, 2], [2, 2], [0, 0], False, True, None)
    return planes_last(by_x)


def planes_first(x: Tensor) -> Tensor:
    """A map (B, H, W, C) as PyTorch's operators take it: (B, C, H, W), not copied."""
    return x.permute(0, 3, 1, 2)


def planes_last(x: Tensor) -> Tensor:
    """A map (B, C, H, W) as it is here: (B, H, W, C), not copied where its channels lie last."""
    return x.permute(0, 2, 3, 1).contiguous()
