"""The ranked table of one cell, and the sentence that says who is best there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from iadd.leaderboard.cells import WHOLE, Cell, cell_of
from iadd.leaderboard.measures import (
    WORDS,
    Measure,
    ceiling_below,
    imbalanced,
    other,
    ranking_measure,
    value,
)
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.savings import stored_bytes
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.html import Column, Kind, Line, Scale, Table
from iadd.leaderboard.text import (
    network_words,
    per_class,
    place_words,
    protocol_words,
    rank_range,
    troubles,
)

STATUS = {
    "measured": "",
    "submitted": "submitted, judged here",
    "published": "published",
}
"""Where a row comes from, if not from this benchmark."""

NAMED = 6
"""Methods that may be best that are named one by one."""
Named = tuple[Column, html.Cell | str]


def ranked_table(rows: Sequence[LeaderboardRow], budget: str = "") -> Table:
    """One cell's rows, best first, with a common scale for the drawn intervals."""
    scale = html.scale_of([end for row in rows for end in value(row, ranking_measure(rows))])
    shown = [list(_cells(row, rows, scale)) for row in rows]
    dropped = {
        place
        for place, (column, _) in enumerate(shown[0])
        if column.title in ("LRS", "ARS", "Published, %", "Status", "Remarks")
        and all(_empty(line[place][1]) for line in shown)
    }
    kept = [[named for k, named in enumerate(line) if k not in dropped] for line in shown]
    first = rows[0]
    words = [place_words(first), f"evaluated by {network_words(first.network_eval)}"]
    words.append(f"protocol {protocol_words(first.protocol)}")
    if imbalanced(rows):
        words.append("ranked by balanced accuracy, because the tested classes are unequal")
    if budget and first.tuned:
        words.append(f"settings found on validation data by searches of {budget} each")
    return Table(
        caption=f"{first.dataset}, {per_class(first.ipc)}",
        columns=[column for column, _ in kept[0]],
        lines=[
            Line([cell for _, cell in line], _kind(row))
            for row, line in zip(rows, kept, strict=True)
        ],
        note=" · ".join(words),
        name=places.table("ranks", cell_of(first)),
    )


def _empty(cell: html.Cell | str) -> bool:
    return (cell if isinstance(cell, str) else cell.text) in ("", html.MISSING)


def _kind(row: LeaderboardRow) -> Kind:
    if row.source == "published":
        return "published"
    if row.method == WHOLE:
        return "whole"
    return "top" if row.rank_low == 1 else ""


def _cells(row: LeaderboardRow, rows: Sequence[LeaderboardRow], scale: Scale) -> Iterator[Named]:
    """The cells of a row under their columns."""
    yield Column("Rank", "word"), rank_cell(row)
    yield Column("Method", "head"), method_cell(row)
    measure = ranking_measure(rows)
    mean, low, high = value(row, measure)
    yield Column(heading(measure)), html.percent(mean, 2)
    yield Column("95 % interval"), interval_words(row, measure)
    first, last = (f"{100 * end:.0f}" for end in scale)
    drawn = html.interval(low, mean, high, scale)
    yield Column(f"{first} to {last} %", "wide"), html.Cell("", drawn=drawn)
    yield Column("Published, %"), published_cell(row)
    if imbalanced(rows):
        beside = other(measure)
        yield Column(heading(beside)), _with_half(row, beside)
    if positive := next((r.positive for r in rows if r.positive), None):
        hint = f"recall of {positive}"
        yield Column("Sensitivity, %", hint=hint), _with_half(row, "sensitivity")
        yield Column("Specificity, %", hint=f"of {positive}"), _with_half(row, "specificity")
        hint = f"area under the ROC curve of {positive}"
        yield Column("AUROC", hint=hint), _auroc(row)
    yield Column("Seeds × networks", "word"), seeds_words(row)
    yield Column("LRS", hint="label-robust score"), html.number(row.lrs, ".3f")
    yield Column("ARS", hint="augmentation-robust score"), html.number(row.ars, ".3f")
    seconds, count = row.distill_seconds, stored_bytes(row)
    yield Column("Distilling"), html.Cell(html.duration(seconds), order=seconds)
    yield Column("Size"), html.Cell(html.size(count), order=count)
    source = f"in {row.citation}" if row.source == "published" else ""
    yield Column("Status", "text"), html.Cell(STATUS[row.source], note=source)
    remarks = [] if row.source == "published" else troubles(row, rows)
    yield Column("Remarks", "text"), ", ".join(remarks)


def rank_cell(row: LeaderboardRow) -> html.Cell:
    """The rank range; what has none is sorted last."""
    order = 1e6 if row.rank_low is None else row.rank_low + (row.rank_high or 0) / 1e4
    return html.Cell(rank_range(row).replace("-", "–"), order=order)


def method_cell(row: LeaderboardRow) -> html.Cell:
    """A method's name, which leads to its page where it was measured."""
    note = "ceiling" if row.method == WHOLE else "reconstruction" * row.reconstruction
    href = "" if row.source == "published" else places.method(row.method)
    return html.Cell(row.method, href, note)


def published_cell(row: LeaderboardRow) -> html.Cell:
    """The published value beside a measured one, and how the two stand to each other."""
    if row.published is None:
        return html.Cell()
    more = row.more_seeds
    verdict: str = row.agrees or ""
    if verdict == "undecided" and more:
        verdict += f": {more} more seed{'s' * (more != 1)} would settle it"
    elif verdict in ("lower", "higher"):
        verdict = f"measured {verdict}"
    return html.Cell(html.percent(row.published), note=verdict, order=row.published)


def heading(measure: Measure) -> str:
    """The heading of a measure's column."""
    words = WORDS[measure]
    return f"{words[:1].upper()}{words[1:]}, %"


def interval_words(row: LeaderboardRow, measure: Measure = "accuracy") -> html.Cell:
    """A row's interval in per cent; of a published value the spread that its source gives."""
    if row.source == "published" and measure == "accuracy":
        spread = row.accuracy_std
        return html.Cell(html.MISSING if spread is None else f"±{html.percent(spread)}", order="")
    _, low, high = value(row, measure)
    if low is None:
        return html.Cell()
    return html.Cell(f"{html.percent(low)} – {html.percent(high)}", order=low)


def seeds_words(row: LeaderboardRow) -> str:
    """How many seeds, and networks of each."""
    if not row.n_seeds or not row.n_networks:
        return html.MISSING
    return f"{row.n_seeds} × {row.n_networks / row.n_seeds:.3g}"


def _with_half(row: LeaderboardRow, name: str) -> html.Cell:
    mean, low, high = (getattr(row, f"{name}_{end}") for end in ("mean", "low", "high"))
    return html.Cell(html.percent(mean, 2), note=html.half_width(low, high), order=mean)


def _auroc(row: LeaderboardRow) -> html.Cell:
    spread = html.half_width(row.auroc_low, row.auroc_high, 1.0, 3)
    return html.Cell(html.number(row.auroc, ".3f"), note=spread, order=row.auroc)


class Answer(NamedTuple):
    """Who is best in a cell, in words."""

    where: str
    best: str
    how: str
    cell: Cell


def answer(rows: Sequence[LeaderboardRow]) -> Answer:
    """What one cell's table comes to."""
    first = rows[0]
    where = f"{per_class(first.ipc)}, {place_words(first)}, {network_words(first.network_eval)}"
    best = [row for row in rows if row.rank_low == 1]
    ranked = sum(row.rank_low is not None for row in rows)
    measure = ranking_measure(rows)
    ceiling = [_ceiling(row, rows) for row in rows if row.method == WHOLE]
    if not best:
        words = "No method has enough seeds without failures."
        return Answer(
            where, "No ranking", " ".join(filter(None, [words, *ceiling])), cell_of(first)
        )
    mean, low, high = max((value(row, measure) for row in best), key=lambda found: found.mean or 0)
    reached = f"{WORDS[measure]} {html.percent(mean)} %"
    if low is not None:
        reached += f" ({html.percent(low)} – {html.percent(high)})"
    names = [row.method for row in best]
    if len(names) > NAMED:
        names = [*names[: NAMED - 1], f"{len(names) - NAMED + 1} others"]
    named = html.listed(names, "or")
    if len(best) > 1:
        words = f"None of these {len(best)} is significantly better than another; "
        words += f"the highest mean: {reached}."
    elif ranked == 1:
        words = f"The only method ranked here: {reached}."
    else:
        words = f"Significantly better than every other: {reached}."
    return Answer(where, named, " ".join(filter(None, [words, *ceiling])), cell_of(first))


def _ceiling(row: LeaderboardRow, rows: Sequence[LeaderboardRow]) -> str:
    """What training on all the real data reaches, and whether a distilled set is above it."""
    mean = value(row, ranking_measure(rows)).mean
    if row.source == "published" or mean is None:
        return ""
    words = f"All the real data reach {html.percent(mean)} %"
    if above := ceiling_below(row, rows):
        words += f", less than {above[0]}: trained too short?"
    return words if words.endswith("?") else f"{words}."
