"""How the jobs' small files become one table, of which a part at a time is in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from iadd.artifacts import canonical_json, first_difference
from iadd.leaderboard.results import check_kind, footer_of, footer_text, open_table, writing_table

BATCH = 256
"""Files that are joined at once: thousands of small tables take several times their content."""
PART_ROWS = 1 << 14
"""Of a collected table: about as many are held at once, and make one row group."""

Expected = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""What a file's metadata must hold, or what tells it: of many files only when each is read."""
Block = Mapping[Path, Expected]


def collect(blocks: Sequence[Block], out: Path, schema: pa.Schema) -> None:
    """Join one small file a job into one table (`gather`) and write it to `out`."""
    with writing_table(out, schema, {"files": sum(map(len, blocks))}) as append:
        for part in gather(blocks, out, schema):
            append(part)


def gather(blocks: Sequence[Block], out: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Join one small file a job: yields the parts of a table that is sorted by the schema's key.

    The order of the files in a block does not show in the result; rows of one key keep their file's
    order (a trace is a history).

    Args:
        blocks: the files, and what each one's metadata must hold, e.g. {"spec": ...}; other keys of
            the metadata are not looked at. By the schema's key, all rows of a block come before
            those of the next.
        out: where the table is going to lie, which is named where there is no file.

    Raises:
        ValueError: naming the file, for one that was made under another spec than expected (with
            the key that differs and both sides), and naming both when two hold the same thing.
    """
    if not any(blocks):
        raise ValueError(f"{out}: no {schema.metadata[b'table'].decode()} files to collect")
    last: tuple[Any, ...] = ()
    for part in _parts(blocks, schema):
        first, end = (_key(part.slice(k, 1), schema) for k in (0, len(part) - 1))
        if last and first <= last:
            raise ValueError(f"{out}: rows of {first} were found after those of {last}")
        last = end
        yield part


def _parts(blocks: Iterable[Block], schema: pa.Schema) -> Iterator[pa.Table]:
    """Blocks joined until they have rows enough, sorted."""
    files: list[Path] = []
    joined: list[pa.Table] = []
    small: list[pa.Table] = []
    rows = 0
    for block in blocks:
        for path in sorted(block, key=str):
            small.append(_expected(path, schema, block[path]))
            files.append(path)
            rows += len(small[-1])
            if len(small) == BATCH:
                joined, small = [*joined, *_joined(small, len(files))], []
        if rows >= PART_ROWS:
            yield _sorted([*joined, *_joined(small, len(files))], files, schema)
            files, joined, small, rows = [], [], [], 0
    if rows:
        yield _sorted([*joined, *_joined(small, len(files))], files, schema)


def _joined(tables: Sequence[pa.Table], until: int) -> Iterator[pa.Table]:
    """Tables, if any, as one with their files' numbers, of which the last is before `until`."""
    if tables:
        numbers = np.arange(until - len(tables), until, dtype=np.int32)
        files = np.repeat(numbers, [len(table) for table in tables])
        yield pa.concat_tables(tables).combine_chunks().append_column("file", pa.array(files))


def _sorted(tables: Sequence[pa.Table], files: Sequence[Path], schema: pa.Schema) -> pa.Table:
    joined, key = pa.concat_tables(tables).combine_chunks(), json.loads(schema.metadata[b"key"])
    _refuse_twice(joined, key, files)
    return joined.sort_by([(name, "ascending") for name in key]).drop_columns("file")


def _key(row: pa.Table, schema: pa.Schema) -> tuple[Any, ...]:
    return tuple(row[name][0].as_py() for name in json.loads(schema.metadata[b"key"]))


def _expected(path: Path, schema: pa.Schema, told: Expected) -> pa.Table:
    """A job's table; ValueError if it was made under another spec."""
    expected = told() if callable(told) else told
    table, text = open_table(path)
    as_expected = text == footer_text(schema, expected)  # most are, to the letter
    if not as_expected or not table.schema.equals(schema):
        footer = footer_of(path, text)
        check_kind(path, footer, table.schema, schema)
        _refuse_stale(path, footer["metadata"], expected)
    return table


def _refuse_stale(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, ours in expected.items():
        different = first_difference(json.loads(canonical_json(ours)), found.get(name))
        if different:
            key, right, wrong = different
            raise ValueError(
                f"{path}: its rows are stale, made under another {name}: {key or name} is {wrong} "
                f"in the file, {right} expected; delete it and run again"
            )


def _refuse_twice(joined: pa.Table, key: Sequence[str], files: Sequence[Path]) -> None:
    owners = joined.group_by(key).aggregate([("file", "min"), ("file", "max")])
    shared = owners.filter(pa.compute.not_equal(owners["file_min"], owners["file_max"]))
    for row in shared.slice(0, 1).to_pylist():
        named = ", ".join(f"{name} {row[name]}" for name in key)
        one, other = files[row["file_max"]], files[row["file_min"]]
        raise ValueError(f"{one} and {other} both hold {named}: keep one of them")
