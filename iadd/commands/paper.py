"""Commands for a paper: tables as text, and all that it takes as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Argument(help="Benchmark YAML whose tables are there.")]


def table(
    config: Config,
    latex: Annotated[bool, typer.Option("--latex", help="In LaTeX.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="In Markdown, the default.")] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What lines are sorted and bold by: accuracy, balanced_accuracy, sensitivity or "
            "auroc; default: what ranks the methods, balanced_accuracy where the tested classes "
            "are unequal, else accuracy."
        ),
    ] = None,
) -> None:
    """Print the leaderboard as a paper's tables.

    Methods go down, data sets and ipc across.
    """
    from iadd.leaderboard.measures import MEASURES
    from iadd.pipeline import paper, stages

    if latex and markdown:
        raise ValueError("table: --latex and --markdown: allowed is one of them")
    measure = next((known for known in MEASURES if known == metric), None)
    if metric is not None and measure is None:
        raise ValueError(f"table: --metric {metric!r}: allowed are {', '.join(MEASURES)}")
    print(paper.table(stages.open_plan(config)[0], latex, measure), end="")


def paper(
    config: Config,
    out: Annotated[
        Path | None, typer.Option(help="Folder; default: results/<benchmark>/paper.")
    ] = None,
) -> None:
    """Write a paper's tables, figures (PDF) and references.bib.

    Tables are in LaTeX and Markdown.
    """
    from iadd.pipeline import paper, stages

    plan, _ = stages.open_plan(config)
    for path in paper.write(plan, out or plan.root / "paper"):
        print(f"{path}: written")
