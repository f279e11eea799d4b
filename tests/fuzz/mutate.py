"""Mutators: of bytes, of texts, and of formats whose checksums they put right again."""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from iadd.artifacts.tensors import BLOCK, NO_SUM, UNSUMMED

DEEP = "@deep@"
NESTED = "[" * 100_000 + "]" * 100_000
WORDS: list[Any] = [None, True, False, "", "x" * 10_000, "../../x", "/etc/passwd", "$(touch x)"]
WORDS += ["a\x00b", "\ud7ff", "nan", "-", ".", "..", DEEP, [], {}, [[]], {"a": 1}, ["a"], "%s{0}"]
NUMBERS: list[Any] = [0, -1, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63]
NUMBERS += [2**64 - 1, 2**64, 10**30, 10**400, -(2**63), -(2**70), 0.5, -0.0, 1e-320, 1e38, 1e300]
NUMBERS += [float("nan"), float("inf"), -float("inf")]
TOKENS = [b"null", b"true", b"[]", b"{}", b'""', b"1e999", b"-1", b"NaN", b"9" * 5000, b"9" * 30]
TOKENS += [b"0x" + b"f" * 40, b"*a", b"&a", b"<<: *a", b"!!python/object:os.system x", b"- - - -"]
TOKENS += [b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\t", b"\r\n", b'"', b",", b"'", b"{" * 3000]


# Of bytes.


def flip(random: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 64)) if found else 0):
        found[random.randrange(len(found))] ^= 1 << random.randrange(8)
    return bytes(found)


def cut(random: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
    return random.choice((content[:start], content[end:], content[:start] + content[end:]))


def repeat(random: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
    piece = content[start:end][:5000]
    return content[:end] + piece * random.choice((1, 2, 30)) + content[end:]


def splice(random: Random, content: bytes, corpus: Sequence[bytes]) -> bytes:
    other = random.choice(corpus)
    start, end = (random.randrange(len(each) + 1) for each in (content, other))
    return content[:start] + other[end:]


def poke(random: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A number in the file's head or foot, or anywhere, becomes an extreme one."""
    size = random.choice((1, 2, 4, 8))
    value = random.choice((0, 1, 2, 2**7, 2**15, 2**31, 2**63, -1, -2, 2**30, 2**20, 100_000))
    piece = (value % 2 ** (8 * size)).to_bytes(size, random.choice(("little", "big")))
    near = random.choice((64, 400, len(content)))
    place = random.randrange(max(1, min(near, len(content))))
    place = place if random.random() < 0.7 else max(0, len(content) - size - place)
    return content[:place] + piece + content[place + size :]


def word(random: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A number or a word of a text becomes something else."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?|\w+", content[:200_000]))
    if not found:
        return content + random.choice(TOKENS)
    place, token = random.choice(found), random.choice(TOKENS)
    return content[: place.start()] + token + content[place.end() :]


def nest(random: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    place, depth = random.randrange(len(content) + 1), random.choice((100, 3000, 100_000))
    left, right = random.choice(((b"[", b"]"), (b"{", b"}"), (b'{"a":', b"}"), (b"(", b")")))
    return content[:place] + left * depth + right * depth + content[place:]


GENERAL: Sequence[Callable[[Random, bytes, Sequence[bytes]], bytes]] = (
    *(flip, flip, cut, repeat, splice, poke, poke, word, word, nest),
)


# Of trees of plain data.


def tree(random: Random, value: Any) -> Any:
    """The value with one part replaced, removed, doubled or moved."""
    places = list(_places(value))
    if not places:
        return random.choice(WORDS + NUMBERS)
    inside, key = random.choice(places)
    kind = random.random()
    if kind < 0.15:
        del inside[key]
    elif kind < 0.25 and isinstance(inside, list):
        inside.extend([inside[key]] * random.choice((1, 10)))
    elif kind < 0.3 and isinstance(inside, dict):
        inside[random.choice(("x", "", "a.b", "__class__"))] = inside[key]
    elif kind < 0.4:
        other, place = random.choice(places)
        inside[key] = json.loads(json.dumps(other[place])) if place in _keys(other) else None
    elif isinstance(inside[key], list) and kind < 0.5:
        inside[key] = inside[key] * 1000 if len(inside[key]) < 20 else []
    else:
        inside[key] = random.choice(NUMBERS if random.random() < 0.5 else WORDS)
    return value


def _keys(value: Any) -> Any:
    return value if isinstance(value, dict) else range(len(value))


def _places(value: Any) -> Any:
    for key in _keys(value) if isinstance(value, dict | list) else ():
        yield value, key
        yield from _places(value[key])


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace(f'"{DEEP}"', NESTED)


def json_file(random: Random, content: bytes) -> bytes:
    return _text(tree(random, json.loads(content))).encode()


def yaml_file(random: Random, content: bytes) -> bytes:
    value = tree(random, yaml.safe_load(content))
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=random.choice((None, True)))
    return text.replace(DEEP, NESTED[: random.choice((200, 200_000))]).encode("utf8", "replace")


# Of formats.


def tensor_file(random: Random, content: bytes) -> bytes:
    """A safetensors file, often with the checksums that ours have put right."""
    size = int.from_bytes(content[:8], "little")
    table, data = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    told = table.get("__metadata__", {})
    which = random.random()
    key = random.choice(("spec", "attributes", "attributes", "crc32"))
    if which < 0.5 and key in told:
        told[key] = _text(tree(random, json.loads(told[key])))
    elif which < 0.75 and data:
        value = random.choice((float("nan"), float("inf"), 1e30, -1.0, 0.0, 1e-40))
        piece = random.choice(
            (struct.pack("<f", value), struct.pack("<q", random.choice((-1, 99))))
        )
        place = random.randrange(0, len(data), 4)
        data[place : place + len(piece)] = piece[: len(data) - place]
    elif which < 0.9:
        table = _other_form(random, table)
    else:
        tree(random, table)
    if random.random() < 0.9 and isinstance(table.get("__metadata__"), dict):
        _seal(table, bytes(data))
    text = _text(table).encode()
    text = text.replace(UNSUMMED, UNSUMMED.replace(NO_SUM.encode(), b"%08x" % zlib.crc32(text)))
    return len(text).to_bytes(8, "little") + text + data


def _other_form(random: Random, table: dict[str, Any]) -> dict[str, Any]:
    """Another shape or type of as many bytes, or names exchanged."""
    names = [name for name in table if name != "__metadata__"]
    entry = table[random.choice(names)]
    if random.random() < 0.5:
        count = int(np.prod(entry["shape"]))
        shapes = [[count], [1, count], [count, 1], [count, 1, 1, 1], [1] * 8 + [count], [0, count]]
        entry["shape"] = random.choice(shapes)
    elif random.random() < 0.6:
        same = {"F32": ["I32", "U32"], "I64": ["F64", "U64", "C64"], "F16": ["BF16", "I16", "U16"]}
        entry["dtype"] = random.choice(
            [*same.get(entry["dtype"], ["F32"]), "F8_E4M3", "BOOL", "U8"]
        )
    else:
        one, other = random.choice(names), random.choice(names)
        table[one], table[other] = table[other], table[one]
    return table


def _seal(table: dict[str, Any], data: bytes) -> None:
    """Put the checksums of our tensor files right, as far as the table makes sense."""
    sums = {}
    for name, entry in table.items():
        if name != "__metadata__" and isinstance(entry, dict):
            begin, end = entry.get("data_offsets") or (0, 0)
            part = data[int(begin) : int(end)] if max(begin, end) < 2**40 else b""
            blocks = range(0, len(part), BLOCK)
            sums[name] = "".join(f"{zlib.crc32(part[k : k + BLOCK]):08x}" for k in blocks)
    told = table["__metadata__"]
    told |= {"crc32": _text(sums), "header_crc32": NO_SUM}
    table["__metadata__"] = {key: told[key] for key in told}


def zip_file(random: Random, content: bytes) -> bytes:
    """An archive with one member changed, left out, doubled or compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = random.randrange(len(members))
    name, inner = members[place]
    kind, out = random.random(), io.BytesIO()
    if kind < 0.75:
        change = random.choice((*GENERAL, _npy_head))
        members[place] = name, change(random, inner, [each for _, each in members])
    elif kind < 0.85:
        members.pop(place)
    elif kind < 0.95:
        members.append((random.choice(("../../x.npy", "/x", name)), inner))
    else:
        members[place] = name, inner + bytes(random.choice((10**4, 10**6)))
    way = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w", way) as archive:
        for name, inner in members:
            archive.writestr(name, inner)
    return out.getvalue()


def _npy_head(random: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """An array's header with another shape or type."""
    shapes = (b"(0,)", b"()", b"(99999999999,)", b"(1, 1, 1)", b"(-1,)", b"(3, 2, 2)", b"(1e9,)")
    types = (b"'|O'", b"'<U9'", b"'>f4'", b"'<c8'", b"'|V3'", b"'<M8[s]'", b"[('a', '<f4')]")
    if random.random() < 0.5:
        return re.sub(rb"\([\d, ]*\)", random.choice(shapes), content, count=1)
    return re.sub(rb"'[<>|]\w+'", random.choice(types), content, count=1)


def parquet_file(random: Random, content: bytes) -> bytes:
    """A table with a column or its metadata changed."""
    table = pq.read_table(io.BytesIO(content))
    told = dict(table.schema.metadata or {})
    kind, column = random.random(), random.randrange(table.num_columns)
    name = table.column_names[column]
    if kind < 0.4 and told:
        key = random.choice(sorted(told))
        told[key] = _text(tree(random, json.loads(told[key]))).encode()
    elif kind < 0.6:
        types = (pa.int8(), pa.string(), pa.float32(), pa.null(), pa.binary(), pa.list_(pa.int8()))
        table = table.set_column(column, name, pa.nulls(len(table), random.choice(types)))
    elif kind < 0.7:
        table = table.remove_column(column)
    elif kind < 0.8:
        table = table.append_column(name, table.column(column))
    elif kind < 0.9:
        table = pa.concat_tables([table] * random.choice((2, 300)))
    else:
        table = table.slice(0, random.choice((0, 1)))
    out = io.BytesIO()
    way = random.choice(("none", "zstd", "snappy"))
    pq.write_table(table.replace_schema_metadata(told), out, compression=way)
    return out.getvalue()


def png_file(random: Random, content: bytes) -> bytes:
    """A PNG with one chunk changed, its checksum right."""
    chunks, place = [], 8
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    number = random.randrange(len(chunks))
    kind, inner = chunks[number]
    chunks[number] = kind, random.choice(GENERAL)(random, inner, [inner])[: 2**20]
    sealed = (
        len(inner).to_bytes(4, "big") + kind + inner + zlib.crc32(kind + inner).to_bytes(4, "big")
        for kind, inner in chunks
    )
    return content[:8] + b"".join(sealed)
