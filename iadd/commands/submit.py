"""The commands by which submissions are checked and become a leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="submit",
    help="Distilled sets that others hand in: check them, judge them all.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Paths = Annotated[
    list[Path],
    typer.Argument(
        help="Folders with a submission.yaml and its .safetensors files, or folders of those."
    ),
]
Benchmark = Annotated[Path, typer.Option("--config", help="The benchmark that judges them.")]


@app.command()
def check(paths: Paths, config: Benchmark) -> None:
    """Check submissions against a benchmark; trains nothing.

    Metadata, budget of images and bytes, shapes, transform, a line each.

    Status 2 where one is refused.
    """
    from iadd.pipeline import stages, submissions

    plan, _ = stages.open_plan(config)
    accepted, refused = submissions.check_all(paths, plan)
    print(f"{len(accepted)} accepted, {len(refused)} refused")
    if refused:
        sys.exit(2)


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_all(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder of submissions.")],
    config: Benchmark,
    cores: Annotated[int, typer.Option(min=0, help="Jobs' cores in all; 0: what it may use.")] = 0,
) -> None:
    """Check submissions and run the benchmark with the accepted ones."""
    from iadd.commands import main
    from iadd.pipeline import stages, submissions
    from iadd.pipeline.run import run

    plan, _ = stages.open_plan(config)
    board = submissions.board([folder], config, plan)
    print(f"{board}: this benchmark and the submissions; tables and site become those of it")
    sys.exit(run(board, cores, context.args, main))
