"""A picture of distilled images with the training images that lie nearest to them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from iadd.data import Dataset
from iadd.synthetic import SyntheticSet, picture_of

TILE, GAP, MARGIN = 72, 6, 150
ROWS = ("distilled image", "nearest in pixels", "nearest in features")


def picture(
    distilled: SyntheticSet, dataset: Dataset, rows: Sequence[Tensor], shown: Tensor
) -> bytes:
    """A PNG: a column an image, below it the training images nearest in pixels and in features.

    Args:
        distilled: resolved and decoded.
        rows: training rows (M,) nearest in pixels, and in features.
        shown: which of the M images, from left to right, (n,) int64; none: an empty picture.
    """
    from PIL import Image, ImageDraw, ImageFont

    lines = [distilled.pixels()[shown]]
    for near in rows:
        real = dataset.train.images[near[shown]].cpu()
        lines.append(dataset.transform.invert(real).clamp(0, 1))
    size = (MARGIN + len(shown) * (TILE + GAP), len(lines) * (TILE + GAP) + GAP)
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for line, (name, pixels) in enumerate(zip(ROWS, lines, strict=True)):
        top = GAP + line * (TILE + GAP)
        draw.text((8, top + TILE / 2), name, fill="#333", font=font, anchor="lm")
        for column, image in enumerate(pixels):
            tile = picture_of(image).resize((TILE, TILE), Image.Resampling.NEAREST)
            canvas.paste(tile, (MARGIN + column * (TILE + GAP), top))
    content = io.BytesIO()
    canvas.save(content, format="PNG")
    return content.getvalue()


def closest(distances: Sequence[Tensor], count: int) -> Tensor:
    """The images (n,) that lie closest to a training image, by their mean rank among all M in the
    given distances (M,), closest first, the first ones among equals."""
    ranks = torch.stack([values.argsort(stable=True).argsort() for values in distances])
    return ranks.sum(0).argsort(stable=True)[:count]
