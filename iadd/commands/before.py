"""The commands before anything runs: a new benchmark, what it will cost, what is installed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def _version(asked: bool) -> None:
    from iadd import __version__

    if asked:
        print(f"iadd {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Say which version it is."
        ),
    ] = False,
) -> None:
    """What may stand before a command."""


def new(
    folder: Annotated[Path, typer.Argument(help="Folder for the configuration.")],
    data: Annotated[Path, typer.Option(help="Your images: one subfolder a class.")],
) -> None:
    """Write a benchmark's configuration for your own images.

    What was found in them stands in its comments.
    """
    from iadd.pipeline.new import new

    file = new(folder, data)
    print(f"{file}: written; next: iadd plan {shlex.quote(str(file))}")


def plan(
    config: Annotated[Path, typer.Argument(help="Benchmark YAML, e.g. config/digits.yaml.")],
) -> None:
    """Check a benchmark and its data, and say what it will cost."""
    from iadd.pipeline import plan_text, stages

    plan_text.print_plan(stages.open_plan(config)[0])


def doctor() -> None:
    """Say what is installed, and which kernels run on which devices."""
    from iadd.pipeline import doctor

    doctor.print_report()
