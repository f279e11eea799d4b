"""The `.pt` files of the field's code, read by `torch.load(weights_only=True)` alone.

- MTT and its kin (FTD, TESLA, DATM) keep `images_<iteration>.pt`, a tensor (N, C, H, W), and
  `labels_<iteration>.pt`; under ZCA also `images_zca_<iteration>.pt`, which are pixels again.
  Labels are classes, DATM's are logits, TESLA's probabilities.
- DC, DSA and DM keep `res_*.pt`: `{"data": [[images, labels], ...]}`, a pair an experiment.

What we write in these forms also says what its numbers are: `set.json` and `transform.pt` beside
the tensors, or `about` and the transform's tensors in DC's mapping.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickletools import genops
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iadd.artifacts import check_archive, parsing, read_json, regular, replacing
from iadd.exchange.statement import Found, Statement, checksum, described, read_description
from iadd.synthetic import SyntheticSet

IMAGES, LABELS, RATE = "images_best.pt", "labels_best.pt", "lr_best.pt"
ABOUT, TRANSFORM = "set.json", "transform.pt"
NAMES = re.compile(
    r"torch\._utils (_rebuild_tensor_v2|_rebuild_parameter)|torch \w+Storage"
    r"|collections OrderedDict|numpy dtype|numpy\._?core\.multiarray scalar|_codecs encode"
)
"""What a pickle of tensors and numbers may name."""


def load(path: Path) -> Any:
    """What a `.pt` file holds, never executing it; ValueError of one line for what it cannot hold.

    Sets of DC, DSA and DM hold accuracies beside the images: the pieces of a numpy number are let
    in, by their name in numpy 1 and in numpy 2. Files are mapped into memory: so a storage that
    claims more than the file has is cut off, and one too small for its tensor is refused.
    """
    scalar: Any = np.float64(0).__reduce__()[0]
    scalars = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    numbers: list[Any] = [np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
    with regular(path).open("rb") as file:
        magic = file.read(2)
    if magic != b"PK":
        raise ValueError(
            f"{path}: is no .pt file as torch has written it since 1.6; save it anew with that"
        )
    check_archive(path, ratio=1, least=0)  # torch never compresses
    with parsing(path, "file of plain tensors"):
        _check_names(path)
        with torch.serialization.safe_globals([*scalars, *numbers]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        _check_tensors(found)
        return found


def _check_names(path: Path) -> None:
    """Refuse a pickle that names more than tensors need.

    torch's own list has more, among it `bytearray`, of which a few bytes make gigabytes.
    """
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{len(pickles)} pickles")
        content = archive.read(pickles[0])
    for opcode, told, _ in genops(content):
        if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            raise ValueError(f"{path}: holds more than plain tensors ({opcode.name})")
        if opcode.name == "GLOBAL" and not NAMES.fullmatch(str(told)):
            raise ValueError(f"{path}: holds more than plain tensors ({told})")


def _check_tensors(found: Any) -> None:
    """Refuse a tensor of more values than it stores, which would unfold in whoever copies it."""
    waiting, seen = [found], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor) and value.nbytes > value.untyped_storage().nbytes():
            claimed = f"{tuple(value.shape)} of {value.untyped_storage().nbytes()} bytes"
            raise ValueError(f"a tensor claims to be {claimed}")
        waiting += value.values() if isinstance(value, Mapping) else ()
        waiting += value if isinstance(value, list | tuple) else ()


def save(value: Any, path: Path) -> None:
    """Write a `.pt` file; on a full disk torch.save gives no OSError, this does."""
    try:
        torch.save(value, path)
    except RuntimeError as error:
        raise OSError("torch.save failed: is the disk full?") from error


def read(source: Path, labels: str | None = None, experiment: int | None = None) -> Found:
    """A set of MTT's kin (a folder or a file of images), or of DC, DSA and DM (a `res_*.pt`)."""
    path = source / IMAGES if source.is_dir() else source
    stored = load(path)
    if isinstance(stored, Mapping):
        if labels is not None:
            raise ValueError(f"{path}: brings its own labels; leave --labels out")
        return _experiment(stored, path, experiment)
    if not isinstance(stored, Tensor):
        raise ValueError(f"{path}: holds no images, a tensor (N, C, H, W) or a list of experiments")
    if experiment is not None:
        raise ValueError(f"{path}: holds one set and no experiments; leave --experiment out")
    says, about = Statement(), path.with_name(ABOUT)
    if source.is_dir() and about.exists():
        plain = read_json(about)
        beside = source / TRANSFORM
        says = read_description(plain, load(beside) if beside.exists() else {}, about)
    files, found = [path], None
    if labels != "sorted":
        files.append(_labels_of(path) if labels is None else Path(labels))
        found = load(files[-1])
        if not isinstance(found, Tensor):
            raise ValueError(f"{files[-1]}: holds {type(found).__name__}; labels are a tensor")
    return Found(stored, found, says, {"imported": "mtt", "sha256": [*map(checksum, files)]})


def _labels_of(images: Path) -> Path:
    """The file of labels that MTT writes beside one of images."""
    name = images.name.replace("images_zca_", "labels_").replace("images_", "labels_")
    if name == images.name or not images.with_name(name).exists():
        raise ValueError(f"{images}: has no labels beside it; give --labels, a .pt file or sorted")
    return images.with_name(name)


def _experiment(stored: Mapping[Any, Any], path: Path, experiment: int | None) -> Found:
    data = stored.get("data")
    if not isinstance(data, list) or not data:
        raise ValueError(f"{path}: holds no images: its `data` is no list of experiments")
    if experiment is None and len(data) > 1:
        raise ValueError(
            f"{path}: holds {len(data)} experiments; give --experiment 0..{len(data) - 1}"
        )
    if not 0 <= (experiment or 0) < len(data):
        allowed = f"it holds {len(data)}, 0..{len(data) - 1}"
        raise ValueError(f"{path}: has no experiment {experiment}; {allowed}")
    pair = data[experiment or 0]
    whole = isinstance(pair, list | tuple) and len(pair) == 2
    if not whole or not all(isinstance(part, Tensor) for part in pair):
        raise ValueError(f"{path}: experiment {experiment or 0} is no pair of images and labels")
    says = Statement()
    if "about" in stored:
        tensors = {name: value for name, value in stored.items() if isinstance(value, Tensor)}
        says = read_description(stored["about"], tensors, path)
    spec = {"imported": "dc", "sha256": checksum(path), "experiment": experiment or 0}
    return Found(pair[0], pair[1], says, spec)


def step_size(text: str) -> float:
    """A learned step size, given as a number or as the `.pt` file (DATM's `lr_best.pt`) of one."""
    try:
        value: Any = float(text)
    except ValueError:
        if not os.path.isfile(text):  # noqa: PTH113 - Path's raises for what cannot be a name
            raise ValueError(f"--step-size {text}: is no number, and no such file") from None
        value = load(Path(text))
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
    if not isinstance(value, float) or not 0 < value < 1e30:
        raise ValueError(
            f"--step-size {text}: is {reprlib.repr(value)}; allowed is a positive number"
        ) from None
    return value


def write_mtt(distilled: SyntheticSet, out: Path, probabilities: bool = False) -> None:
    """A folder as MTT and its kin have it; soft labels are logits, as DATM's."""
    probabilities = probabilities and distilled.label_kind == "soft"
    with replacing(out) as draft:
        draft.mkdir()
        save(distilled.images, draft / IMAGES)
        save(distilled.targets() if probabilities else distilled.labels, draft / LABELS)
        if distilled.step_size is not None:
            save(distilled.step_size, draft / RATE)
        if tensors := distilled.transform.tensors():
            save(tensors, draft / TRANSFORM)
        about = json.dumps(described(distilled, probabilities), indent=1, ensure_ascii=False)
        (draft / ABOUT).write_text(about + "\n", encoding="utf-8")


def write_tesla(distilled: SyntheticSet, out: Path) -> None:
    """The same folder with soft labels as probabilities, as TESLA has them."""
    write_mtt(distilled, out, probabilities=True)


def write_dc(distilled: SyntheticSet, out: Path) -> None:
    """One file as DC, DSA and DM write it, with one experiment."""
    held = {"data": [[distilled.images, distilled.labels]], "accs_all_exps": {}}
    about = {"about": described(distilled)} | distilled.transform.tensors()
    with replacing(out) as draft:
        save(held | about, draft)
