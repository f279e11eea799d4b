"""Which images belong together, a patient's for example: read from a table of files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from iadd.artifacts import parsing, regular

COLUMNS = ("file", "group")


def groups_of(table: Path, files: Sequence[str]) -> NDArray[np.str_]:
    """The group of each file (N,), by a CSV file with columns `file` and `group`.

    Args:
        files: paths as they stand in the column `file`, relative to the data's root.

    Raises:
        ValueError: one line naming the table: unreadable, other columns, a file without a group or
            with two, or none of the files.
    """
    known = _read(table.expanduser())
    missing = [file for file in files if PurePath(file) not in known]
    if len(missing) == len(files):
        raise ValueError(
            f"{table}: names none of the {len(files):,} images; its column file must hold paths "
            f"below root, like {files[0]!r}"
        )
    if missing:
        raise ValueError(f"{table}: {len(missing):,} images have no group, like {missing[0]!r}")
    return np.array([known[PurePath(file)] for file in files])


def _read(table: Path) -> dict[PurePath, str]:
    known: dict[PurePath, str] = {}
    with (
        parsing(regular(table), "table"),
        table.open(encoding="utf-8-sig", newline="") as text,
    ):
        rows = csv.DictReader(text, strict=True)
        if not {*COLUMNS} <= {*(rows.fieldnames or ())}:
            found = ", ".join(rows.fieldnames or ()) or "none"
            raise ValueError(f"{table}: needs the columns file and group, it has {found}")
        for row in rows:
            file, group = (row[column] for column in COLUMNS)
            if not file or not group:
                raise ValueError(f"{table}: line {rows.line_num}: file or group is empty")
            if known.setdefault(PurePath(file), group) != group:
                raise ValueError(f"{table}: line {rows.line_num}: {file!r} has two groups")
    return known
