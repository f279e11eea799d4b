"""Instance norm, activation and average pool of a ConvNet block as one step, without autograd.

Four passes: forward and backward, and both again in dual numbers (value and derivative along a
direction of the parameters), so that the mixed Hessian-vector product needs no double backward. On
CUDA each is one kernel (csrc/convnet_norm.cu); the plain reference beside it runs anywhere and is
the specification. A map is (B, C, H, W), with the channels of several students side by side; a
plane is one image's one channel. Maps of dual numbers are (2, B, C, H, W): values, then tangents;
adjoints lie the other way round, tangents first, because a weight's derivative pairs them so.

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
    return device.type == "cuda" and _built()


def _built() -> bool:
    return "extension" in extension.status() and hasattr(torch.ops.iadd, "block_forward")


def forward(x: Tensor, affine: Affine, form: Form) -> tuple[Tensor, Tensor | None]:
    """The block's output (B, C, h, w) and the moments that `backward` needs: (B, C, 2)."""
    if affine.scale is not None and fused(x.device):
        y, stats = torch.ops.iadd.block_forward(x, affine.scale, affine.shift, *form)
        return y, stats
    return forward_reference(x, affine, form)


def backward(
    x: Tensor, stats: Tensor | None, affine: Affine, by_y: Tensor, form: Form
) -> tuple[Tensor, Tensor]:
    """Gradients by x (B, C, H, W), and by scale and shift (C, 2), from that by the output."""
    if affine.scale is not None and fused(x.device):
        by_x, parts = torch.ops.iadd.block_backward(
            x, stats, affine.scale, affine.shift, by_y.contiguous(), *form
        )
        return by_x, parts.sum(0)
    return backward_reference(x, stats, affine, by_y, form)


def dual_forward(
    x: Tensor, affine: Affine, along: Affine, form: Form
) -> tuple[Tensor, Tensor | None]:
    """`forward` of values and tangents (2, B, C, H, W), affine moving along `along`.

    The planes' numbers are (B, C, 4): mean, r, and their tangents' mean(x.) and mean(x' x.).
    """
    if affine.scale is not None and fused(x.device):
        y, stats = torch.ops.iadd.block_dual_forward(x, *affine, *along, *form)
        return y, stats
    return dual_forward_reference(x, affine, along, form)


def dual_backward(
    x: Tensor, stats: Tensor | None, affine: Affine, along: Affine, by_y: Tensor, form: Form
) -> tuple[Tensor, Tensor]:
    """Adjoints (2, B, C, H, W) by x and the tangents (C, 2) of those by scale and shift.

    Args:
        by_y: adjoints (2, B, C, h, w) of the output; tangents come first, here and in the result.
    """
    if affine.scale is not None and fused(x.device):
        by_x, parts = torch.ops.iadd.block_dual_backward(
            x, stats, *affine, *along, by_y.contiguous(), *form
        )
        return by_x, parts.sum(0)
    return dual_backward_reference(x, stats, affine, along, by_y, form)


# ---------------------------------------------------------------------------------- The reference


def forward_reference(x: Tensor, affine: Affine, form: Form) -> tuple[Tensor, Tensor | None]:
    """`forward` in plain operators, for any dtype and device."""
    stats = None
    if affine.scale is None:
        a = x + _planes(affine.shift)
    else:
        mean, rate = _moments(x)
        a = _planes(affine.scale) * ((x - mean) * rate) + _planes(affine.shift)
        stats = torch.stack((mean, rate), -1)[:, :, 0, 0]  # (B, C, 2)
    return _pool(a.relu() if form.relu else a, form), stats


def backward_reference(
    x: Tensor, stats: Tensor | None, affine: Affine, by_y: Tensor, form: Form
) -> tuple[Tensor, Tensor]:
    """`backward` in plain operators."""
    by_a = _unpool(by_y, x, form)
    if affine.scale is None or stats is None:
        by_a = _through_relu(by_a, x + _planes(affine.shift), form)
        return by_a, _without_scale(by_a)
    mean, rate = stats[:, :, None, None].unbind(-1)
    scale = _planes(affine.scale)
    unit = (x - mean) * rate
    by_a = _through_relu(by_a, scale * unit + _planes(affine.shift), form)
    shift, along = _mean(by_a), _mean(by_a * unit)
    by_x = rate * scale * (by_a - shift - unit * along)
    return by_x, _parts(along, shift, x)


def dual_forward_reference(
    x: Tensor, affine: Affine, along: Affine, form: Form
) -> tuple[Tensor, Tensor | None]:
    """`dual_forward` in plain operators."""
    value, tangent = x
    stats = None
    if affine.scale is None or along.scale is None:
        a, a_dot = value + _planes(affine.shift), tangent + _planes(along.shift)
    else:
        mean, rate = _moments(value)
        unit = (value - mean) * rate
        mean_dot, slope = _mean(tangent), _mean(unit * tangent)
        unit_dot = rate * (tangent - mean_dot - unit * slope)
        a = _planes(affine.scale) * unit + _planes(affine.shift)
        a_dot = _planes(along.scale) * unit + _planes(affine.scale) * unit_dot
        a_dot = a_dot + _planes(along.shift)
        stats = torch.stack((mean, rate, mean_dot, slope), -1)[:, :, 0, 0]  # (B, C, 4)
    a_dot = _through_relu(a_dot, a, form)
    return torch.stack((_pool(a.relu() if form.relu else a, form), _pool(a_dot, form))), stats


def dual_backward_reference(
    x: Tensor, stats: Tensor | None, affine: Affine, along: Affine, by_y: Tensor, form: Form
) -> tuple[Tensor, Tensor]:
    """`dual_backward` in plain operators."""
    value, tangent = x
    if affine.scale is None or along.scale is None or stats is None:
        a = value + _planes(affine.shift)
        by_a_dot, by_a = (_through_relu(_unpool(z, value, form), a, form) for z in by_y)
        return torch.stack((by_a_dot, by_a)), _without_scale(by_a_dot)
    mean, rate, mean_dot, slope = stats[:, :, None, None].unbind(-1)
    scale, scale_dot = _planes(affine.scale), _planes(along.scale)
    unit = (value - mean) * rate
    unit_dot = rate * (tangent - mean_dot - unit * slope)
    a = scale * unit + _planes(affine.shift)
    by_a_dot, by_a = (_through_relu(_unpool(z, value, form), a, form) for z in by_y)
    shift, weight = _mean(by_a), _mean(by_a * unit)
    shift_dot, weight_dot = _mean(by_a_dot), _mean(by_a_dot * unit + by_a * unit_dot)
    centred = by_a - shift - unit * weight
    centred_dot = by_a_dot - shift_dot - unit_dot * weight - unit * weight_dot
    gain, gain_dot = rate * scale, rate * (scale_dot - rate * slope * scale)
    by_x = torch.stack((gain_dot * centred + gain * centred_dot, gain * centred))
    return by_x, _parts(weight_dot, shift_dot, value)


def _planes(vector: Tensor) -> Tensor:
    return vector[:, None, None]


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = _mean(x)
    return mean, (_mean((x - mean).square()) + EPSILON).rsqrt()


def _parts(by_scale: Tensor, by_shift: Tensor, x: Tensor) -> Tensor:
    """Sums over images and pixels (C, 2) from means over planes."""
    return torch.cat((by_scale, by_shift), 2).sum(0)[..., 0] * (x.shape[2] * x.shape[3])


def _without_scale(by_a: Tensor) -> Tensor:
    by_shift = by_a.sum((0, 2, 3))
    return torch.stack((torch.zeros_like(by_shift), by_shift), 1)


def _through_relu(by_a: Tensor, a: Tensor, form: Form) -> Tensor:
    # Not a product: where the unit is off, nothing passes, not even NaN.
    return torch.where(a > 0, by_a, 0.0) if form.relu else by_a


def _pool(x: Tensor, form: Form) -> Tensor:
    return F.avg_pool2d(x, 2) if form.pool else x


def _unpool(by_y: Tensor, x: Tensor, form: Form) -> Tensor:
    if not form.pool:
        return by_y
    by_x: Tensor = torch.ops.aten.avg_pool2d_backward(
        by_y, x, [2, 2], [2, 2], [0, 0], False, True, None
    )
    return by_x
