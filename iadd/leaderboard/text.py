"""The leaderboard in words: for a terminal, and what the page says of a row in the same words."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from iadd.leaderboard.ranking import WHOLE, cell_of
from iadd.leaderboard.rows import LeaderboardRow

MARK = "*"  # beside the name of a reconstruction
IMBALANCED = 2.0  # from here on accuracy and balanced accuracy say different things
REGIMES = {"hard": "hard labels", "soft": "soft labels", "soft+teacher": "soft labels of a teacher"}


def leaderboard_text(leaderboard: Sequence[LeaderboardRow], budget: str = "") -> str:
    """The leaderboard for a terminal of 100 columns: a table a cell, best first, percent.

    budget: of the searches that tuned settings come from, in words.
    """
    text = io.StringIO()
    console = Console(width=100, file=text, color_system=None, markup=False, highlight=False)
    for _, members in groupby(leaderboard, key=cell_of):
        rows = list(members)
        first = rows[0]
        console.print(
            f"{first.dataset}, {per_class(first.ipc)}, {place_words(first)}, evaluated by "
            f"{first.network_eval}, protocol {protocol_words(first.protocol)}"
        )
        console.print(_table(rows))
    console.print(
        "Where rank ranges overlap, the difference may be chance: 95 % over seeds, all pairs of a "
        "table corrected together (SPEC, section 5)."
    )
    if any(row.reconstruction for row in leaderboard):
        console.print(f"{MARK} a reconstruction from the paper, not the authors' program.")
    if budget and any(row.tuned for row in leaderboard):
        console.print(f"Tuned: settings found on validation data by searches of {budget} each.")
    return text.getvalue()


def _table(rows: Sequence[LeaderboardRow]) -> Table:
    words = [_words(row) for row in rows]
    hidden = {name for name in ("LRS", "ARS") if all(row[name] == "-" for row in words)}
    if not imbalanced(rows):
        hidden.add("balanced %")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown = [name for name in words[0] if name not in hidden]
    for name in shown[:-1]:
        left = name in ("rank", "method")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    table.add_column("remark", overflow="fold", min_width=8)
    for row in words:
        table.add_row(*(row[name] for name in shown))
    return table


def _words(row: LeaderboardRow) -> dict[str, str]:
    """A row's cells by their headings."""

    def show(form: str, *values: float | None, factor: float = 1) -> str:
        known = [factor * value for value in values if value is not None]
        return form.format(*known) if len(known) == len(values) else "-"

    return {
        "rank": rank_range(row),
        "method": row.method + MARK * row.reconstruction,
        "accuracy %": show("{:.2f}", row.accuracy_mean, factor=100),
        "95 % interval": show("{:.1f} to {:.1f}", row.accuracy_low, row.accuracy_high, factor=100),
        "balanced %": show("{:.2f}", row.balanced_accuracy_mean, factor=100),
        "seeds x nets": f"{row.n_seeds} x {row.n_networks / row.n_seeds:.3g}",
        "LRS": show("{:.3f}", row.lrs),
        "ARS": show("{:.3f}", row.ars),
        "seconds": show("{:.1f}", row.distill_seconds),
        "remark": remark(row),
    }


def imbalanced(rows: Sequence[LeaderboardRow]) -> bool:
    """Whether the test set's classes differ so much that balanced accuracy has to be shown."""
    return any((row.test_imbalance or 1.0) >= IMBALANCED for row in rows)


def place_words(row: LeaderboardRow) -> str:
    """Label regime and, where it is so, "tuned": what a table's rows have in common."""
    return REGIMES[row.label_regime] + ", tuned" * row.tuned


def protocol_words(protocol: str) -> str:
    """A protocol by its name, and what is wrong with one that looks at the test set."""
    optimistic = "best-on-test" in protocol
    return protocol + " (optimistic: chosen by test accuracy)" * optimistic


def per_class(ipc: int) -> str:
    """Images per class in words."""
    return f"{ipc} image{'' if ipc == 1 else 's'} a class"


def remark(row: LeaderboardRow) -> str:
    """What a reader must know about a leaderboard row beside its numbers, in a few words."""
    words: list[str] = []
    if row.source != "measured":
        words.append(row.source)
    if row.method == WHOLE:
        words.append("ceiling")
    elif not row.n_failed and row.rank_low is None:
        words.append("few seeds")
    if row.n_diverged_runs:
        words.append(f"{row.n_diverged_runs} of {row.n_seeds} runs diverged")
    for count, what in ((row.n_diverged, "diverged"), (row.n_failed, "failed")):
        if count:
            words.append(f"{count} network{'' if count == 1 else 's'} {what}")
    return ", ".join(words)


def rank_range(row: LeaderboardRow) -> str:
    """A leaderboard row's rank as people write it: "1", "2-5", or "-" for unranked."""
    if row.rank_low is None:
        return "-"
    return f"{row.rank_low}" if row.rank_low == row.rank_high else f"{row.rank_low}-{row.rank_high}"
