"""Normalisation fitted on training pixels, exactly invertible, and kept with every artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from typing import Protocol

import torch
from torch import Tensor

KINDS = ("standard", "zca", "none")
PREFIX = "transform."  # of the tensors' names in files
PIECE = 1 << 22  # values worked on at once
ZCA_EPS = 0.1  # In squared pixel units, pixels in [0, 1]; the literature's value.
ZCA_FEATURES = 4096  # The eigenvectors of more (64x64 grey) take minutes and gigabytes a job.


@dataclass(frozen=True, eq=False)
class Transform:
    """A map from pixels in [0, 1] to what networks see, and back.

    - `standard`: `(x - mean) / std` per channel; population std, 1 for a constant channel.
    - `zca`: `(x - mean) W` on images flattened to D = C*H*W features, centred per feature, with
      `W = U (S + eps I)^(-1/2) U^T`, `U S U^T` the covariance (divisor N - 1) and eps = 0.1. No
      mean/std normalisation besides.
    - `none`: the pixels themselves.

    Statistics are computed in float64 and kept in float32, so a copy that went through a file acts
    like the original, bit for bit. `mean`: (C,) or (D,); `std`: (C,); `matrix`: (D, D) = W.
    """

    kind: str = "none"
    mean: Tensor | None = None
    std: Tensor | None = None
    matrix: Tensor | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"transform: unknown kind {self.kind!r}; known: {', '.join(KINDS)}")
        needed = {"standard": ["mean", "std"], "zca": ["matrix", "mean"], "none": []}[self.kind]
        given = sorted(name.removeprefix(PREFIX) for name in self.tensors())
        if given != needed:
            raise ValueError(f"transform: {self.kind!r} needs {needed}, not {given}")
        if self.mean is not None:
            size = (len(self.mean),) if self.mean.ndim == 1 else ()
            shapes = {"mean": size, "std": size, "matrix": 2 * size}
            for name, tensor in self.tensors().items():
                shape = shapes[name.removeprefix(PREFIX)]
                if not shape or tuple(tensor.shape) != shape or not tensor.is_floating_point():
                    told = f"{tensor.dtype} {tuple(tensor.shape)}"
                    raise ValueError(f"transform: its {name.removeprefix(PREFIX)} is {told}")
            if self.std is not None and not bool((self.std > 0).all()):
                raise ValueError("transform: its std has values that are not positive")

    def apply(self, pixels: Tensor) -> Tensor:
        """Return pixels (N, C, H, W) normalised; same shape, dtype and device, differentiable."""
        mean, std, matrix = self._like(pixels)
        if std is not None and mean is not None:
            return (pixels - mean[:, None, None]) / std[:, None, None]
        if matrix is not None and mean is not None:
            return ((pixels.flatten(1) - mean) @ matrix).reshape(pixels.shape)
        return pixels.clone()

    def invert(self, images: Tensor) -> Tensor:
        """Return the pixels (N, C, H, W) of normalised images: the exact inverse up to rounding.

        Images that were optimised may leave [0, 1]; nothing is clamped here.
        """
        mean, std, matrix = self._like(images)
        if std is not None and mean is not None:
            return images * std[:, None, None] + mean[:, None, None]
        if matrix is not None and mean is not None:
            inverse = self._inverse.to(images)
            return (images.flatten(1) @ inverse + mean).reshape(images.shape)
        return images.clone()

    def to(self, device: torch.device) -> Transform:
        """The transform for images on a device: else its tensors go there with every batch."""
        there = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return Transform.from_tensors(self.kind, there)

    def same(self, other: Transform) -> bool:
        """Whether the other transform does exactly the same."""
        own, others = self.tensors(), other.tensors()
        return self.kind == other.kind and all(
            own[name].equal(tensor) for name, tensor in others.items()
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the fitted tensors, named as they are stored; `from_tensors` is the way back."""
        fitted = {PREFIX + name: getattr(self, name) for name in ("mean", "std", "matrix")}
        return {name: tensor for name, tensor in fitted.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, kind: str, tensors: Mapping[str, Tensor]) -> Transform:
        """Return the transform whose tensors are among those of a file.

        Raises:
            ValueError: an unknown kind, or tensors that do not belong to it.
        """
        return cls(kind, *(tensors.get(PREFIX + name) for name in ("mean", "std", "matrix")))

    @cached_property
    def _inverse(self) -> Tensor:
        assert self.matrix is not None
        inverse: Tensor = torch.linalg.inv(self.matrix.double())
        return inverse

    def _like(self, images: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(
                f"transform: images must be floating (N, C, H, W), not {images.dtype} "
                f"{tuple(images.shape)}"
            )
        if self.mean is not None:
            fitted = self.mean.numel()
            features = images[0:1].numel() if self.kind == "zca" else images.shape[1]
            if len(images) and features != fitted:
                what = "features" if self.kind == "zca" else "channels"
                raise ValueError(
                    f"transform: fitted on {fitted} {what}, images of {tuple(images.shape)} "
                    f"have {features}"
                )
        mean, std, matrix = (
            None if tensor is None else tensor.to(images)
            for tensor in (self.mean, self.std, self.matrix)
        )
        return mean, std, matrix


class Images(Protocol):
    """Pixels (N, C, H, W) in [0, 1] of which slices of rows can be taken: a tensor, or less."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> Tensor: ...


def check_features(kind: str, features: int, title: str = "transform") -> None:
    """Refuse more features (C*H*W) than `zca` can whiten; `title` names the data in the message."""
    if kind == "zca" and features > ZCA_FEATURES:
        raise ValueError(
            f"{title}: zca: images have {features} features, at most {ZCA_FEATURES} are allowed; "
            "lower the resolution or leave zca off"
        )


def fit(kind: str, pixels: Images) -> Transform:
    """Fit a transform of one kind on training pixels (N, C, H, W) in [0, 1].

    Raises:
        ValueError: an unknown kind, no images, or too many features for `zca`.
    """
    if kind == "none":
        return Transform()
    if len(pixels) == 0:
        raise ValueError("transform: cannot be fitted on no images")
    if kind == "zca":
        return _fit_zca(pixels)
    count = len(pixels) * pixels.shape[2] * pixels.shape[3]
    sums = _total(piece.double().sum((0, 2, 3)) for piece in pieces(pixels))
    mean = sums / count  # (C,) float64
    centre = mean[:, None, None]
    squares = _total((piece - centre).square_().sum((0, 2, 3)) for piece in pieces(pixels))
    spread = (squares / count).sqrt()
    # Rounding leaves a spread of about 1e-17 on a constant channel.
    std = torch.where(spread > 1e-8, spread, torch.ones_like(spread))
    return Transform(kind, mean=mean.float(), std=std.float())


def _total(terms: Iterator[Tensor]) -> Tensor:
    return reduce(torch.add, terms)


def pieces(pixels: Images) -> Iterator[Tensor]:
    """Rows of pixels, a few MiB at a time: copies of a whole set are large."""
    step = max(1, PIECE // prod(pixels.shape[1:]))
    return (pixels[start : start + step] for start in range(0, len(pixels), step))


def _fit_zca(pixels: Images) -> Transform:
    features = prod(pixels.shape[1:])
    check_features("zca", features)
    if len(pixels) < 2:
        raise ValueError("zca: needs at least 2 images")
    sums = _total(piece.double().sum(0) for piece in pieces(pixels))
    mean = sums.flatten() / len(pixels)  # (D,)
    covariance = torch.zeros(features, features, dtype=torch.float64)
    for piece in pieces(pixels):
        centred = piece.flatten(1) - mean
        covariance.addmm_(centred.T, centred)
    values, vectors = torch.linalg.eigh(covariance / (len(pixels) - 1))
    scale = (values.clamp(min=0) + ZCA_EPS).rsqrt()
    matrix = (vectors * scale) @ vectors.T  # (D, D)
    return Transform("zca", mean=mean.float(), matrix=matrix.float())
