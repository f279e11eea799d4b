"""A reader for each named dataset: one part (train or test) at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from iadd.data import arrays, builtin, folder, image_sets, medmnist, torchvision_sets
from iadd.data.raw import Part, Progress, Raw, Source

DEEPEST = 16  # folders below each other under `root`

READERS: dict[str, Callable[..., Raw | None]] = {
    "digits": builtin.digits,
    "blobs": builtin.blobs,
    **torchvision_sets.READERS,
    **image_sets.READERS,
    **medmnist.READERS,
    "folder": folder.read,
    "arrays": arrays.arrays,
}


def read(
    source: Source, part: Part, *, like: Raw | None = None, progress: Progress | None = None
) -> Raw | None:
    """Read one part; None for a test part that must be cut from the training part.

    Test images are brought to the form of the training images, `like`. White space around the name
    of a group is no part of it. ValueError, in one line, for missing or unreadable files, or images
    that do not fit.
    """
    found = READERS[source.name](source, part, like=like, progress=progress)
    if found is None or found.groups is None:
        return found
    return replace(found, groups=np.char.strip(found.groups))


def stamp(source: Source) -> str:
    """A cheap hash of what lies under `root`: names, sizes, times of change; nothing is decoded.

    A link counts with what it leads to.

    It tells that data should be looked at again; what the data are, their fingerprint tells. It is
    constant for data that come with the program or are downloaded.
    """
    reader = READERS[source.name]
    fetched = isinstance(reader, torchvision_sets.Reader) and source.download
    if source.root is None or fetched:
        return ""
    places = [source.folder]
    if isinstance(reader, torchvision_sets.Reader):
        places = [source.folder / reader.where]
    elif source.name in image_sets.SUBSETS:
        places = image_sets.places(source)
    state = hashlib.sha256()
    lines = sorted(line for place in places for line in _listed(place, source.folder))
    for line in (*_grouped(source), *lines):
        state.update(f"{line}\n".encode(errors="surrogateescape"))
    return state.hexdigest()


def _grouped(source: Source) -> Iterator[str]:
    """A line for the groups: the state of their table, or the name of their array."""
    if source.groups is not None:
        table = Path(source.groups).expanduser()
        there = source.name != "arrays" and table.is_file()
        yield _line(table, "groups") if there else f"groups\0{source.groups}"


def _listed(place: Path, root: Path) -> Iterator[str]:
    """A line for each file at a place, or for a file itself."""
    if place.is_file():
        yield _line(place, place.name)
    for here, folders, names in os.walk(place, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if len(Path(here).parts) > len(place.parts) + DEEPEST:
            folders.clear()  # A link to a folder above itself.
        for path in (Path(here, name) for name in names if not name.startswith(".")):
            yield _line(path, path.relative_to(root))


def _line(path: Path, name: object) -> str:
    states = [path.lstat(), *([path.stat()] if path.is_symlink() and path.exists() else [])]
    return "\0".join([str(name), *(f"{s.st_size}\0{s.st_mtime_ns}" for s in states)])
