"""What a command that fails says."""

from __future__ import annotations

import shlex
import sys

from iadd.artifacts import one_line


def message(error: ValueError) -> str:
    """An error in one line, in which a command to run next names the benchmark that was given."""
    line = one_line(str(error))
    given = next((word for word in sys.argv[1:] if word.endswith((".yaml", ".yml"))), None)
    return line.replace(" CONFIG", f" {shlex.quote(given)}") if given else line
