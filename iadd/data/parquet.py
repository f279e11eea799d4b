"""Images in Parquet files as the Hugging Face hub lays them out.

A column holds structures of `bytes` (an encoded image) and `path`, another one integer labels,
whose names stand in the schema's metadata. A part may lie in several files, like
`train-00000-of-00002.parquet`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iadd.artifacts import parsing, regular
from iadd.data.image_file import Encoded, Item
from iadd.data.images import TOGETHER, decode, look_of
from iadd.data.raw import Part, Progress, Raw, Source

NAME = re.compile(r"(train|validation|valid|val|dev|test)(?:[-_.]|$)(?:(\d+)-of-(\d+))?")
PARTS = {"train": "train", "test": "test"}  # all others are for validation
Shards = Mapping[str, Sequence[Path]]


def shards_of(root: Path) -> dict[str, list[Path]]:
    """The Parquet files under a folder by part: train, validation, test; in order.

    Raises:
        ValueError: one line naming a shard that its neighbours say there is, or two folders with
            one part: a dataset of the hub may come in several configurations, each with its own.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.parquet")):
        # The hub's own conversions are called <part>/0000.parquet.
        match = NAME.match(path.parent.name if path.stem.isdigit() else path.stem)
        if match is None:
            continue
        part, number, count = match.groups()
        shards = found.setdefault(PARTS.get(part, "validation"), [])
        shards.append(path)
        if path.parent != shards[0].parent and part in PARTS:
            raise ValueError(
                f"{root}: {shards[0].parent} and {path.parent} both hold a part {part}; give as "
                "root the folder of one configuration"
            )
        for other in range(int(count or 0)):
            beside = path.with_name(
                path.name.replace(f"{number}-of", f"{other:0{len(number)}d}-of")
            )
            if not beside.exists():
                raise ValueError(f"{beside}: no such file; {path.name} says that there are {count}")
    return found


@dataclass(frozen=True)
class _Images(Collection[Item]):
    """The encoded images of some files in order, a few read at a time, as often as asked."""

    shards: Sequence[Path]
    column: str
    count: int

    def __len__(self) -> int:
        return self.count

    def __contains__(self, item: object) -> bool:
        return any(item == each for each in self)

    def __iter__(self) -> Iterator[Item]:
        for shard in self.shards:
            with _opened(shard) as file:
                columns = [f"{self.column}.bytes"]
                batches = file.iter_batches(TOGETHER, columns=columns, use_threads=False)
                contents = (c for batch in batches for c in batch.column(0).field("bytes"))
                row, rows = 0, file.metadata.num_rows
                for row, content in enumerate(contents, 1):
                    if not content.is_valid:
                        raise ValueError(f"{shard}: row {row - 1}: has no bytes of an image")
                    yield Encoded(f"{shard}: row {row - 1}", content.as_py())
                if row != rows:  # a damaged page may end a column without a word
                    raise ValueError(f"{shard}: has {row} images in {rows} rows")


@contextmanager
def _opened(path: Path, **options: Any) -> Iterator[Any]:
    """A Parquet file; ValueError of one line for whatever cannot be read of it inside."""
    from pyarrow import parquet

    with (
        parsing(regular(path), "Parquet file"),
        parquet.ParquetFile(path, memory_map=True, **options) as file,
    ):
        # Equal values take no room, so a few bytes can claim billions of rows.
        rows, size = file.metadata.num_rows, path.stat().st_size
        if rows > size:
            raise ValueError(f"{path}: claims {rows:,} rows in {size:,} bytes")
        yield file


def read_parquet(
    source: Source, shards: Shards, part: Part, like: Raw | None, progress: Progress | None
) -> Raw | None:
    """Read one part; the shards of validation become the set's own validation images."""
    root = source.folder
    if "train" not in shards:
        raise ValueError(f"{root}: has no train-*.parquet")
    if part == "test" and "test" not in shards:
        if "validation" in shards:
            raise ValueError(f"{root}: has a part validation and none test; call it test")
        return None
    own: list[tuple[str, Path]] = [(part, shard) for shard in shards[part]]
    if part == "train":
        own += [("validation", shard) for shard in shards.get("validation", ())]
    files = [shard for _, shard in own]
    image, label, names = _columns(files[0])
    names = like.class_names if like else names
    labels = [_labels(file, label, names) for file in files]
    if not any(labels):
        raise ValueError(f"{files[0]}: has no images")
    every = np.array([value for values in labels for value in values], dtype=np.int64)
    groups = None
    if source.groups is not None:
        groups = np.array([str(g) for file in files for g in _column(file, str(source.groups))])
    look = None if like is None else look_of(like)
    encoded = _Images(files, image, len(every))
    found = decode(encoded, source.channels, source.resolution, like=look, progress=progress)
    held = np.repeat([name == "validation" for name, _ in own], [len(v) for v in labels])
    return Raw(
        found.images,
        every,
        found.digests,
        names or tuple(map(str, range(int(every.max()) + 1))),
        like.low if like else found.low,
        like.high if like else found.high,
        found.look.background if found.transparent else None,
        groups,
        held if held.any() else None,
        notes=found.notes,
    )


def _labels(file: Path, column: str, names: tuple[str, ...]) -> list[int]:
    """The labels of a file, which stand for these classes, or for as yet unnamed ones."""
    *_, told = _columns(file)
    if names and told and told != names:
        raise ValueError(
            f"{file}: its labels stand for {', '.join(told)}, those of the first training file for "
            f"{', '.join(names)}; write all files with the same list of classes"
        )
    values, most = _column(file, column), (len(names) or 10_000) - 1
    for row, value in enumerate(values):
        if not isinstance(value, int) or not 0 <= value <= most:
            raise ValueError(f"{file}: {column}: row {row} is {value!r}; allowed are 0 to {most}")
    return values


def _columns(file: Path) -> tuple[str, str, tuple[str, ...]]:
    """The names of the columns of images and labels, and the class names, if they are told."""
    with _opened(file) as opened:
        schema = opened.schema_arrow
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features: Mapping[str, Any] = told.get("info", {}).get("features", {})
        if not isinstance(features, dict):
            raise ValueError("its features are no mapping")
    chosen = []
    for kind, usual in (("Image", "image"), ("ClassLabel", "label")):
        fitting = [
            name for name, f in features.items() if isinstance(f, dict) and f.get("_type") == kind
        ]
        name = fitting[0] if len(fitting) == 1 and usual not in schema.names else usual
        if name not in schema.names:
            held = ", ".join(schema.names)
            raise ValueError(
                f"{file}: has no column {usual}, only {held}; rename the one that it is"
            )
        chosen.append(name)
    with parsing(file, "list of class names"):
        names = features.get(chosen[1], {}).get("names") or ()
        return chosen[0], chosen[1], tuple(map(str, names))


def _column(file: Path, name: str) -> list[Any]:
    """The values of a column; ValueError where there is none, or one of them is missing."""
    with _opened(file) as opened:
        schema = opened.schema_arrow
        if schema.names.count(name) != 1:
            raise ValueError(f"{file}: has no column {name}, only {', '.join(schema.names)}")
        values: list[Any] = opened.read([name], use_threads=False).column(0).to_pylist()
    if None in values:
        raise ValueError(f"{file}: {name}: row {values.index(None)} is empty")
    return values
