"""Distilled sets as numpy archives (`.npz`): `images` (N, C, H, W) and `labels`.

What we write also holds `about`, JSON that says what the numbers are, and the transform's arrays.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iadd.artifacts import atomic_write
from iadd.exchange.statement import Found, Statement, checksum, described, read_description
from iadd.synthetic import SyntheticSet


def read(path: Path) -> Found:
    """A set from an archive without pickled objects; ValueError of one line for anything else."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(str(arrays.pop("about"))) if "about" in arrays else None
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: is no archive of plain numbers ({reason})") from error
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
