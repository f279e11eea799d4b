"""From a source to tensors: both parts read and checked, cut by content, normalised once.

`prepare` writes them for all jobs to map into memory, `load_dataset` keeps them. Values go through
in pieces of 32 MiB; only what was read (8 bits a value, for most images) is held in memory. Images
of 8 bits that are not whitened are stored as they were read, and normalised when rows are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iadd.artifacts import TensorFile, writing_tensors
from iadd.augment import Augmentation
from iadd.data.about import ABOUT, About, read_about
from iadd.data.assemble import Pixels, assemble
from iadd.data.dataset import Dataset, Split
from iadd.data.image_rows import ByteImages
from iadd.data.raw import Progress, Source
from iadd.data.transform import PREFIX, Transform, fit

TRAIN, TEST = "train.safetensors", "test.safetensors"


def prepare(source: Source, folder: str | Path, progress: Progress | None = None) -> About:
    """Read, check, cut and normalise data, and write them for all jobs of a benchmark.

    `folder` then holds `train.safetensors` (train and validation), `test.safetensors`,
    `beside.json` and, written last, `about.json`.

    Args:
        progress: called with images done, images in all, and what is done to them.

    Raises:
        ValueError: one line naming what is wrong and where; nothing is half-written.
    """
    folder = Path(folder)
    about, parts = assemble(source, progress)
    transform = _transform(source, about, parts["train"])
    (folder / ABOUT).unlink(missing_ok=True)
    tested = {"test": parts.pop("test")}
    _write(folder / TRAIN, about, parts, transform, transform.tensors(), progress)
    _write(folder / TEST, about, tested, transform, {}, progress)
    about.write(folder)
    return about


def load_dataset(name: str, **fields: Any) -> Dataset:
    """Load a dataset into memory: what `prepare` and `open_dataset` give, without files.

    It takes 4 bytes a value; for large data, prepared ones are mapped from files instead.

    Args:
        name: one of `DATASETS`.
        fields: those of `Source`: root, resolution, channels, zca, mean, std, validation_fraction,
            test_fraction, seed, download, augmentation, positive, groups, label.

    Raises:
        ValueError: one line naming the argument or file, its value and what is allowed.
    """
    source = Source(name, **fields)
    about, parts = assemble(source)
    transform = _transform(source, about, parts["train"])
    splits = parts["train"].split(transform), parts["validation"].split(transform)
    return _dataset(about, *splits, transform, parts["test"].split)


def open_dataset(folder: str | Path, device: torch.device = torch.device("cpu")) -> Dataset:  # noqa: B008
    """Open the data that `prepare` wrote; on a CPU, processes of a machine share their memory.

    Raises:
        ValueError: one line for a missing or damaged file, or files that do not belong together.
    """
    folder = Path(folder)
    about = read_about(folder)
    file = TensorFile(folder / TRAIN, _spec(about, TRAIN))
    transform = _stored_transform(file, about)
    train, validation = (_mapped(file, part, about, transform) for part in ("train", "validation"))
    held_out = partial(_stored_test, folder, about)
    return _dataset(about, train, validation, transform, held_out).to(device)


def _transform(source: Source, about: About, pixels: Pixels) -> Transform:
    """What was stated of the pixels, or is found in the training images."""
    if source.mean is None or source.std is None:
        return fit(about.transform, pixels)
    return Transform("standard", torch.tensor(source.mean), torch.tensor(source.std))


def _spec(about: About, file: str) -> dict[str, Any]:
    return {"kind": "data", "file": file, "fingerprint": about.fingerprint}


def _write(
    path: Path,
    about: About,
    parts: Mapping[str, Pixels],
    transform: Transform,
    fitted: Mapping[str, Tensor],
    progress: Progress | None,
) -> None:
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in fitted.items()}
    for part, pixels in parts.items():
        dtype = torch.uint8 if pixels.keeps_bytes(transform) else torch.float32
        layout[f"{part}.images"] = dtype, pixels.shape
        layout[f"{part}.labels"] = torch.int64, (len(pixels),)
    with writing_tensors(path, layout, _spec(about, path.name)) as append:
        for name, tensor in fitted.items():
            append(name, tensor)
        for part, pixels in parts.items():
            append(f"{part}.labels", pixels.labels)
            done = 0
            plain = pixels.keeps_bytes(transform)
            for piece in pixels.bytes() if plain else pixels.pieces(transform):
                append(f"{part}.images", piece)
                done += len(piece)
                if progress:
                    progress(done, len(pixels), f"{part} images written")


def _mapped(file: TensorFile, part: str, about: About, transform: Transform) -> Split:
    stored, labels = file.view(f"{part}.images"), file.view(f"{part}.labels")
    if stored.dtype != torch.uint8:
        return Split(stored, labels)
    return Split(ByteImages(stored, *about.values, transform), labels)


def _stored_transform(file: TensorFile, about: About) -> Transform:
    fitted = {name: file.get_slice(name) for name in file.names if name.startswith(PREFIX)}
    return Transform.from_tensors(about.transform, fitted)


def _stored_test(folder: Path, about: About, transform: Transform) -> Split:
    """The test split that `prepare` wrote, under a transform."""
    own = _stored_transform(TensorFile(folder / TRAIN, _spec(about, TRAIN)), about)
    split = _mapped(TensorFile(folder / TEST, _spec(about, TEST)), "test", about, own)
    return split.under(transform, own)


def _dataset(
    about: About,
    train: Split,
    validation: Split,
    transform: Transform,
    held_out: Callable[[Transform], Split],
) -> Dataset:
    families, identity = Augmentation(about.augmentation), about.fingerprint
    named = about.name, about.class_names
    told = about.positive, about.label
    return Dataset(*named, train, validation, transform, families, identity, held_out, *told)
