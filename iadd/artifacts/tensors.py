"""Tensor files: safetensors with a spec and checksums inside, memory-mapped by their readers.

The format is safetensors' own (any of its readers opens the files); it is written and read here so
that a file larger than memory can be written in pieces, that its parts can be handed out without a
copy, and that a flipped bit is found. Checksums are CRC-32 over blocks of 64 KiB of each tensor and
over the header. A block is checked when it is first read: about 0.3 s a gigabyte.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadd.artifacts.header import BLOCK, Entry, Malformed, encode, json_object, parse
from iadd.artifacts.identity import SPEC_VERSION, canonical_json, first_difference
from iadd.artifacts.writing import replacing

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _dtypes() -> dict[str, torch.dtype]:
    import torch

    floats = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
    integers = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "U8": torch.uint8}
    return floats | integers | {"BF16": torch.bfloat16, "BOOL": torch.bool}


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
    codes = {dtype: code for code, dtype in _dtypes().items()}
    entries: dict[str, Entry] = {}
    end = 0
    for name in sorted(layout, key=lambda name: (-layout[name][0].itemsize, name)):  # aligned
        entries[name] = Entry(codes[layout[name][0]], tuple(layout[name][1]), end)
        end += entries[name].size
    metadata = {
        "spec_version": SPEC_VERSION,
        "spec": canonical_json(spec),
        "attributes": canonical_json(attributes or {}),
    }
    start = len(encode(entries, metadata))
    with replacing(path) as draft, draft.open("wb") as file:

        def append(name: str, rows: Tensor) -> None:
            entry = entries[name]
            if rows.dtype != layout[name][0] or entry.written + rows.nbytes > entry.size:
                raise ValueError(f"{path}: {name} is {rows.dtype}, more or other than announced")
            file.seek(start + entry.begin + entry.written)
            content = _bytes(rows)
            entry.add(content)
            file.write(content)

        yield append
        for name, entry in entries.items():
            if entry.written != entry.size:
                raise ValueError(f"{path}: {name} has {entry.written} bytes, not {entry.size}")
        file.seek(0)
        file.write(encode(entries, metadata))


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


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            # Private: pages are shared between processes, and nobody can write into the file.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except ValueError as error:  # An empty file cannot be mapped.
        raise ValueError(f"{path}: truncated or not a safetensors file (empty)") from error
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(f"{path}: cannot be read ({reason})") from error


class TensorFile:
    """A tensor file opened by memory mapping: parts are read without reading the rest.

    Checksums of a part are verified when it is first read.
    """

    def __init__(self, path: str | Path, expect: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._map = _mapped(self.path)
        try:
            self._start, self._entries, metadata = parse(self._map)
        except Malformed as error:
            raise ValueError(
                f"{self.path}: truncated or not a safetensors file ({error}); make it again"
            ) from error
        self.spec, self.attributes = self._identity(metadata)
        self._verified = {name: bytearray(entry.blocks) for name, entry in self._entries.items()}
        if expect is not None:
            self._check(expect)

    def _identity(self, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        if "spec" not in metadata:
            raise ValueError(f"{self.path}: has no spec, so it was not written by iadd")
        version = metadata.get("spec_version")
        if version != SPEC_VERSION:
            raise ValueError(
                f"{self.path}: spec_version is {version!r}, this program reads {SPEC_VERSION!r}"
            )
        try:
            return tuple(json_object(metadata.get(key), key) for key in ("spec", "attributes"))  # type: ignore[return-value]
        except Malformed as error:
            raise ValueError(f"{self.path}: damaged ({error}); make it again") from error

    def _check(self, expect: Mapping[str, Any]) -> None:
        wanted = json.loads(canonical_json(expect))
        found = {key: self.spec[key] for key in wanted if key in self.spec}
        different = first_difference(wanted, found)
        if different:
            key, left, right = different
            raise ValueError(
                f"{self.path}: is from another spec: {key} is {right} in the file, {left} expected"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors in the file, sorted."""
        return tuple(sorted(self._entries))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self._find(name).shape

    def get_slice(self, name: str, *index: int | slice) -> Tensor:
        """Return a copy of `tensor[index]`, e.g. `get_slice("parameters", expert, epoch)`.

        Integer indices count from 0 and drop their axis; no index: all. NaN and infinity are
        refused.
        """
        part = self.view(name, *index)
        if part.is_floating_point() and not part.isfinite().all():
            raise ValueError(f"{self.path}: {name} has NaN or infinite values; make it again")
        return part.clone()

    def view(self, name: str, *index: int | slice) -> Tensor:
        """Return `tensor[index]` without a copy: processes on a machine share its memory."""
        import torch

        entry = self._find(name)
        for axis, position in enumerate(index):
            if isinstance(position, int) and not 0 <= position < entry.shape[axis]:
                raise ValueError(f"{self.path}: {name} has {entry.shape}, no index {position}")
        dtype = _dtypes()[entry.dtype]
        if not entry.size:
            return torch.empty(entry.shape, dtype=dtype)[index]
        count, origin = prod(entry.shape), self._start + entry.begin
        flat = torch.frombuffer(self._map, dtype=dtype, count=count, offset=origin)
        whole = flat.view(entry.shape)
        part = whole[index]
        if part.numel():
            steps = zip(part.shape, part.stride(), strict=True)
            extent = 1 + sum((size - 1) * stride for size, stride in steps)
            begin = part.data_ptr() - whole.data_ptr()
            self._verify(name, entry, begin, begin + extent * dtype.itemsize)
        return part

    def _verify(self, name: str, entry: Entry, begin: int, end: int) -> None:
        seen, content = self._verified[name], memoryview(self._map)
        origin = self._start + entry.begin
        for block in range(begin // BLOCK, -(-end // BLOCK)):
            if seen[block]:
                continue
            stop = min((block + 1) * BLOCK, entry.size)
            if zlib.crc32(content[origin + block * BLOCK : origin + stop]) != entry.sums[block]:
                raise ValueError(f"{self.path}: {name} is damaged (checksum); make it again")
            seen[block] = 1

    def _find(self, name: str) -> Entry:
        if name not in self._entries:
            raise ValueError(f"{self.path}: has no tensor {name!r}, only {', '.join(self.names)}")
        return self._entries[name]


def open_tensors(path: str | Path, expect: Mapping[str, Any] | None = None) -> TensorFile:
    """Open a tensor file for random access, checking its identity.

    Args:
        expect: keys of the spec with the values they must have (nested values compared whole);
            keys that the file has beyond these are not looked at. None: no check.

    Raises:
        ValueError: one line for a missing, truncated or foreign file, or another spec, naming the
            first key that differs and both sides.
    """
    return TensorFile(path, expect)


def load_tensors(path: str | Path, expect: Mapping[str, Any] | None = None) -> Stored:
    """Read a whole tensor file; checks and errors as `open_tensors`, and NaN is refused."""
    file = open_tensors(path, expect)
    return Stored({name: file.get_slice(name) for name in file.names}, file.spec, file.attributes)
