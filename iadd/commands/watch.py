"""The command that looks on while a benchmark runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def status(
    config: Annotated[Path, typer.Argument(help="Benchmark YAML, e.g. config/digits.yaml.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say how far a benchmark is, from its files.

    It may be running on any machine that writes them.
    """
    from iadd.pipeline import stages
    from iadd.pipeline import status as watching

    found = watching.status(stages.open_plan(config)[0])
    if json:
        print(watching.as_json(found))
    else:
        watching.print_status(found)
