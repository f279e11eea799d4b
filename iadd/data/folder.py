"""Image trees of the user's: one folder a class, found and read; what is not read is listed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iadd.artifacts import counted
from iadd.data.groups import groups_of
from iadd.data.image_file import SUFFIXES
from iadd.data.images import decode, look_of
from iadd.data.raw import Labels, Part, Progress, Raw, Source

TRAIN = ("train", "training")
VALIDATION = ("val", "valid", "validation", "dev")
TEST = ("test", "testing")
MASKS = ("mask", "segment", "annotation")  # in names of folders beside a folder `images`,
_OF_ONE = re.compile(rf"(.+?)[-_. ]+(?:{'|'.join(MASKS)})", re.IGNORECASE)  # and of files


@dataclass(frozen=True)
class Tree:
    """Files of a folder of classes, their labels (N,), the class names, and what is left out."""

    files: list[Path]
    labels: Labels
    class_names: tuple[str, ...]
    left_out: Counter[str]


@dataclass(frozen=True)
class Layout:
    """The folders whose subfolders are the training classes, and the one of the test classes."""

    train: tuple[Path, ...]
    test: Path | None
    remarks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def read(
    source: Source, part: Part, like: Raw | None = None, progress: Progress | None = None
) -> Raw | None:
    """Read a part of the user's image tree; None for a test part where there is no test folder.

    Both parts' class names are checked before anything is decoded.
    """
    root = source.folder
    found = layout(root)
    tree = files_of(*found.train)
    if found.test is not None:
        for name in sorted({*tree.class_names} ^ {f.name for f in _folders(found.test)}):
            lacks = found.test.name if name in tree.class_names else found.train[0].name
            raise ValueError(f"{root}: class {name!r} has no folder in {lacks}/")
        test = files_of(found.test)
        tree = tree if part == "train" else test
    elif part == "test":
        return None
    remarks = (*found.remarks, *_alike(tree.class_names)) if part == "train" else ()
    left_out = found.left_out if part == "train" else ()
    raw = raw_of(source, tree, part, like, progress, source.channels)
    return replace(raw, remarks=remarks, left_out=(*left_out, *raw.left_out))


def raw_of(
    source: Source,
    tree: Tree,
    part: Part,
    like: Raw | None,
    progress: Progress | None,
    channels: int | None,
) -> Raw:
    """Decode the images of a tree; test images take the form of the training images, `like`."""
    look = None if like is None else look_of(like)
    names = [os.path.relpath(path, source.folder) for path in tree.files]
    groups = None if source.groups is None else groups_of(Path(source.groups), names)
    decoded = decode(tree.files, channels, source.resolution, like=look, progress=progress)
    if decoded.several:
        tree.left_out["further frame{s} or page{s} of files (the first is read)"] = decoded.several
    return Raw(
        decoded.images,
        tree.labels,
        decoded.digests,
        tree.class_names,
        like.low if like else decoded.low,
        like.high if like else decoded.high,
        decoded.look.background if decoded.transparent else None,
        groups,
        left_out=tuple(
            f"{part}: {counted(count, what)}" for what, count in sorted(tree.left_out.items())
        ),
        notes=decoded.notes,
    )


def layout(root: Path) -> Layout:
    """Find out how an image tree is laid out.

    Either `root/<class>/...`, or `root/train/<class>/...` with or without `root/test/<class>/...`
    (also Training, Testing). A folder `val` beside `train` is read as training images: which
    images are held out for validation is this program's to say.

    Raises:
        ValueError: no such folder, or one that could mean several things.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder of images")
    folders = _folders(root)
    roles = {
        role: [folder for folder in folders if folder.name.lower() in names]
        for role, names in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
    }
    nested = [f for found in roles.values() for f in found if _folders(f)]
    flat = len(folders) == sum(len(found) for found in roles.values()) > 0  # train/*.png
    if not nested and not flat:
        return Layout((root,), None, (), _outside(_images_in(root)))
    for role, found in roles.items():
        if len(found) > 1:
            raise ValueError(f"{root}: {found[0].name}/ and {found[1].name}/ are both for {role}")
        if found and found[0] not in nested:
            raise ValueError(
                f"{found[0]}: holds no class folders; images must lie in "
                f"{found[0].name}/<class>/, or the folder elsewhere"
            )
    if not roles["train"]:
        raise ValueError(
            f"{root}: has {nested[0].name}/ with class folders but no train/; put the training "
            "classes into train/, or give as root the folder whose subfolders are the classes"
        )
    others = [folder for folder in folders if folder not in nested]
    remarks = tuple(
        f"images of {folder.name}/ are read as training images; the validation split is cut anew"
        for folder in roles["validation"]
    )
    beside = [f"folder {folder.name}/ beside {nested[0].name}/" for folder in others]
    return Layout(
        (*roles["train"], *roles["validation"]),
        roles["test"][0] if roles["test"] else None,
        remarks,
        (*beside, *_outside(_images_in(root))),
    )


def _alike(names: Sequence[str]) -> list[str]:
    """Remarks on classes that may be one: their names differ in upper and lower case alone."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.casefold(), []).append(repr(name))
    return [
        f"classes {' and '.join(same)} differ in upper and lower case alone"
        for same in found.values()
        if len(same) > 1
    ]


def _outside(images: int) -> tuple[str, ...]:
    return (counted(images, "image{s} outside the class folders"),) if images else ()


def _images_in(folder: Path) -> int:
    return sum(path.suffix.lower() in SUFFIXES for path in folder.iterdir() if path.is_file())


def files_of(root: Path, *more: Path) -> Tree:
    """List the images of folders of classes, classes in the order of their names, all depths.

    Folders of masks beside a folder `images`, and masks beside their images, are left out.

    Raises:
        ValueError: fewer than 2 classes, a class without images, or a class in `more` alone.
    """
    names = [folder.name for folder in _folders(root)]
    if len(names) < 2:
        raise ValueError(
            f"{root}: has {len(names)} class folder(s), at least 2 are needed (<class>/*.png)"
        )
    for folder in (folder for other in more for folder in _folders(other)):
        if folder.name not in names:
            raise ValueError(f"{folder}: class {folder.name!r} is not in {root.name}/")
    tree = Tree([], np.empty(0, dtype=np.int64), tuple(names), Counter())
    labels: list[int] = []
    for label, name in enumerate(names):
        found: list[Path] = []
        for folder in (place / name for place in (root, *more)):
            if folder.is_dir():
                collect(folder, found, tree.left_out)
        if not found:
            raise ValueError(f"{root / name}: class {name!r} has no images")
        tree.files.extend(found)
        labels += [label] * len(found)
    for place in (root, *more):
        if more and (outside := _images_in(place)):
            tree.left_out[f"image{{s}} in {place.name}/ outside the class folders"] = outside
    return Tree(tree.files, np.array(labels, dtype=np.int64), tree.class_names, tree.left_out)


def collect(folder: Path, found: list[Path], left_out: Counter[str]) -> None:
    """Add the images under a folder; count what is passed over."""
    visited: set[str] = set()  # A link may lead back to a folder above it.
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        for name in [name for name in folders if _hidden(name)]:
            folders.remove(name)
            left_out["hidden folder{s}"] += 1
        if "images" in folders:
            for name in [n for n in folders if any(word in n.lower() for word in MASKS)]:
                folders.remove(name)
                left_out[f"folder{{s}} {name}/ beside images/"] += 1
        folders.sort()
        _sort_out(Path(place), sorted(names), found, left_out)


def _sort_out(place: Path, names: Sequence[str], found: list[Path], left_out: Counter[str]) -> None:
    stems = {Path(name).stem for name in names if Path(name).suffix.lower() in SUFFIXES}
    for name in names:
        suffix, mask = Path(name).suffix.lower(), _OF_ONE.match(Path(name).stem)
        if _hidden(name):
            left_out["hidden file{s}"] += 1
        elif suffix in SUFFIXES and mask and mask[1] in stems:
            left_out["mask{s} beside the image of the same name"] += 1
        elif suffix in SUFFIXES:
            found.append(place / name)
        else:
            left_out[f"{suffix} file{{s}}" if suffix else "file{s} without a suffix"] += 1


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not _hidden(path.name))
