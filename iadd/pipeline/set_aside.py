"""Results that a job could not read are set aside, so that Snakemake makes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ASIDE = ".set-aside"
UNREADABLE = re.compile(r"iadd: (.+?): .*; delete it and run again")
"""What readers say of a file that is damaged, or was made by other settings."""


def set_aside(root: Path, reasons: Iterable[str]) -> list[Path]:
    """Rename the files below `root` that jobs could not read, by what they said last.

    Nothing is deleted: a file stays beside its place until the next one that is set aside there.
    """
    found = []
    for line in reasons:
        told = UNREADABLE.fullmatch(line.strip())
        path = Path(told[1]) if told else root
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            path.replace(path.with_name(path.name + ASIDE))
            found.append(path)
    return found
