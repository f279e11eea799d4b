"""Distilled sets as PNG files, a folder a class."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from iadd.artifacts import parsing, read_json, replacing, source_hash
from iadd.data.folder import files_of
from iadd.data.images import decode
from iadd.exchange.statement import Found, Statement
from iadd.synthetic import TENSORS, SyntheticSet, picture_of

ABOUT = "set.json"


def read(folder: Path) -> Found:
    """The images of a folder as pixels; classes are called like their folders.

    An exported folder's `set.json` says what its folders, whose names are made fit for files, are
    called.
    """
    tree = files_of(folder)
    decoded = decode(tree.files)
    if decoded.look.deep:
        raise ValueError(f"{folder}: has images of more than 8 bits a value; convert them, or .npz")
    images, names = torch.from_numpy(decoded.images), tree.class_names
    about = folder / ABOUT
    if about.exists():
        told = read_json(about)
        with parsing(about, "description of the folders' classes"):
            called = dict(zip(told["folders"], told["class_names"], strict=True))
            names = tuple(str(called[name]) for name in names)
    says = Statement("pixels", names)
    spec = {"imported": "folder", "sha256": source_hash(tree.files)}
    return Found(images, torch.from_numpy(tree.labels), says, spec)


def write(distilled: SyntheticSet, folder: Path) -> None:
    """Write PNG files, a folder a class, with `set.json` and the exact set beside them.

    PNG files hold clamped 8-bit pixels of the decoded images, to look at and to use anywhere; what
    is read back is the exact set, as long as it is there.
    """
    decoded = distilled.decoded()
    width = len(str(max(len(distilled.class_names) - 1, 1)))
    names = [  # Numbered, so that folders sort like classes; FashionMNIST has "T-shirt/top".
        f"{label:0{width}d}_" + re.sub(r"[^\w.-]+", "_", name)
        for label, name in enumerate(distilled.class_names)
    ]
    about = {
        "class_names": distilled.class_names,
        "folders": names,
        "label_kind": distilled.label_kind,
        "labels": decoded.labels.tolist(),
        "step_size": distilled.step_size,
        "status": distilled.status,
        "transform": distilled.transform.kind,
        "spec": distilled.spec,
        "note": f"PNG files are 8-bit pixels; {TENSORS} is exact and holds the transform.",
    }
    with replacing(folder) as draft:
        draft.mkdir()
        for name in names:
            (draft / name).mkdir()
        each = zip(decoded.pixels(), decoded.classes, strict=True)
        for row, (image, label) in enumerate(each):
            picture_of(image).save(draft / names[int(label)] / f"{row:05d}.png")
        (draft / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        distilled.save(draft / TENSORS)
