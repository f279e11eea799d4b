"""Images as pictures: one as it is, a set as a grid with a class a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from iadd.data import ImageRows, Transform

HEADINGS = ("distilled", "started from")
WEIGHT = 1_500_000
"""Bytes of pixels in a picture, about: a page of a site that shows it stays below 2 MB."""


def picture_of(pixels: Tensor) -> Any:
    """Pixels (C, H, W) in [0, 1] as a Pillow image; other channel counts show their mean."""
    from PIL import Image

    pixels = pixels if len(pixels) in (1, 3) else pixels.mean(0, keepdim=True)
    values = (255 * pixels).round().to(torch.uint8).cpu().numpy()
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0).copy())


def draw(
    blocks: Sequence[ImageRows],
    classes: Tensor,
    names: Sequence[str],
    transform: Transform,
    columns: int,
) -> Any:
    """A Pillow image with a row a class and at most `columns` images of each block in it.

    Blocks (N, C, H, W) stand side by side, under headings where there are two. Large images are
    fewer, and where even one of each class is too much the last classes are left out.

    Args:
        classes: of the images (N,), the same in all blocks.
        transform: what is undone.
    """
    from PIL import Image, ImageDraw, ImageFont

    _, channels, side, _ = blocks[0].shape
    room = max(1, WEIGHT // (len(blocks) * min(channels, 3) * side**2))
    columns = max(1, min(columns, room // len(names)))
    short = [name if len(name) <= 20 else f"{name[:19]}…" for name in names[:room]]
    rows = [(classes == c).nonzero()[:columns, 0] for c in range(len(short))]
    tile, gap, head = side * max(1, round(64 / side)), 4, 20 * (len(blocks) > 1)
    font = ImageFont.load_default(14)
    margin = 16 + round(max(font.getlength(name) for name in short))
    width = max(1, *(len(row) for row in rows)) * (tile + gap) + 2 * gap * (len(blocks) > 1)
    if head:
        width = max(width, round(max(map(font.getlength, HEADINGS))) + 4 * gap)
    lines = len(rows) * (tile + gap) + gap + head
    canvas = Image.new("RGB", (margin + len(blocks) * width, lines), "white")
    pen = ImageDraw.Draw(canvas)
    for place, block in enumerate(blocks):
        left = margin + place * width
        if head:
            pen.text((left, gap), HEADINGS[place], fill="#333", font=font)
        for line, (name, members) in enumerate(zip(short, rows, strict=True)):
            top = head + gap + line * (tile + gap)
            if not place:
                pen.text((8, top + tile / 2), name, fill="#333", font=font, anchor="lm")
            shown = transform.invert(block[members].cpu()).clamp(0, 1)
            for column, pixels in enumerate(shown):
                enlarged = picture_of(pixels).resize((tile, tile), Image.Resampling.NEAREST)
                canvas.paste(enlarged, (left + column * (tile + gap), top))
    return canvas
