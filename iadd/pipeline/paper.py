"""What a paper takes from a benchmark: its tables, figures and references."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from iadd.artifacts import atomic_write
from iadd.leaderboard import accuracy, controls, forest, importance, paper
from iadd.leaderboard.grids import Grid, grids
from iadd.leaderboard.measures import Measure
from iadd.leaderboard.pdf import Draw, write_pdf
from iadd.leaderboard.results import read_rows
from iadd.leaderboard.rows import ComparisonRow, LeaderboardRow
from iadd.pipeline.plan import Plan
from iadd.pipeline.tables import current


def table(plan: Plan, latex: bool, measure: Measure | None = None) -> str:
    """The leaderboard as a paper's tables, in LaTeX or else in Markdown.

    measure: by which lines are sorted and bold; default: by what ranks the methods.
    """
    found = _grids(plan, measure)
    config = plan.config
    methods = {entry: config.method(entry) for entry in config.methods}
    return paper.latex(found, methods) if latex else paper.markdown(found)


def _grids(plan: Plan, measure: Measure | None = None) -> list[Grid]:
    board = read_rows(current(plan), LeaderboardRow)
    return grids(board, read_rows(plan.table("comparisons"), ComparisonRow), measure)


def write(plan: Plan, folder: Path) -> list[Path]:
    """Write tables, references and figures into a folder; the files' paths.

    Raises ValueError if the tables are not there, or were made under another configuration.
    """
    texts = {
        "tables.tex": table(plan, latex=True),
        "tables.md": table(plan, latex=False),
        "references.bib": paper.references(map(plan.config.method, plan.config.methods)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        atomic_write(folder / name, text.encode())
    figures: dict[str, Draw] = {}
    for grid in _grids(plan):
        row = grid.first
        words = row.network_eval, row.protocol, row.label_regime, *["tuned"] * row.tuned
        figures[_file(grid.measure, *words)] = partial(accuracy.draw, grid)
    comparisons = read_rows(plan.table("comparisons"), ComparisonRow)
    for panel in controls.panels(comparisons, plan.config.held_against):
        cell = panel.cell
        words = cell.dataset, str(cell.ipc), cell.network_eval, cell.protocol, cell.label_regime
        tuned = ["tuned"] * cell.tuned
        figures[_file("controls", *words, *tuned)] = partial(forest.draw, panel)
    for found in importance.summaries(plan.table("weights")):
        tuned = ["tuned"] * found.tuned
        name = _file("weights", found.dataset, str(found.ipc), found.method, *tuned)
        figures[name] = partial(importance.draw, found)
    for name, make in figures.items():
        write_pdf(make, folder / name)
    return [folder / name for name in (*texts, *figures)]


def _file(*words: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words)) + ".pdf"
