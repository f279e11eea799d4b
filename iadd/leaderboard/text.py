"""The leaderboard in words: for a terminal, and what the page says of a row in the same words."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import chain, groupby

from rich import box
from rich.console import Console
from rich.table import Table

from iadd.leaderboard.cells import UNSEEN, WHOLE, Cell, cell_of
from iadd.leaderboard.measures import (
    ceiling_below,
    imbalanced,
    other,
    ranking_measure,
    value,
)
from iadd.leaderboard.rows import ComparisonRow, LeaderboardRow
from iadd.leaderboard.savings import savings_words
from iadd.leaderboard.training import training_lines

WIDTH, WIDEST = 100, 1000
"""Columns of a terminal, and of the widest table."""
HEADINGS = {"accuracy": "accuracy %", "balanced_accuracy": "balanced %"}
MARK = "*"  # beside the name of a reconstruction
NEAR_CHANCE = 0.05  # of the way from guessing to all right
REGIMES = {"hard": "hard labels", "soft": "soft labels", "soft+teacher": "soft labels of a teacher"}


def leaderboard_text(leaderboard: Sequence[LeaderboardRow], budget: str = "") -> str:
    """The leaderboard for a terminal of 100 columns: a table a cell, best first, percent.

    budget: of the searches that tuned settings come from, in words.
    """
    text, console = _terminal()
    for cell, members in groupby(leaderboard, key=cell_of):
        rows = list(members)
        console.print(cell_words(cell))
        _print(console, _leaderboard_table(rows))
        if saved := savings_words(rows):
            console.print(saved)
        if named := [row for row in rows if row.positive]:
            console.print(f"With {named[0].positive!r} as the positive class:")
            _print(console, _table([_class_words(row) for row in named]))
    console.print(
        "Where rank ranges overlap, the difference may be chance: 95 % over seeds, all pairs of a "
        "table corrected together (SPEC, section 5)."
    )
    if imbalanced(leaderboard):
        console.print(
            "Where balanced accuracy stands first, the tested classes are unequal, and it ranks."
        )
    if any(row.lrs is not None or row.ars is not None for row in leaderboard):
        console.print(
            "LRS, ARS: label- and augmentation-robust score, 0 to 1, higher is better "
            "(SPEC, section 4)."
        )
    if any(row.reconstruction for row in leaderboard):
        console.print(f"{MARK} a reconstruction from the paper, not the authors' program.")
    if any(row.source == "published" for row in leaderboard):
        console.print("Published values are not ranked; their +- is as their source has it.")
    for line in (*training_lines(leaderboard), *near_chance(leaderboard)):
        console.print(line)
    if budget and any(row.tuned for row in leaderboard):
        console.print(f"Tuned: settings found on validation data by searches of {budget} each.")
    return text.getvalue()


def comparisons_text(comparisons: Sequence[ComparisonRow], method: str) -> str:
    """How a method stands to each other one, a table a cell and score, in points.

    Raises:
        ValueError: the method is compared with none.
    """
    known = sorted({row.method for row in comparisons})
    if method not in known:
        listed = ", ".join(known) or "none (at least 3 seeds each are needed)"
        raise ValueError(f"method {method!r} is not compared here; compared: {listed}")
    text, console = _terminal()
    own = [row for row in comparisons if row.method == method]
    for cell, members in groupby(own, key=cell_of):
        # Balanced accuracy is there where it ranks.
        ranking_first = sorted(members, key=lambda row: row.score == "accuracy")
        for score, rows in groupby(ranking_first, key=lambda row: row.score):
            what = score.replace("_", " ")
            console.print(f"{method} against the others, {what}: {cell_words(cell)}")
            _print(console, _table([_comparison_words(row) for row in rows]))
    console.print(
        "Differences over common seeds with 95 % intervals; p: paired test, then corrected for all "
        "pairs of the table's methods (SPEC, section 5)."
    )
    return text.getvalue()


def _terminal() -> tuple[io.StringIO, Console]:
    text = io.StringIO()
    return text, Console(width=WIDTH, file=text, color_system=None, markup=False, highlight=False)


def _print(console: Console, table: Table) -> None:
    """A table, wider than the terminal where it would have to cut its cells."""
    console.width = WIDEST  # what is measured is never wider than the console
    console.width = max(WIDTH, console.measure(table).minimum)
    console.print(table)
    console.width = WIDTH


def cell_words(cell: Cell) -> str:
    """A cell in words: what a table's rows have in common."""
    return (
        f"{cell.dataset}, {per_class(cell.ipc)}, {place_words(cell)}, evaluated by "
        f"{network_words(cell.network_eval)}, protocol {protocol_words(cell.protocol)}"
    )


def network_words(network: str) -> str:
    """An evaluation network's name, or what stands for several."""
    return "the other networks (mean)" if network == UNSEEN else network


Words = dict[str, str]
"""A table's row: cells by their headings."""


def _leaderboard_table(rows: Sequence[LeaderboardRow]) -> Table:
    words = [_words(row, rows) for row in rows]
    hidden = {name for name in ("LRS", "ARS") if all(row[name] == "-" for row in words)}
    ranked = sum(row.source != "published" for row in rows)
    shown = [{name: cell for name, cell in row.items() if name not in hidden} for row in words]
    return _table(shown[:ranked], shown[ranked:])


def _table(*sections: Sequence[Words]) -> Table:
    """Sections of rows under common headings; the last column takes what width is left.

    The others, which are never cut, are one column for rich: it takes its time for each cell.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    *fixed, last = next(rows[0] for rows in sections if rows)
    heading = {name: name.strip() for name in fixed}
    widest = {name: max(len(row[name]) for row in (heading, *chain(*sections))) for name in fixed}

    def line(row: Words) -> str:
        left = ("rank", "method", "other")
        cells = (row[n].ljust(widest[n]) if n in left else row[n].rjust(widest[n]) for n in fixed)
        return "  ".join(cells)

    table.add_column(line(heading), no_wrap=True, width=len(line(heading)))
    table.add_column(last, overflow="fold", min_width=18)
    for rows in sections:
        table.add_section()
        for row in rows:
            table.add_row(line(row), row[last])
    return table


def _show(form: str, *values: float | None, factor: float = 1) -> str:
    known = [factor * value for value in values if value is not None]
    return form.format(*known) if len(known) == len(values) else "-"


def _words(row: LeaderboardRow, rows: Sequence[LeaderboardRow]) -> Words:
    """A row's cells by their headings; `rows` are those of its cell."""
    measure = ranking_measure(rows)
    mean, low, high = value(row, measure)
    interval = _show("{:.1f} to {:.1f}", low, high, factor=100)
    seeds = "-"
    if row.n_seeds and row.n_networks:
        seeds = f"{row.n_seeds} x {row.n_networks / row.n_seeds:.3g}"
    if row.source == "published" and measure == "accuracy":
        interval = _show("+- {:.1f}", row.accuracy_std, factor=100)
    beside = {}
    if imbalanced(rows):
        beside[HEADINGS[other(measure)]] = _show(
            "{:.1f}", value(row, other(measure)).mean, factor=100
        )
    return {
        "rank": rank_range(row),
        "method": row.method + MARK * row.reconstruction,
        HEADINGS[measure]: _show("{:.2f}", mean, factor=100),
        "95 % interval": interval,
        **beside,
        "seeds x nets": seeds,
        "LRS": _show("{:.3f}", row.lrs),
        "ARS": _show("{:.3f}", row.ars),
        "seconds": _show("{:.1f}", row.distill_seconds),
        "remark": remark(row, rows),
    }


def _class_words(row: LeaderboardRow) -> Words:
    """What a row tells of the positive class."""

    def between(low: float | None, high: float | None) -> str:
        return _show("{:.1f} to {:.1f}", low, high, factor=100)

    return {
        "method": row.method + MARK * row.reconstruction,
        "sensitivity %": _show("{:.1f}", row.sensitivity_mean, factor=100),
        "95 %": between(row.sensitivity_low, row.sensitivity_high),
        "specificity %": _show("{:.1f}", row.specificity_mean, factor=100),
        "95 % ": between(row.specificity_low, row.specificity_high),
        "AUROC": _show("{:.3f}", row.auroc),
        " 95 %": _show("{:.3f} to {:.3f}", row.auroc_low, row.auroc_high),
    }


def _comparison_words(row: ComparisonRow) -> Words:
    verdict = "not told apart"
    if row.significant:
        verdict = "better" if row.difference > 0 else "worse"
    return {
        "other": row.other,
        "seeds": str(row.n_seeds),
        "difference": f"{round(100 * row.difference, 2) + 0.0:+.2f}",  # no minus before zero
        "95 % interval": f"{100 * row.low:+.2f} to {100 * row.high:+.2f}",
        "p": f"{row.p:.3g}",
        "p, corrected": f"{row.p_holm:.3g}",
        "verdict": verdict,
    }


def near_chance(leaderboard: Sequence[LeaderboardRow]) -> Iterator[str]:
    """A line for each cell in which every method's networks hardly do better than guessing."""
    for cell, members in groupby(leaderboard, key=cell_of):
        rows = [row for row in members if row.recall and row.method != WHOLE]
        chances = [(row.balanced_accuracy_mean, 1 / len(row.recall or ())) for row in rows]
        above = [(mean - chance) / (1 - chance) for mean, chance in chances if mean is not None]
        if above and max(above) < NEAR_CHANCE:
            yield f"Near chance for every method: {cell_words(cell)}."


def place_words(row: LeaderboardRow | Cell) -> str:
    """Label regime and, where it is so, "tuned": what a table's rows have in common."""
    return REGIMES[row.label_regime] + ", tuned" * row.tuned


def protocol_words(protocol: str) -> str:
    """A protocol by its name, and what is wrong with one that looks at the test set."""
    optimistic = "best-on-test" in protocol
    return protocol + " (optimistic: chosen by test accuracy)" * optimistic


def per_class(ipc: int) -> str:
    """Images per class in words; 0 stands for the whole data."""
    if not ipc:
        return "all images"
    return f"{ipc} image{'' if ipc == 1 else 's'} a class"


def remark(row: LeaderboardRow, rows: Sequence[LeaderboardRow]) -> str:
    """What a reader must know about a row of a cell's beside its numbers, in a few words."""
    if row.source == "published":
        return f"published: {row.citation}"
    words: list[str] = [row.source] if row.source != "measured" else []
    if row.method == WHOLE:
        words.append("ceiling")
    if row.published is not None:
        words.append(agreement_words(row))
    return ", ".join([*words, *troubles(row, rows)])


def troubles(row: LeaderboardRow, rows: Sequence[LeaderboardRow]) -> list[str]:
    """What went wrong or is too little in a measured row of a cell's, in a few words each."""
    words: list[str] = []
    if row.method == WHOLE and (above := ceiling_below(row, rows)):
        words.append(f"below {above[0]}: trained too short?")
    if row.method != WHOLE and not row.n_failed and row.rank_low is None:
        words.append("few seeds")
    if row.n_diverged_runs:
        words.append(f"{row.n_diverged_runs} of {row.n_seeds} runs diverged")
    if row.n_collapsed_runs:
        words.append(f"weights collapsed in {row.n_collapsed_runs} of {row.n_seeds} runs")
    for count, what in ((row.n_diverged, "diverged"), (row.n_failed, "failed")):
        if count:
            words.append(f"{count} network{'' if count == 1 else 's'} {what}")
    return words


def agreement_words(row: LeaderboardRow) -> str:
    """How a measured row stands to the published value of its method."""
    value = f"published {100 * (row.published or 0):.1f}"
    if row.agrees == "agrees":
        return f"agrees with {value}"
    if row.agrees != "undecided":
        return f"{row.agrees} than {value}"
    more = row.more_seeds
    seeds = f" ({more} more seed{'s' * (more != 1)} would settle it)" if more else ""
    return f"undecided beside {value}{seeds}"


def rank_range(row: LeaderboardRow) -> str:
    """A leaderboard row's rank as people write it: "1", "2-5", or "-" for unranked."""
    if row.rank_low is None:
        return "-"
    return f"{row.rank_low}" if row.rank_low == row.rank_high else f"{row.rank_low}-{row.rank_high}"
