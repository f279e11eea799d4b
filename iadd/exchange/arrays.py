"""Distilled sets as numpy archives (`.npz`): `images` (N, C, H, W) and `labels`.

What we write also holds `about`, JSON that says what the numbers are, and the transform's arrays.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iadd.artifacts import atomic_write, open_npz, parsing, words_of
from iadd.artifacts.reading import TEXT
from iadd.exchange.statement import Found, Statement, checksum, described, read_description
from iadd.synthetic import SyntheticSet


def read(path: Path) -> Found:
    """A set from an archive without pickled objects; ValueError of one line for anything else."""
    with open_npz(path) as archive, parsing(path, "archive of plain numbers"):
        arrays = {name: archive[name] for name in archive.files}
        told = words_of(arrays.pop("about"), TEXT) if "about" in arrays else ("null",)
        about = json.loads("".join(told))
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for name in ("images", "labels"):
        if name not in tensors:
            raise ValueError(f"{path}: lacks {name}; it holds {', '.join(tensors) or 'nothing'}")
    says = Statement() if about is None else read_description(about, tensors, path)
    spec = {"imported": "npz", "sha256": checksum(path)}
    return Found(tensors["images"], tensors["labels"], says, spec)


def write(distilled: SyntheticSet, out: Path) -> None:
    """One archive with the images as they are, hard labels or logits, and the transform."""
    tensors = {"images": distilled.images, "labels": distilled.labels}
    tensors |= distilled.transform.tensors()
    content = io.BytesIO()
    about = np.array(json.dumps(described(distilled), ensure_ascii=False))
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(content, about=about, **arrays)
    atomic_write(out, content.getvalue())
