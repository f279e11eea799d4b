"""Entries held against their controls, as a benchmark's configuration declares them.

Which pairs are compared stands there (`controls`), so it was settled before anything was measured,
and only these comparisons are corrected for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from iadd.leaderboard.cells import Cell, cell_of
from iadd.leaderboard.measures import WORDS
from iadd.leaderboard.rows import ComparisonRow
from iadd.leaderboard.statistics import LEVEL, holm
from iadd.leaderboard.text import cell_words

OUTLYING = 4.0
"""Intervals are cut at so many times the median reach."""


@dataclass(frozen=True)
class Pair:
    """One entry against its control in one cell; p is corrected for the cell's declared pairs."""

    found: ComparisonRow
    p: float

    @property
    def verdict(self) -> str:
        """better, worse, or not told apart (at 5 %), and whether that is the correction's doing."""
        if self.p >= LEVEL:
            return "not told apart" if self.found.p >= LEVEL else "only before correction"
        return "better" if self.found.difference > 0 else "worse"

    @property
    def words(self) -> str:
        """Difference and interval in points, and the verdict."""
        row = self.found
        difference = round(100 * row.difference, 2) + 0.0  # no minus before zero
        between = f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"
        return f"{difference:+.2f} ({between}), {self.verdict}"


@dataclass(frozen=True)
class Panel:
    """What is known of the declared pairs in one cell, by control."""

    cell: Cell
    pairs: tuple[Pair, ...]

    @property
    def title(self) -> str:
        return cell_words(self.cell)

    @property
    def axis(self) -> str:
        """What the differences are of."""
        return f"points of test {WORDS[self.pairs[0].found.score]}, entry minus control"

    @property
    def groups(self) -> dict[str, list[Pair]]:
        """Control -> its pairs, in the declared order."""
        found: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            found.setdefault(pair.found.other, []).append(pair)
        return found

    @property
    def verdict(self) -> str:
        """What comes out, in a sentence."""
        by_verdict: dict[str, list[str]] = {}
        for pair in self.pairs:
            named = f"{pair.found.method} against {pair.found.other}"
            by_verdict.setdefault(pair.verdict, []).append(named)
        order = ("better", "worse", "only before correction", "not told apart")
        parts = [f"{v}: {', '.join(by_verdict[v])}" for v in order if v in by_verdict]
        words = "; ".join(parts)
        return f"{words[0].upper()}{words[1:]}."

    @property
    def note(self) -> str:
        """How to read it, in a sentence or two."""
        seeds = sorted({pair.found.n_seeds for pair in self.pairs})
        over = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
        return (
            f"Difference of test {WORDS[self.pairs[0].found.score]} to the control, in points, "
            f"over {over} paired seeds, with 95 % intervals. Verdicts at 5 %, corrected by Holm's "
            f"method for these {len(self.pairs)} comparisons, which the configuration declares."
        )


def panels(comparisons: Iterable[ComparisonRow], declared: Iterable[Sequence[str]]) -> list[Panel]:
    """A panel for each cell in which a declared pair was compared, by the measure that ranks there.

    declared: entries and their controls, in the order of the plot.
    """
    order = [(entry, control) for entry, control in declared]
    cells: dict[Cell, dict[tuple[str, str], ComparisonRow]] = {}
    for row in sorted(comparisons, key=lambda row: row.score):  # the last one that is there ranks
        if (row.method, row.other) in order:
            cells.setdefault(cell_of(row), {})[row.method, row.other] = row
    found = []
    for cell, rows in cells.items():
        ordered = [rows[pair] for pair in order if pair in rows]
        corrected = holm([row.p for row in ordered])
        pairs = (Pair(row, p) for row, p in zip(ordered, corrected, strict=True))
        found.append(Panel(cell, tuple(pairs)))
    return found


def reach(pairs: Sequence[Pair]) -> float:
    """How far the axis goes, in points: one failed entry shall not flatten all others."""
    ends = sorted(100 * max(-pair.found.low, pair.found.high) for pair in pairs)
    return 1.1 * min(ends[-1], OUTLYING * ends[len(ends) // 2])


def controls_text(found: Sequence[Panel]) -> str:
    """The panels for a terminal, a line a pair."""
    lines = []
    for panel in found:
        lines += [f"Against controls: {panel.title}", panel.note]
        names = [f"{pair.found.method} against {pair.found.other}" for pair in panel.pairs]
        width = max(map(len, names))
        lines += [f"  {n:{width}}  {p.words}" for n, p in zip(names, panel.pairs, strict=True)]
    return "\n".join(lines)
