"""Figures as PDF files for a paper: vectors, fonts inside, equal bytes for equal data."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from iadd.artifacts import atomic_write

# TrueType fonts, which publishers ask for; the default would be Type 3.
STYLE: dict[Any, Any] = {"pdf.fonttype": 42, "font.family": "sans-serif", "font.size": 9}


Draw = Callable[[], Figure]


def write_pdf(make: Draw, path: Path) -> None:
    """Write the figure that `make` draws, atomically."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = make()
        nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
        figure.savefig(content, format="pdf", metadata=nothing)
    atomic_write(path, content.getvalue())
