"""Tensor files: safetensors with a spec and checksums inside, memory-mapped by their readers.

They are written here, so that a file larger than memory can be written in pieces, and read by
safetensors, whose tensors on a CPU are private views of the file: processes of a machine share its
pages. The metadata hold a CRC-32 of each block of 64 KiB of each tensor and one of the header. A
block is checked when it is first read: about 0.3 s a gigabyte.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadd.artifacts.identity import SPEC_VERSION, canonical_json, first_difference
from iadd.artifacts.reading import parsing, regular
from iadd.artifacts.writing import replacing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AGAIN = "; delete it and run again"
MOST_AXES = 8
BLOCK = 1 << 16  # bytes under one checksum
NO_SUM = "00000000"
UNSUMMED = b'"header_crc32":"%s"' % NO_SUM.encode()


@dataclass
class _Entry:
    """Where a tensor lies in the data part of a file, and the checksums of its blocks."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    sums: list[int]
    written: int = 0

    @property
    def end(self) -> int:
        return self.begin + prod(self.shape) * self.dtype.itemsize

    def add(self, content: memoryview) -> None:
        """Take the next bytes of the tensor into the checksums."""
        while content:
            block, filled = divmod(self.written, BLOCK)
            piece = content[: BLOCK - filled]
            self.sums[block] = zlib.crc32(piece, self.sums[block])
            self.written += len(piece)
            content = content[len(piece) :]


@contextmanager
def writing_tensors(
    path: str | Path,
    layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    spec: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
) -> Iterator[Callable[[str, Tensor], None]]:
    """Write a tensor file in pieces: yields `append(name, rows)`, in any order of the names.

    Args:
        layout: dtype and shape of each tensor; what is appended to it must add up to them.
        spec: what made the tensors; the identity that readers check.
        attributes: what came out beside the tensors (numbers, names); not part of the identity.

    Raises:
        ValueError: one line naming `path`, if it cannot be written; the file is whole or not there.
    """
    entries: dict[str, _Entry] = {}
    end = 0
    for name in sorted(layout, key=lambda name: (-layout[name][0].itemsize, name)):  # aligned
        entry = entries[name] = _Entry(*layout[name], end, [])
        end = entry.end
        entry.sums = [0] * -(-(end - entry.begin) // BLOCK)
    metadata = {
        "spec_version": SPEC_VERSION,
        "spec": canonical_json(spec),
        "attributes": canonical_json(attributes or {}),
    }
    start = len(_header(entries, metadata))
    with replacing(path) as draft, draft.open("wb") as file:

        def append(name: str, rows: Tensor) -> None:
            entry, position = entries[name], entries[name].begin + entries[name].written
            if rows.dtype != entry.dtype or position + rows.nbytes > entry.end:
                raise ValueError(f"{path}: {name} is {rows.dtype}, more or other than announced")
            content = _bytes(rows)
            file.seek(start + position)
            file.write(content)
            entry.add(content)

        yield append
        for name, entry in entries.items():
            if entry.begin + entry.written != entry.end:
                raise ValueError(f"{path}: {name} has {entry.written} bytes, fewer than announced")
        file.seek(0)
        file.write(_header(entries, metadata))


def _header(entries: Mapping[str, _Entry], metadata: Mapping[str, str]) -> bytes:
    """The header's bytes; their number does not depend on what the checksums are."""
    codes = {dtype: code for code, dtype in _dtypes().items()}
    sums = {name: "".join(f"{crc:08x}" for crc in entry.sums) for name, entry in entries.items()}
    told = {**metadata, "crc32": canonical_json(sums), "header_crc32": NO_SUM}
    table: dict[str, Any] = {"__metadata__": told}
    for name, entry in entries.items():
        place = {"shape": entry.shape, "data_offsets": [entry.begin, entry.end]}
        table[name] = {"dtype": codes[entry.dtype], **place}
    text = canonical_json(table).encode()
    text += b" " * (-len(text) % 8)  # The data begin at a multiple of 8.
    text = text.replace(UNSUMMED, UNSUMMED.replace(NO_SUM.encode(), b"%08x" % zlib.crc32(text)))
    return len(text).to_bytes(8, "little") + text


def _dtypes() -> dict[str, torch.dtype]:
    import torch

    floats = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
    integers = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "U8": torch.uint8}
    return floats | integers | {"BF16": torch.bfloat16, "BOOL": torch.bool}


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    plain = tensor.detach().cpu().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data if len(plain) else memoryview(b"")


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    spec: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write named tensors (any shapes, dtypes) with their spec, at once (see `writing_tensors`)."""
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with writing_tensors(path, layout, spec, attributes) as append:
        for name, tensor in tensors.items():
            append(name, tensor)


@dataclass(frozen=True, eq=False)
class Stored:
    """What a tensor file holds: named tensors, the spec that made them, further attributes."""

    tensors: dict[str, Tensor]
    spec: dict[str, Any]
    attributes: dict[str, Any]


class TensorFile:
    """A tensor file opened by memory mapping: parts are read without reading the rest.

    Checksums of a part are verified when it is first read.

    Args:
        expect: keys of the spec with the values they must have (nested values compared whole);
            keys that the file has beyond these are not looked at. None: no check.

    Raises:
        ValueError: one line for a missing, truncated or foreign file, or another spec, naming the
            first key that differs and both sides.
    """

    def __init__(self, path: str | Path, expect: Mapping[str, Any] | None = None) -> None:
        from safetensors import safe_open

        self.path = regular(path)
        with parsing(self.path, "safetensors file", AGAIN):
            self._file = safe_open(self.path, "pt")
            metadata = self._file.metadata() or {}
        self.names = tuple(sorted(self._file.keys()))
        """Names of the tensors in the file."""
        if "spec" not in metadata:
            raise ValueError(f"{self.path}: has no spec, so it was not written by iadd")
        version = metadata.get("spec_version")
        if version != SPEC_VERSION:
            raise ValueError(
                f"{self.path}: spec_version is {version!r}, this program reads {SPEC_VERSION!r}"
            )
        self._check_header(metadata.get("header_crc32", ""))
        told = (metadata.get(key, "") for key in ("spec", "attributes", "crc32"))
        with parsing(self.path, "tensor file", AGAIN):
            self.spec, self.attributes, self._sums = map(_json_object, told)
        self._verified: set[tuple[str, int]] = set()
        self._check_spec(expect or {})

    def _check_header(self, told: str) -> None:
        with self.path.open("rb") as file:
            text = file.read(int.from_bytes(file.read(8), "little"))
        plain = text.replace(f'"header_crc32":"{told}"'.encode(), UNSUMMED, 1)
        if told != f"{zlib.crc32(plain):08x}":
            raise ValueError(
                f"{self.path}: damaged (checksum of the header); delete it and run again"
            )

    def _check_spec(self, expect: Mapping[str, Any]) -> None:
        wanted = json.loads(canonical_json(expect))
        found = {key: self.spec[key] for key in wanted if key in self.spec}
        if different := first_difference(wanted, found):
            key, left, right = different
            raise ValueError(
                f"{self.path}: is from another spec: {key} is {right} in the file, {left} expected"
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return tuple(self._whole(name).shape)

    def get_slice(self, name: str, *index: int | slice) -> Tensor:
        """Return a copy of `tensor[index]`, e.g. `get_slice("parameters", expert, epoch)`.

        Integer indices count from 0 and drop their axis; no index: all. NaN and infinity are
        refused.
        """
        part = self.view(name, *index)
        if part.is_floating_point() and not part.isfinite().all():
            raise ValueError(
                f"{self.path}: {name} has NaN or infinite values; delete it and run again"
            )
        return part.clone()

    def view(self, name: str, *index: int | slice) -> Tensor:
        """Return `tensor[index]` without a copy: processes on a machine share its memory."""
        whole = self._whole(name)
        sizes = (*whole.shape, *[0] * (len(index) - whole.ndim))  # no index fits an axis too many
        for size, position in zip(sizes, index, strict=False):
            if isinstance(position, int) and not 0 <= position < size:
                raise ValueError(
                    f"{self.path}: {name} has {tuple(whole.shape)}, no index {position}"
                )
        part = whole[index]
        if part.numel():
            steps = zip(part.shape, part.stride(), strict=True)
            extent = 1 + sum((size - 1) * stride for size, stride in steps)
            begin = part.data_ptr() - whole.data_ptr()
            self._verify(name, whole, begin, begin + extent * part.itemsize)
        return part

    def _whole(self, name: str) -> Tensor:
        if name not in self.names:
            raise ValueError(f"{self.path}: has no tensor {name!r}, only {', '.join(self.names)}")
        with parsing(self.path, f"tensor {name}", AGAIN):
            tensor: Tensor = self._file.get_tensor(name)
        if tensor.dtype not in _dtypes().values() or tensor.ndim > MOST_AXES:
            what = f"{tensor.dtype} with {tensor.ndim} axes"
            raise ValueError(f"{self.path}: {name} is {what}; such tensors are not read")
        return tensor

    def _verify(self, name: str, whole: Tensor, begin: int, end: int) -> None:
        content, told = _bytes(whole), str(self._sums.get(name))
        for block in range(begin // BLOCK, -(-end // BLOCK)):
            if (name, block) in self._verified:
                continue
            found = zlib.crc32(content[block * BLOCK : (block + 1) * BLOCK])
            if told[8 * block : 8 * block + 8] != f"{found:08x}":
                raise ValueError(
                    f"{self.path}: {name} is damaged (checksum); delete it and run again"
                )
            self._verified.add((name, block))


def _json_object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("metadata that are no JSON object")
    canonical_json(found)  # Python reads NaN and infinity, which no spec has
    return found


def load_tensors(path: str | Path, expect: Mapping[str, Any] | None = None) -> Stored:
    """Read a whole tensor file; checks and errors as `TensorFile`, and NaN is refused."""
    file = TensorFile(path, expect)
    return Stored({name: file.get_slice(name) for name in file.names}, file.spec, file.attributes)
