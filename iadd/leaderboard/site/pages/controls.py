"""Each entry against its control, as the configuration declares: a forest plot and its numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from iadd.leaderboard.controls import Pair, Panel, panels, reach
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.chart import Whisker, whiskers
from iadd.leaderboard.site.content import Content
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.site.page import Page

NAV = "Controls"


def pages(content: Content) -> Iterator[Page]:
    """A page a data set, the network and protocol shown first coming first."""
    found: dict[str, list[Panel]] = defaultdict(list)
    if content.about.controls:
        rows = (row for rows in content.comparisons.values() for row in rows)
        for panel in panels(rows, content.about.controls):
            found[panel.cell.dataset].append(panel)
    beside = places.by_dataset("controls", list(found))
    for dataset, path in beside:
        main = content.places[dataset]
        ordered = sorted(
            found[dataset],
            key=lambda p: ((p.cell.network_eval, p.cell.protocol) != main, p.cell),
        )
        context = {"panels": [_shown(panel) for panel in ordered]}
        yield Page(path, f"Against controls, {dataset}", NAV, "controls.html", context, beside)


def _shown(panel: Panel) -> dict[str, Any]:
    return {
        "title": panel.title,
        "note": panel.note + " What lies beyond the axis is drawn at its edge." * _is_cut(panel),
        "verdict": panel.verdict,
        "plot": _plot(panel),
        "table": _table(panel),
    }


def _plot(panel: Panel) -> Any:
    """Intervals that leave the axis, which goes by the median one, end at its edge."""
    edge = reach(panel.pairs) / 100

    def within(value: float) -> float:
        return min(max(value, -edge), edge)

    names = [f"{pair.found.method} against {pair.found.other}" for pair in panel.pairs]
    found = [
        Whisker(line, within(row.difference), within(row.low), within(row.high), _series(pair))
        for line, pair in enumerate(panel.pairs)
        if (row := pair.found)
    ]
    alt = f"Differences to controls with 95 % intervals, {panel.title}; the numbers are below"
    return whiskers(alt, panel.axis, names, [""], found, zero=True)


def _is_cut(panel: Panel) -> bool:
    edge = reach(panel.pairs)
    return any(100 * max(abs(p.found.low), abs(p.found.high)) > edge for p in panel.pairs)


def _series(pair: Pair) -> int:
    """Colour and mark: green square better, red diamond worse, else a blue circle."""
    return {"better": 2, "worse": 4}.get(pair.verdict, 0)


def _table(panel: Panel) -> Table:
    columns = (
        *(Column("Entry", "head"), Column("Control", "word"), Column("Seeds")),
        *(Column("Difference, points"), Column("95 % interval")),
        *(Column("p"), Column("p, corrected"), Column("Verdict", "word")),
    )
    lines = []
    for pair in panel.pairs:
        row = pair.found
        cells: list[Cell | str] = [
            Cell(row.method, places.method(row.method)),
            Cell(row.other, places.method(row.other)),
            str(row.n_seeds),
            Cell(f"{100 * row.difference:+.2f}", order=row.difference),
            Cell(f"{100 * row.low:+.2f} to {100 * row.high:+.2f}", order=row.low),
            html.number(row.p),
            html.number(pair.p),
            pair.verdict,
        ]
        lines.append(Line(cells, "top" if pair.verdict == "better" else ""))
    return Table(panel.title, columns, lines)
