"""Tables as files: what every job writes, and how the jobs' files become one table.

Accuracy is a fraction in [0, 1] everywhere; only what is printed for people shows percent. No torch
in here: a leaderboard can be made and checked on a machine that has nothing but the tables.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from iadd.artifacts import (
    SPEC_VERSION,
    atomic_write,
    canonical_json,
    parsing,
    replacing,
    size_of,
)
from iadd.leaderboard.rows import LeaderboardRow, Row, schema_of

if TYPE_CHECKING:  # jobs write their rows without paying for pandas
    import pandas as pd

Records = Sequence[Row] | Sequence[Mapping[str, Any]]
R = TypeVar("R", bound=Row)
LARGE_ROWS = 1000
"""Rows from which on a table is compressed, with dictionaries, statistics and Arrow's copy of the
schema. The few rows of a job take no more space without these, and are read in a quarter of the
time."""
SMALL_BYTES = 1 << 20
"""Bytes up to which a file is read whole before it is parsed, which is faster."""
AGAIN = "; delete it and run again"
MOST_EQUAL = 100_000
"""Rows that a table may have beyond one a byte of its file."""
PYTHON_TYPES: dict[str, type] = {"int64": Integral, "double": Real, "string": str, "bool": bool}


def write_csv(rows: Sequence[LeaderboardRow], path: Path) -> None:
    """Write the leaderboard as CSV for spreadsheets, atomically: full precision, null is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, schema_of(LeaderboardRow).names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(vars, rows))
    atomic_write(path, text.getvalue().encode())


def write_table(
    rows: Records | pa.Table, path: Path, schema: pa.Schema, metadata: Mapping[str, Any]
) -> None:
    """Write rows as one Parquet file, `metadata` as JSON in its footer: same rows, same bytes.

    Raises ValueError naming file and column for one that is missing, unknown, mistyped, null
    without leave, or an accuracy that is no fraction.
    """
    table = rows if isinstance(rows, pa.Table) else table_of(rows, schema, str(path))
    buffer = io.BytesIO()
    large = len(table) >= LARGE_ROWS
    how = dict.fromkeys(("use_dictionary", "write_statistics", "store_schema"), large)
    described, compression = _described(schema, metadata), "zstd" if large else "none"
    with pq.ParquetWriter(buffer, described, compression=compression, **how) as file:
        if not large:  # else they are part of the stored schema
            file.add_key_value_metadata(described.metadata)
        file.write_table(table.cast(described))
    atomic_write(path, buffer.getvalue())


@contextmanager
def writing_table(
    path: Path, schema: pa.Schema, metadata: Mapping[str, Any]
) -> Iterator[Callable[[pa.Table], None]]:
    """Write a large table in parts: yields `append(part)`; the file is whole or not there."""
    described = _described(schema, metadata)
    with replacing(path) as draft, pq.ParquetWriter(draft, described, compression="zstd") as file:
        yield lambda part: file.write_table(part.cast(described))


def _described(schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Schema:
    """What is written: the columns without our rules, and what the footer says."""
    plain = pa.schema([pa.field(f.name, f.type, f.nullable) for f in schema])
    return plain.with_metadata({"iadd": footer_text(schema, metadata)})


def footer_text(schema: pa.Schema, metadata: Mapping[str, Any]) -> str:
    """What a table's footer says, as JSON: its kind, the spec version, `metadata`."""
    name = schema.metadata[b"table"].decode()
    return canonical_json({"table": name, "spec_version": SPEC_VERSION, "metadata": dict(metadata)})


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
    """Read a table of `write_table`'s as a frame (see `read_arrow`).

    Integers that may be null come as pandas' Int64, never as floats. `without`: columns left out.
    """
    frame: pd.DataFrame = read_arrow(path, schema, without).to_pandas()
    nullable = [f.name for f in schema if f.nullable and f.type == pa.int64()]
    return frame.astype(dict.fromkeys((n for n in nullable if n not in without), "Int64"))


def read_rows(path: Path, row: type[R]) -> list[R]:
    """Read a table of `write_table`'s as typed rows; null is None."""
    table, rows = read_arrow(path, schema_of(row)), []
    names, columns = table.column_names, [column.to_pylist() for column in table.columns]
    for values in zip(*columns, strict=True):
        made = object.__new__(row)  # checked already; a frozen class sets field by field, slowly
        vars(made).update(zip(names, values, strict=True))
        rows.append(made)
    return rows


def read_metadata(path: Path) -> dict[str, Any]:
    """The `metadata` that was given to `write_table`."""
    return dict(footer_of(path, open_table(path, columns=[])[1])["metadata"])


def read_arrow(path: Path, schema: pa.Schema, without: Sequence[str] = ()) -> pa.Table:
    """Read a table of `write_table`'s, but for some of its columns.

    Raises ValueError naming both sides for another kind of table than the schema's.
    """
    schema = pa.schema([f for f in schema if f.name not in without], schema.metadata)
    table, text = open_table(path, schema.names if without else None)
    check_kind(path, footer_of(path, text), table.schema, schema)
    check_texts(path, table)
    return table


def check_texts(path: Path, table: pa.Table) -> None:
    """ValueError naming the file, whose texts are no texts."""
    with parsing(path, "Parquet table", AGAIN):
        table.validate(full=True)


def check_kind(path: Path, footer: Mapping[str, Any], found: pa.Schema, schema: pa.Schema) -> None:
    """ValueError for another table than the schema's, or one that was made by other rules."""
    sides = [
        ("table", str(footer.get("table")), schema.metadata[b"table"].decode()),
        ("spec version", str(footer.get("spec_version")), SPEC_VERSION),
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
    _, text = open_table(path, columns=[])
    with pq.ParquetFile(path) as file:
        check_kind(path, footer_of(path, text), file.schema_arrow.remove_metadata(), schema)
        yield from file.iter_batches(rows, columns=list(columns), use_threads=False)


def open_table(path: Path, columns: list[str] | None = None) -> tuple[pa.Table, str]:
    """A table, or some of its columns, and its footer's text; ValueError for another's file."""
    try:
        size = size_of(path)
    except ValueError:
        if path.exists():
            raise
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise ValueError(f"{path}: no such table{where}; run: iadd run CONFIG") from None
    opened = pq.ParquetFile if columns else _Unindexed
    # Not read_table, which looks for data sets of many files. Reading ahead costs small ones.
    with (
        parsing(path, "Parquet table", AGAIN),
        opened(_content(path, size), pre_buffer=False) as file,
    ):
        rows = file.metadata.num_rows  # equal values take no room: a few bytes can claim billions
        if rows > MOST_EQUAL + size:
            raise ValueError(f"it claims {rows:,} rows in {size:,} bytes")
        table = _read(file, columns)
        text = (table.schema.metadata or {}).get(b"iadd")
        if text is None:
            raise ValueError(f"{path}: not a table of ours: no 'iadd' entry in its footer")
        return table.replace_schema_metadata(None), text.decode()


class _Unindexed(pq.ParquetFile):  # type: ignore[misc]
    """A file of which all columns are read, or none: an index of them takes a tenth of a small
    one's time."""

    def _build_nested_paths(self) -> dict[str, list[int]]:
        return {}


def _read(file: pq.ParquetFile, columns: list[str] | None) -> pa.Table:
    """A row group after another: all at once, they take twice their room while they are read."""
    groups = range(file.num_row_groups)
    if len(groups) < 2:
        return file.read(columns, use_threads=False)
    parts = [file.read_row_group(k, columns, use_threads=False) for k in groups]
    return pa.concat_tables(parts)


def _content(path: Path, size: int) -> Any:
    """What to read a file by."""
    return pa.BufferReader(path.read_bytes()) if size <= SMALL_BYTES else path


def footer_of(path: Path, text: str) -> dict[str, Any]:
    """What a footer's text says: table, spec_version, metadata."""
    with parsing(path, "footer of a table", AGAIN):
        footer: dict[str, Any] = json.loads(text)
        if not isinstance(footer["metadata"], dict):
            raise ValueError("its metadata are no object")
        return footer
