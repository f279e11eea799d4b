"""The header of a safetensors file: where its tensors lie, the metadata, the checksums.

Checksums are CRC-32 over blocks of 64 KiB of each tensor, kept in the metadata as base64, and one
over the header itself.
"""

from __future__ import annotations

import base64
import json
import mmap
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from iadd.artifacts.identity import SPEC_VERSION, canonical_json

BLOCK = 1 << 16  # bytes under one checksum
LARGEST_HEADER = 100_000_000  # bytes: the limit of safetensors
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "U8": 1, "BOOL": 1}
UNSUMMED = b'"header_crc32":"00000000"'


@dataclass
class Entry:
    """Where a tensor lies in the data part of a file, and the checksums of its blocks."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    sums: array[int] = field(default_factory=lambda: array("I"))
    written: int = 0

    @property
    def size(self) -> int:
        return prod(self.shape) * BYTES[self.dtype]

    @property
    def blocks(self) -> int:
        return -(-self.size // BLOCK)

    def add(self, content: memoryview) -> None:
        """Take the next bytes of the tensor into the checksums."""
        position = 0
        while position < len(content):
            filled = self.written % BLOCK
            if not filled:
                self.sums.append(0)
            piece = content[position : position + BLOCK - filled]
            self.sums[-1] = zlib.crc32(piece, self.sums[-1])
            position += len(piece)
            self.written += len(piece)


def encode(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    """The header's bytes; their number does not depend on what the checksums are."""
    sums = {
        name: base64.b64encode((entry.sums or array("I", [0]) * entry.blocks).tobytes()).decode()
        for name, entry in entries.items()
    }
    told = {**metadata, "crc32": canonical_json(sums), "header_crc32": "00000000"}
    table: dict[str, Any] = {"__metadata__": told}
    for name, entry in entries.items():
        offsets = [entry.begin, entry.begin + entry.size]
        table[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
    text = canonical_json(table).encode()
    text += b" " * (-len(text) % 8)  # The data begin at a multiple of 8.
    text = text.replace(UNSUMMED, UNSUMMED.replace(b"00000000", b"%08x" % zlib.crc32(text)))
    return len(text).to_bytes(8, "little") + text


class Malformed(Exception):
    """What is wrong with a header."""


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise Malformed(what)


def json_object(text: Any, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"{what} is no JSON") from error
    _need(isinstance(value, dict), f"{what} is no JSON object")
    found: dict[str, Any] = value
    return found


def _entry(name: str, found: Any, room: int) -> Entry:
    _need(isinstance(found, dict) and str(found.get("dtype")) in BYTES, f"dtype of {name!r}")
    shape, offsets = found.get("shape"), found.get("data_offsets")
    for numbers in (shape, offsets):
        whole = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        _need(whole, f"shape or offsets of {name!r}")
    entry = Entry(found["dtype"], tuple(shape), offsets[0] if offsets else 0)
    _need(offsets == [entry.begin, entry.begin + entry.size], f"offsets of {name!r}")
    _need(offsets[1] <= room, f"{name!r} lies beyond the end")
    return entry


def parse(content: mmap.mmap) -> tuple[int, dict[str, Entry], dict[str, Any]]:
    """Where the data begin, the tensors' places, the metadata."""
    length = int.from_bytes(content[:8], "little")
    _need(length <= LARGEST_HEADER and 8 + length <= len(content), "header beyond the end")
    text = content[8 : 8 + length]
    table = json_object(text, "the header")
    metadata = table.pop("__metadata__", {})
    _need(isinstance(metadata, dict), "__metadata__ is no JSON object")
    room = len(content) - 8 - length
    entries = {name: _entry(name, found, room) for name, found in table.items()}
    if "spec" in metadata and metadata.get("spec_version") == SPEC_VERSION:
        told = str(metadata.get("header_crc32"))
        plain = text.replace(f'"header_crc32":"{told}"'.encode(), UNSUMMED, 1)
        _need(told == f"{zlib.crc32(plain):08x}", "checksum of the header")
        sums = json_object(metadata.get("crc32"), "crc32")
        for name, entry in entries.items():
            try:
                entry.sums = array("I", base64.b64decode(sums[name]))
            except (KeyError, TypeError, ValueError) as error:
                raise Malformed(f"checksums of {name!r}") from error
            _need(len(entry.sums) == entry.blocks, f"checksums of {name!r}")
    return 8 + length, entries, metadata
