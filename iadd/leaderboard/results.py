"""Tables as files: what every job writes, and how the jobs' files become one table.

Accuracy is a fraction in [0, 1] everywhere; only what is printed for people shows percent. No torch
in here: a leaderboard can be made and checked on a machine that has nothing but the tables.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from iadd.artifacts import SPEC_VERSION, atomic_write, canonical_json, first_difference
from iadd.leaderboard.rows import LeaderboardRow, Row, schema_of

if TYPE_CHECKING:  # jobs write their rows without paying for pandas
    import pandas as pd

Records = Sequence[Row] | Sequence[Mapping[str, Any]]
R = TypeVar("R", bound=Row)
COMPRESSED_ROWS = 1000
"""A job's few rows are as small without compression, and are read in a third of the time."""
BATCH = 512
"""Files that are joined at once: thousands of small tables take several times their content."""
PYTHON_TYPES: dict[str, type] = {"int64": Integral, "double": Real, "string": str, "bool": bool}


def write_csv(rows: Sequence[LeaderboardRow], path: Path) -> None:
    """Write the leaderboard as CSV for spreadsheets, atomically: full precision, null is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, schema_of(LeaderboardRow).names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    atomic_write(path, text.getvalue().encode())


def write_table(
    rows: Records | pa.Table, path: Path, schema: pa.Schema, metadata: Mapping[str, Any]
) -> None:
    """Write rows as one Parquet file, `metadata` as JSON in its footer: same rows, same bytes.

    Raises ValueError naming file and column for one that is missing, unknown, mistyped, null
    without leave, or an accuracy that is no fraction.
    """
    table = rows if isinstance(rows, pa.Table) else table_of(rows, schema, str(path))
    name = schema.metadata[b"table"].decode()
    footer = {"table": name, "spec_version": SPEC_VERSION, "metadata": dict(metadata)}
    plain = pa.schema([pa.field(f.name, f.type, f.nullable) for f in schema])
    described = plain.with_metadata({"iadd": canonical_json(footer)})
    buffer = io.BytesIO()
    compression = "zstd" if len(table) >= COMPRESSED_ROWS else "none"
    pq.write_table(table.cast(described), buffer, compression=compression)
    atomic_write(path, buffer.getvalue())


def table_of(rows: Records, schema: pa.Schema, where: str = "table") -> pa.Table:
    """Rows as an Arrow table, checked as `write_table` says; `where` is named in errors."""
    records = [vars(row) if isinstance(row, Row) else row for row in rows]
    unknown = sorted({name for row in records for name in row} - set(schema.names))
    if unknown:
        allowed = ", ".join(schema.names)
        raise ValueError(f"{where}: unknown column {unknown[0]!r}; allowed: {allowed}")
    columns = [_column(records, field, where) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(rows: Sequence[Mapping[str, Any]], field: pa.Field, path: str) -> pa.Array:
    values: list[Any] = []
    for number, row in enumerate(rows):
        where = f"{path}: row {number}: column {field.name!r}"
        if field.name not in row:
            raise ValueError(f"{where} is missing")
        values.append(_checked(row[field.name], field, where))
    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowException, OverflowError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: column {field.name!r} must be {field.type}: {reason}") from error


def _checked(value: Any, field: pa.Field, where: str) -> Any:
    """A value if its column allows it, NaN as null; ValueError otherwise."""
    if value is None or value != value:  # NaN is null, in memory as in files
        if not field.nullable:
            raise ValueError(f"{where} must not be null")
        return None
    kind = PYTHON_TYPES.get(str(field.type))
    if kind and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise ValueError(f"{where} = {value!r} must be {field.type}")  # pyarrow would cut 1.5
    rules = field.metadata or {}
    if allowed := rules.get(b"allowed"):
        names = json.loads(allowed)
        if value not in names:
            raise ValueError(f"{where} = {value!r} must be one of {', '.join(map(repr, names))}")
    if b"fraction" in rules and not 0 <= value <= 1:
        raise ValueError(f"{where} = {value} must be a fraction in [0, 1]")
    return value


def read_table(path: Path, schema: pa.Schema, without: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table of `write_table`'s as a frame; ValueError naming both sides for another kind.

    Integers that may be null come as pandas' Int64, never as floats. `without`: columns left out.
    """
    frame: pd.DataFrame = _read(path, schema, without)[0].to_pandas()
    nullable = [f.name for f in schema if f.nullable and f.type == pa.int64()]
    return frame.astype(dict.fromkeys((n for n in nullable if n not in without), "Int64"))


def read_rows(path: Path, row: type[R]) -> list[R]:
    """Read a table of `write_table`'s as typed rows; null is None."""
    return [row(**values) for values in _read(path, schema_of(row))[0].to_pylist()]


def read_metadata(path: Path) -> dict[str, Any]:
    """The `metadata` that was given to `write_table`."""
    return dict(_open(path, columns=[])[1]["metadata"])


def _read(
    path: Path, schema: pa.Schema, without: Sequence[str] = ()
) -> tuple[pa.Table, dict[str, Any]]:
    """A table and its metadata, after checking what table it is and by which rules it was made."""
    schema = pa.schema([f for f in schema if f.name not in without], schema.metadata)
    found, footer = _open(path, schema.names if without else None)
    _check_kind(path, footer, found.schema, schema)
    return found, footer["metadata"]


def _check_kind(path: Path, footer: Mapping[str, Any], found: pa.Schema, schema: pa.Schema) -> None:
    sides = [
        ("table", footer["table"], schema.metadata[b"table"].decode()),
        ("spec version", footer["spec_version"], SPEC_VERSION),
    ]
    if not found.equals(schema):
        theirs, ours = (", ".join(f"{f.name}:{f.type}" for f in s) for s in (found, schema))
        sides.append(("columns", theirs, ours))
    for side, theirs, ours in sides:
        if theirs != ours:
            raise ValueError(f"{path}: holds {side} {theirs!r}, expected {ours!r}")


def batches(
    path: Path, schema: pa.Schema, columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Some columns of a table, at most so many rows at a time: for what may not fit into memory.

    Raises ValueError as `read_table` does.
    """
    _, footer = _open(path, columns=[])
    with pq.ParquetFile(path) as file:
        _check_kind(path, footer, file.schema_arrow.remove_metadata(), schema)
        yield from file.iter_batches(rows, columns=list(columns), use_threads=False)


def _open(path: Path, columns: list[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """A table, or some of its columns, and what its footer says; ValueError for another's file."""
    try:
        # Not read_table, which looks for data sets of many files.
        with pq.ParquetFile(path) as file:
            table = file.read(columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        if not path.exists():
            raise ValueError(f"{path}: no such table here; iadd run makes it") from None
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a readable Parquet table: {reason}") from error
    text = (table.schema.metadata or {}).get(b"iadd")
    if text is None:
        raise ValueError(f"{path}: not a table of ours: no 'iadd' entry in its footer")
    return table.replace_schema_metadata(None), json.loads(text)


def collect(expected: Mapping[Path, Mapping[str, Any]], out: Path, schema: pa.Schema) -> pa.Table:
    """Join one small file a job into one table (`gather`) and write it to `out`."""
    joined = gather(expected, out, schema)
    write_table(joined, out, schema, {"files": len(expected)})
    return joined


def gather(expected: Mapping[Path, Mapping[str, Any]], out: Path, schema: pa.Schema) -> pa.Table:
    """Join one small file a job into one table sorted by the schema's key.

    The order of the files does not show in the result; rows of one key keep their file's order (a
    trace is a history).

    Args:
        expected: the files, and what each one's metadata must hold, e.g. {"spec": ...}; other keys
            of the metadata are not looked at.
        out: where the table is going to lie, which is named where there is no file.

    Raises:
        ValueError: naming the file, for one that was made under another spec than expected (with
            the key that differs and both sides), and naming both when two hold the same thing.
    """
    key = json.loads(schema.metadata[b"key"])
    files = sorted(expected)
    if not files:
        raise ValueError(f"{out}: no {schema.metadata[b'table'].decode()} files to collect")

    def part(number: int) -> pa.Table:
        found, metadata = _read(files[number], schema)
        _refuse_stale(files[number], metadata, expected[files[number]])
        return found.append_column("file", pa.array([number] * len(found), type=pa.int32()))

    numbers = range(len(files))
    blocks = [
        pa.concat_tables(map(part, numbers[k : k + BATCH])).combine_chunks()
        for k in numbers[::BATCH]
    ]
    joined = pa.concat_tables(blocks)
    _refuse_twice(joined, key, files)
    return joined.sort_by([(name, "ascending") for name in key]).drop_columns("file")


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
