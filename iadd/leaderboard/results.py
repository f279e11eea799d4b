"""Tables: what every job writes, how they are gathered, and what may be concluded from them.

Accuracy is a fraction in [0, 1] everywhere; only what is printed for people shows percent. No torch
in here: a leaderboard can be made and checked on a machine that has nothing but the tables.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from iadd.artifacts import SPEC_VERSION, atomic_write, canonical_json
from iadd.leaderboard.ranking import CELL, TUNED, WHOLE, is_null, rank_range, ranked_rows, remark
from iadd.leaderboard.statistics import augmentation_robust_score, label_robust_score

if TYPE_CHECKING:  # jobs write their rows without paying for pandas
    import pandas as pd

__all__ = [
    "EVALUATIONS",
    "LEADERBOARD",
    "SPEC_VERSION",
    "TRACES",
    "TRIALS",
    "augmentation_robust_score",
    "collect",
    "label_robust_score",
    "leaderboard_text",
    "rank",
    "read_metadata",
    "read_table",
    "write_csv",
    "write_table",
]

ALLOWED = {
    "evaluations.status": ("ok", "diverged", "failed"),
    "evaluations.label_kind": ("hard", "soft"),
    "traces.event": ("", "rollback", "diverged"),
}
PYTHON_TYPES = {"int64": Integral, "double": Real, "string": str}


def _schema(table: str, key: str, columns: str) -> pa.Schema:
    """A schema from "name:type" words (? allows null); `key` names what one job's file is about."""
    fields = []
    for word in columns.split():
        name, kind = word.rstrip("?").split(":")
        fields.append(pa.field(name, getattr(pa, kind)(), nullable=word.endswith("?")))
    return pa.schema(fields, metadata={"table": table, "key": key})


EVALUATIONS = _schema(
    "evaluations",
    "benchmark dataset ipc method label_kind network_distill protocol network_eval seed eval_seed",
    """spec_version:string protocol:string benchmark:string dataset:string ipc:int64 method:string
    label_kind:string network_distill:string network_eval:string seed:int64 eval_seed:int64
    accuracy:float64? train_accuracy:float64? status:string expert_seconds:float64?
    distill_seconds:float64? evaluate_seconds:float64? host_peak_bytes:int64?
    device_peak_bytes:int64? image_bytes:int64? label_bytes:int64? params:string
    source_hash:string git_commit:string? torch_version:string device:string""",
)
TRACES = _schema(
    "traces",
    "dataset ipc method seed",
    """dataset:string ipc:int64 method:string seed:int64 iteration:int64 loss:float64?
    loss_unweighted:float64? step_size:float64? weight_mean:float64? weight_std:float64?
    weight_min:float64? weight_max:float64? weight_effective:float64?
    validation_accuracy:float64? seconds:float64 event:string path:string""",
)
TRIALS = _schema(
    "trials",
    "benchmark dataset method ipc trial rung iteration seed",
    """benchmark:string dataset:string method:string ipc:int64 trial:int64 config:string
    rung:int64 iteration:int64 validation_accuracy:float64? seconds:float64 device:string
    status:string seed:int64 spec_version:string""",
)
# The last three columns go beyond the contract's: without them a mean hides what it leaves out.
LEADERBOARD = _schema(
    "leaderboard",
    "dataset ipc network_eval protocol method",
    """dataset:string ipc:int64 network_eval:string protocol:string method:string n_seeds:int64
    n_networks:int64 accuracy_mean:float64? accuracy_std:float64? accuracy_low:float64?
    accuracy_high:float64? rank_low:int64? rank_high:int64? lrs:float64? ars:float64?
    distill_seconds:float64? bytes:int64? source:string label_kind:string n_diverged:int64
    n_failed:int64""",
)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV for spreadsheets, atomically: full precision, null is empty."""
    atomic_write(path, frame.to_csv(index=False, lineterminator="\n").encode())


def write_table(
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    path: Path,
    schema: pa.Schema,
    metadata: Mapping[str, Any],
) -> None:
    """Write rows as one Parquet file, `metadata` as JSON in its footer: same rows, same bytes.

    Raises ValueError naming file and column for one that is missing, unknown, mistyped, null
    without leave, or an accuracy that is no fraction.
    """
    records = rows if isinstance(rows, Sequence) else _records(rows)
    unknown = sorted({name for row in records for name in row} - set(schema.names))
    if unknown:
        allowed = ", ".join(schema.names)
        raise ValueError(f"{path}: unknown column {unknown[0]!r}; allowed: {allowed}")
    name, _ = _identity(schema)
    columns = [
        _column(records, field, ALLOWED.get(f"{name}.{field.name}"), path) for field in schema
    ]
    footer = {"table": name, "spec_version": SPEC_VERSION, "metadata": dict(metadata)}
    described = schema.with_metadata({"iadd": canonical_json(footer)})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=described), buffer, compression="zstd")
    atomic_write(path, buffer.getvalue())


def _column(
    rows: Sequence[Mapping[str, Any]],
    field: pa.Field,
    allowed: tuple[str, ...] | None,
    path: Path,
) -> pa.Array:
    name, kind = field.name, PYTHON_TYPES[str(field.type)]
    values: list[Any] = []
    for number, row in enumerate(rows):
        where = f"{path}: row {number}: column {name!r}"
        if name not in row:
            raise ValueError(f"{where} is missing")
        value = None if is_null(row[name]) else row[name]  # NaN is null, before and after joining
        if value is None:
            if not field.nullable:
                raise ValueError(f"{where} must not be null")
        elif not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{where} = {value!r} must be {field.type}")  # pyarrow would cut 1.5
        elif allowed and value not in allowed:
            raise ValueError(f"{where} = {value!r} must be one of {', '.join(map(repr, allowed))}")
        elif "accuracy" in name and not 0 <= value <= 1:
            raise ValueError(f"{where} = {value} must be a fraction in [0, 1]")
        values.append(value)
    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowException, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: column {name!r} must be {field.type}: {reason}") from error


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a table of `write_table`'s; ValueError naming both sides for another kind or spec.

    Integers that may be null come as pandas' Int64, never as floats.
    """
    found, footer = _open(path)
    name, _ = _identity(schema)
    columns = (", ".join(f"{f.name}:{f.type}" for f in s) for s in (found.schema, schema))
    for side, theirs, ours in (
        ("table", footer["table"], name),
        ("spec version", footer["spec_version"], SPEC_VERSION),
        ("columns", *columns),
    ):
        if theirs != ours:
            raise ValueError(f"{path}: holds {side} {theirs!r}, expected {ours!r}")
    return _frame(found.to_pandas(), schema)


def read_metadata(path: Path) -> dict[str, Any]:
    """The `metadata` that was given to `write_table`."""
    return dict(_open(path)[1]["metadata"])


def _open(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if path.exists() else "no such file"
        raise ValueError(f"{path}: not a readable Parquet table: {reason}") from error
    text = (table.schema.metadata or {}).get(b"iadd")
    if text is None:
        raise ValueError(f"{path}: not a table of ours: no 'iadd' entry in its footer")
    return table, json.loads(text)


def _identity(schema: pa.Schema) -> tuple[str, list[str]]:
    return schema.metadata[b"table"].decode(), schema.metadata[b"key"].decode().split()


def _frame(data: Any, schema: pa.Schema) -> pd.DataFrame:
    import pandas as pd

    kinds = {"double": "float64", "int64": "Int64"}
    nullable = {f.name: kinds[str(f.type)] for f in schema if f.nullable and str(f.type) in kinds}
    return pd.DataFrame(data, columns=schema.names).astype(nullable)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return cast(list[dict[str, Any]], rows)


def collect(paths: Iterable[Path], out: Path, schema: pa.Schema) -> pd.DataFrame:
    """Join one small file a job into one table sorted by the schema's key, and write it to `out`.

    The order of `paths` does not show in the result; rows of one key keep their file's order (a
    trace is a history). Raises ValueError naming both files when two are about the same thing.
    """
    import pandas as pd

    table, key = _identity(schema)
    owner: dict[tuple[Any, ...], Path] = {}
    frames = []
    for path in sorted(set(paths)):
        frame = read_table(path, schema)
        for identity in frame[key].drop_duplicates().itertuples(index=False, name=None):
            if other := owner.get(identity):
                named = ", ".join(f"{k} {v}" for k, v in zip(key, identity, strict=True))
                raise ValueError(f"{path} and {other} both hold {named}: keep one of them")
            owner[identity] = path
        frames.append(frame)
    if not frames:
        raise ValueError(f"{out}: no {table} files to collect")
    joined = pd.concat(frames).sort_values(key, kind="stable", ignore_index=True)
    write_table(joined, out, schema, {"files": len(frames)})
    return joined


def rank(evaluations: pd.DataFrame, min_seeds: int = 3, resamples: int = 2000) -> pd.DataFrame:
    """The leaderboard (LEADERBOARD's columns) from EVALUATIONS' columns: see `ranking.ranked_rows`.

    Sorted by dataset, protocol, network_eval, ipc; then best first, the unranked, `whole` last.
    """
    frame = _frame(ranked_rows(_records(evaluations), min_seeds, resamples), LEADERBOARD)
    frame["last"] = frame["method"] == WHOLE
    order = ["dataset", "protocol", "network_eval", "ipc", "last", "rank_low", "rank_high"]
    frame = frame.sort_values("accuracy_mean", ascending=False, kind="stable")
    return frame.sort_values(order, kind="stable", ignore_index=True).drop(columns="last")


def leaderboard_text(leaderboard: pd.DataFrame, budget: str = "") -> str:
    """The leaderboard for a terminal of 100 columns: a table a cell, best first, percent.

    budget: of the searches that tuned settings come from, in words.
    """
    text = io.StringIO()
    console = Console(width=100, file=text, color_system=None, markup=False, highlight=False)
    rows = _records(leaderboard)
    for cell, members in groupby(rows, key=lambda row: [row[name] for name in CELL]):
        dataset, ipc, network, protocol = cell
        images = f"{ipc} image{'s' * (ipc != 1)} a class"
        table = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left"
        )
        table.title = f"{dataset}, {images}, evaluated by {network}, protocol {protocol}"
        for heading in ("rank", "method"):
            table.add_column(heading, no_wrap=True)
        for heading in ("accuracy %", "95 % interval", "seeds x nets", "LRS", "ARS", "seconds"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("remark")
        for row in members:
            table.add_row(*_words(row))
        console.print(table)
    console.print(
        "Where rank ranges overlap, the difference may be chance: 95 % intervals, over seeds."
    )
    if budget and any(row["protocol"].endswith(TUNED) for row in rows):
        console.print(f"{TUNED}: settings found on validation data by searches of {budget} each.")
    return text.getvalue()


def _words(row: Mapping[str, Any]) -> list[str]:
    def show(form: str, *values: Any) -> str:
        return "-" if any(map(is_null, values)) else form.format(*values)

    mean, low, high = (
        None if is_null(row[name]) else 100 * row[name]
        for name in ("accuracy_mean", "accuracy_low", "accuracy_high")
    )
    return [
        rank_range(row),
        row["method"],
        show("{:.2f}", mean),
        show("{:.1f} to {:.1f}", low, high),
        f"{row['n_seeds']} x {row['n_networks'] / row['n_seeds']:.3g}",
        show("{:.3f}", row["lrs"]),
        show("{:.3f}", row["ars"]),
        show("{:.1f}", row["distill_seconds"]),
        remark(row),
    ]
