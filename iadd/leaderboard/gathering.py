"""How the jobs' small files become one table, of which a part at a time is in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iadd.artifacts import canonical_json, first_difference
from iadd.leaderboard.results import (
    check_kind,
    check_texts,
    footer_of,
    footer_text,
    open_table,
    writing_table,
)

BATCH = 256
"""Files that are joined at once: thousands of small tables take several times their content."""
ALIKE = 16
"""Files that are opened before they are checked: a fifth faster than doing both by turns."""
PART_ROWS = 1 << 14
"""Rows of a collected table that are held at once, about, and make one row group."""

Expected = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""What a file's metadata must hold, or what tells it: of many files only when each is read."""
Block = Mapping[Path, Expected]


def collect(blocks: Sequence[Block], out: Path, schema: pa.Schema) -> None:
    """Join one small file a job into one table (`gather`) and write it to `out`."""
    with writing_table(out, schema, {"files": sum(map(len, blocks))}) as append:
        for part in gather(blocks, out, schema):
            append(part)


def gather(
    blocks: Sequence[Block], out: Path, schema: pa.Schema, least: pa.Schema | None = None
) -> Iterator[pa.Table]:
    """Join one small file a job: yields the parts of a table that is sorted by the schema's key.

    The order of the files in a block does not show in the result; rows of one key keep their file's
    order (a trace is a history).

    Args:
        blocks: the files, and what each one's metadata must hold, e.g. {"spec": ...}; other keys of
            the metadata are not looked at. By the schema's key, all rows of a block come before
            those of the next.
        out: where the table is going to lie, which is named where there is no file.
        least: the first columns, which a file must have; the others are null where it has no more.

    Raises:
        ValueError: naming the file, for one that was made under another spec than expected (with
            the key that differs and both sides), and naming both when two hold the same thing.
    """
    if not any(blocks):
        raise ValueError(f"{out}: no {schema.metadata[b'table'].decode()} files to collect")
    last: tuple[Any, ...] = ()
    for part in _parts(blocks, schema, least or schema):
        first, end = (_key(part.slice(k, 1), schema) for k in (0, len(part) - 1))
        if last and first <= last:
            raise ValueError(f"{out}: rows of {first} were found after those of {last}")
        last = end
        yield part


def _parts(blocks: Iterable[Block], schema: pa.Schema, least: pa.Schema) -> Iterator[pa.Table]:
    """Blocks joined until they have rows enough, sorted."""
    files: list[Path] = []
    joined: list[pa.Table] = []
    small: list[pa.Table] = []
    rows = 0
    for path, table, is_last in _read(blocks, schema, least):
        small.append(table)
        files.append(path)
        rows += len(table)
        if len(small) == BATCH:
            joined, small = [*joined, *_joined(small, files)], []
        if is_last and rows >= PART_ROWS:
            yield _sorted([*joined, *_joined(small, files)], files, schema)
            files, joined, small, rows = [], [], [], 0
    if rows:
        yield _sorted([*joined, *_joined(small, files)], files, schema)


def _read(
    blocks: Iterable[Block], schema: pa.Schema, least: pa.Schema
) -> Iterator[tuple[Path, pa.Table, bool]]:
    """Each file and its table, and whether it is the last of its block.

    Raises ValueError for one that was made under another spec.
    """
    ordered = ((block, sorted(block, key=str)) for block in blocks)
    wanted = ((path, block[path], path == paths[-1]) for block, paths in ordered for path in paths)
    while some := list(islice(wanted, ALIKE)):
        specs = [told() if callable(told) else told for _, told, _ in some]
        texts = [footer_text(schema, spec) for spec in specs]
        found = [open_table(path) for path, _, _ in some]
        for (path, _, last), spec, ours, (table, text) in zip(
            some, specs, texts, found, strict=True
        ):
            whole = _completed(table, schema, least)
            if text != ours or not whole.schema.equals(schema):  # most are so, to the letter
                footer = footer_of(path, text)
                check_kind(path, footer, whole.schema, schema)
                _refuse_stale(path, footer["metadata"], spec)
            yield path, whole, last


def _completed(table: pa.Table, schema: pa.Schema, least: pa.Schema) -> pa.Table:
    """A table that has the first columns at least, with the others."""
    if table.num_columns < len(schema) and table.schema.equals(least):
        for field in map(schema.field, range(len(least), len(schema))):
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def _joined(tables: Sequence[pa.Table], files: Sequence[Path]) -> Iterator[pa.Table]:
    """The tables of the last files, if any, as one with their files' numbers."""
    if tables:
        joined = pa.concat_tables(tables).combine_chunks()
        numbers = range(len(files) - len(tables), len(files))
        try:
            joined.validate(full=True)
        except pa.ArrowException:
            for number, table in zip(numbers, tables, strict=True):
                check_texts(files[number], table)
            raise
        owners = np.repeat(np.array(numbers, np.int32), [len(table) for table in tables])
        yield joined.append_column("file", pa.array(owners))


def _sorted(tables: Sequence[pa.Table], files: Sequence[Path], schema: pa.Schema) -> pa.Table:
    key = json.loads(schema.metadata[b"key"])
    joined = pa.concat_tables(tables).sort_by([(name, "ascending") for name in key])
    joined = joined.combine_chunks()
    _refuse_twice(joined, key, files)
    return joined.drop_columns("file")


def _key(row: pa.Table, schema: pa.Schema) -> tuple[Any, ...]:
    return tuple(row[name][0].as_py() for name in json.loads(schema.metadata[b"key"]))


def _refuse_stale(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, ours in expected.items():
        different = first_difference(json.loads(canonical_json(ours)), found.get(name))
        if different:
            key, right, wrong = different
            raise ValueError(
                f"{path}: its rows are stale, made under another {name}: {key or name} is {wrong} "
                f"in the file, {right} expected; delete it and run again"
            )


def _refuse_twice(ordered: pa.Table, key: Sequence[str], files: Sequence[Path]) -> None:
    """ValueError where two files hold rows of one key, which lie side by side."""
    rows, following = ordered.slice(0, len(ordered) - 1), ordered.slice(1)
    twice = pc.not_equal(rows["file"], following["file"])
    for name in key:
        twice = pc.and_(twice, pc.equal(rows[name], following[name]))
    for row in pc.indices_nonzero(twice)[:1].to_pylist():
        held = ordered.slice(row, 2).to_pylist()
        named = ", ".join(f"{name} {held[0][name]}" for name in key)
        one, other = (files[r["file"]] for r in held)
        raise ValueError(f"{one} and {other} both hold {named}: keep one of them")
