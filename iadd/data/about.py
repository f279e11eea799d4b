"""What is known of prepared data: `about.json`, small, and equal bytes for equal data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from iadd.artifacts import SPEC_VERSION, atomic_write, parsing, read_json

ABOUT, BESIDE = "about.json", "beside.json"
DATA, AGAIN = "description of prepared data", "; delete it and run again"
FORMS = {"standard": "normalised a channel", "zca": "whitened (ZCA)", "none": "not normalised"}
LISTED = 20  # classes that people are shown
PARTS = ("train", "validation", "test")
TOLD = ("left_out", "notes", "positive", "label")  # in BESIDE: no part of the data


@dataclass(frozen=True)
class About:
    """The facts of a dataset.

    `counts`: images of each class in `train`, `validation` and `test`. `transform`: its kind.
    `augmentation`: families. `values`: what pixel values were, e.g. (0, 4095). `remarks`: what a
    reader of the tables should know.

    These are kept in `beside.json`, since they are no part of the data, and what was made from the
    data stays as it is when they change. `left_out`: what lies beside the images and was not read.
    `notes`: what whoever has the files may want to look at. `positive`: the class that sensitivity
    and specificity speak of; None: none was named. `label`: what a benchmark calls the
    data; None: their name.
    """

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    channels: int
    resolution: int
    transform: str
    augmentation: tuple[str, ...]
    values: tuple[float, float]
    remarks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    positive: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if {*self.counts} != {*PARTS} or {*map(len, self.counts.values())} != {
            len(self.class_names)
        }:
            raise ValueError(f"{self.title}: needs a count of each class in {', '.join(PARTS)}")
        if self.positive is not None and self.positive not in self.class_names:
            known = ", ".join(self.class_names)
            raise ValueError(
                f"{self.title}: positive {self.positive!r} is no class; known: {known}"
            )

    @property
    def title(self) -> str:
        """What messages call the data."""
        return self.label or self.name

    def lines(self) -> list[str]:
        """For people: form and values, images a class, remarks, what was left out."""
        colour = "grey" if self.channels == 1 else "colour"
        side, (low, high) = self.resolution, self.values
        width = max(len(name) for name in (*self.class_names, "class"))
        rows = list(zip(self.class_names, *self.counts.values(), strict=True))
        if len(rows) > LISTED:  # the rarest
            rows = sorted(rows, key=lambda row: row[1])[:LISTED]
        left = len(self.class_names) - len(rows)
        return [
            f"{self.title}: {side}x{side} {colour}, values {low:g} to {high:g}, "
            + FORMS[self.transform],
            "  ".join([f"{'class':{width}}", *(f"{part:>10}" for part in self.counts)]),
            *("  ".join([f"{row[0]:{width}}", *(f"{n:10,}" for n in row[1:])]) for row in rows),
            *([f"and {left} classes with more training images"] if left else []),
            *self.told(),
            *([] if self.positive is None else [f"positive class: {self.positive}"]),
        ]

    def told(self) -> list[str]:
        """What people should know before anything runs: remarks, notes, what was left out."""
        return [*self.remarks, *self.notes, *(f"not read: {what}" for what in self.left_out)]

    def write(self, folder: Path) -> None:
        """Write `beside.json` and, last, `about.json`."""
        facts = {"spec_version": SPEC_VERSION, **asdict(self)}
        _write(folder / BESIDE, {key: facts.pop(key) for key in TOLD})
        _write(folder / ABOUT, facts)


def read_about(folder: str | Path) -> About:
    """Read the facts of the data that `prepare` put into a folder.

    Raises:
        ValueError: one line if there is no such file, or it is of another version or damaged.
    """
    path = Path(folder) / ABOUT
    if not path.exists():
        raise ValueError(f"{path}: no such file; prepare the data first (iadd data)")
    facts = read_json(path, DATA, AGAIN)
    with parsing(path, DATA, AGAIN):
        version = facts.pop("spec_version")
        if version != SPEC_VERSION:
            raise ValueError(f"spec_version is {version!r}, this program reads {SPEC_VERSION!r}")
        if {*facts} != {field.name for field in fields(About)} - {*TOLD}:
            raise ValueError("other keys than it should have")
        beside = path.with_name(BESIDE)
        facts |= read_json(beside) if beside.exists() else {}
        return _checker().validate_python(facts)


@cache
def _checker() -> TypeAdapter[About]:
    """Checks the types of all facts."""
    return TypeAdapter(About)


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write(path, f"{text}\n".encode())
