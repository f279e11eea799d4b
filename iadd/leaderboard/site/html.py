"""Tables and figures of numbers as HTML: the one place where text from files becomes markup.

Whatever a table or a file holds is escaped here or by the templates; nothing else writes markup of
values that were read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from html import escape
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from iadd.leaderboard.savings import size_words, time_words

MISSING = "–"
LONGEST_NAME = 100


class Column(NamedTuple):
    """A column: its heading, what its cells are, and whether scripts offer its values as a filter.

    kind: `head` names the row; `word` stands to the left, `text` too and is broken into lines,
    `number` to the right and is sorted as one; `wide` holds a drawn interval. end: in a grid, what
    the numbers are of an interval, which scripts draw beside.
    """

    title: str
    kind: Literal["head", "word", "text", "number", "wide"] = "number"
    filter: bool = False
    hint: str = ""
    end: Literal["", "low", "mean", "high"] = ""


class Cell(NamedTuple):
    """A cell: text, the site's page that it leads to, small words beside, what it is sorted by.

    shade: in [0, 1], how strongly the cell is coloured; tone: as what; drawn: markup of this
    module's `interval`.
    """

    text: str = MISSING
    href: str = ""
    note: str = ""
    order: float | str | None = None
    shade: float | None = None
    tone: Literal["", "good", "bad"] = ""
    drawn: Markup = Markup()


Kind = Literal["", "top", "whole", "published"]


class Line(NamedTuple):
    """A row of a table: its cells (text alone stands for a plain cell) and how it is set apart."""

    cells: Sequence[Cell | str]
    kind: Kind = ""


class Table(NamedTuple):
    """A table with its caption; `note` is the quieter part of it.

    name: unique in its page, where a link can lead to it; the file name of its CSV, which scripts
    offer of tables with a name. `grid`: scripts add filters, search, pages and permalinks, and its
    cells have no shades. A column to filter by that is alike in all rows stands above the table
    instead. Every table can be sorted. A page has at most one grid.
    """

    caption: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    note: str = ""
    name: str = ""
    grid: bool = False


MARKUP = 6
"""About the bytes of a grid's cell beside its words."""


def parts(table: Table, most: int) -> list[Table]:
    """A grid cut into grids of at most about so many bytes."""
    alike = _alike(table)
    kept = [place for place in range(len(table.columns)) if place not in alike]
    cuts, size = [0], 0
    for place, line in enumerate(table.lines):
        own = sum(MARKUP + _length(line.cells[k]) for k in kept)
        if size + own > most and size:
            cuts.append(place)
            size = 0
        size += own
    ends = [*cuts[1:], len(table.lines)]
    return [table._replace(lines=table.lines[a:b]) for a, b in zip(cuts, ends, strict=True)]


def _length(cell: Cell | str) -> int:
    if isinstance(cell, str):
        return len(cell)
    order = 0 if cell.order is None else 14 + len(str(cell.order))
    link = 15 + len(cell.href) if cell.href else 0
    return len(cell.text) + link + order + (30 + len(cell.note) if cell.note else 0)


_safe = lru_cache(2**16)(partial(escape, quote=True))
"""Text as markup; the same few names and numbers come again and again."""


def render(table: Table, root: str = "") -> Markup:
    """A table as HTML; `root` leads from its page to the site's folder."""
    alike = _alike(table)
    if alike:
        table = _without(table, alike)
    caption = _safe(table.caption)
    note = f" <span>{_safe(table.note)}</span>" if table.note else ""
    name = f' id="{_safe(table.name)}"' if table.name else ""
    if alike and table.grid:
        name += f' data-alike="{_safe(json.dumps(list(alike.values())))}"'
    heads = "".join(_heading(column) for column in table.columns)
    body = "\n".join(_line(line, table, root) for line in table.lines)
    whole = (
        f'<table{name} class="{"grid" if table.grid else "plain"}">'
        f"<caption><div>{caption}{note}</div></caption>"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    )
    if table.grid:  # to scripts this is text, of which they make those rows that are seen
        whole = f"<noscript>{whole}</noscript>"
    region = f'<div class="card scroll" tabindex="0" role="region" aria-label="{caption}">'
    return Markup(f"{region}{whole}</div>")  # all parts are escaped


def _alike(table: Table) -> dict[int, tuple[str, str]]:
    """Columns with one value in all of several rows, to filter by or missing: heading and value."""
    found = {}
    for place, column in enumerate(table.columns):
        values = {text_of(line.cells[place]) for line in table.lines}
        told = column.filter or (table.grid and values == {MISSING})
        if told and len(values) == 1 and len(table.lines) > 1 and column.kind != "head":
            found[place] = column.title, values.pop()
    return found


def text_of(cell: Cell | str) -> str:
    """What a cell says, without its note."""
    return cell if isinstance(cell, str) else cell.text


def _without(table: Table, alike: Mapping[int, tuple[str, str]]) -> Table:
    """The table without these columns, which its note tells of instead."""
    kept = [place for place in range(len(table.columns)) if place not in alike]
    told = [f"{title.lower()}: {value}" for title, value in alike.values() if value != MISSING]
    return table._replace(
        columns=[table.columns[place] for place in kept],
        lines=[Line([line.cells[k] for k in kept], line.kind) for line in table.lines],
        note=" · ".join(filter(None, [table.note, *told])),
    )


def _heading(column: Column) -> str:
    title = _safe(column.title).replace(", %", ",&nbsp;%")  # no line has the sign alone
    if column.hint:
        title = f'<abbr title="{_safe(column.hint)}">{title}</abbr>'
    chosen = ' data-filter=""' if column.filter else ""
    chosen += f' data-end="{column.end}"' if column.end else ""
    return f'<th scope="col" class="{column.kind}"{chosen}>{title}</th>'


def _line(line: Line, table: Table, root: str) -> str:
    """A row. Those of a grid may be ten thousand: they have neither end tags nor classes."""
    cells = "".join(
        _cell(cell if isinstance(cell, Cell) else Cell(cell), column, root, table.grid)
        for cell, column in zip(line.cells, table.columns, strict=True)
    )
    start = f'<tr class="{line.kind}">' if line.kind else "<tr>"
    return start + cells + ("" if table.grid else "</tr>")


def _cell(cell: Cell, column: Column, root: str, bare: bool) -> str:
    inside = _safe(cell.text)
    if cell.href:
        inside = f'<a href="{root}{_safe(cell.href)}">{inside}</a>'
    if cell.note:
        inside += f' <span class="note">{_safe(cell.note)}</span>'
    more = ""
    order = cell.order
    if order is None and column.kind == "number" and cell.text == MISSING and not bare:
        order = ""  # below every number, as scripts have it of grids anyway
    if order is not None:
        more += f' data-order="{_safe(str(order))}"'
    if cell.shade is not None and math.isfinite(cell.shade):
        more += f' style="--shade:{cell.shade:.2f}"'
    if column.kind == "head":
        return f'<th scope="row"{more}>{inside}{cell.drawn}' + ("" if bare else "</th>")
    if bare:
        return f"<td{more}>{inside}{cell.drawn}"
    kind: str = "" if column.kind == "number" else column.kind
    if cell.tone or cell.shade is not None:
        kind = f"{kind} {cell.tone or 'shade'}".lstrip()
    plain = f' class="{kind}"' if kind else ""
    return f"<td{plain}{more}>{inside}{cell.drawn}</td>"


def interval(low: float | None, mean: float | None, high: float | None, scale: Scale) -> Markup:
    """A drawn interval with its mean, in per cent of the width of `scale`; for the eye alone."""
    first, last = scale
    per = 100 / (last - first)
    parts = ""
    if low is not None and high is not None:
        parts += f'<i style="left:{(low - first) * per:.2f}%;width:{(high - low) * per:.2f}%"></i>'
    if mean is not None:
        parts += f'<b style="left:{(mean - first) * per:.2f}%"></b>'
    return Markup(f'<span class="track" aria-hidden="true">{parts}</span>')


Scale = tuple[float, float]


def scale_of(values: Sequence[float | None], step: float = 0.05) -> Scale:
    """The range of some fractions in whole steps, at least one wide."""
    known = [value for value in values if value is not None] or [0.0, 1.0]
    low, high = math.floor(min(known) / step), math.ceil(max(known) / step)
    return low * step, max(high, low + 1) * step


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent."""
    return MISSING if value is None or value != value else f"{100 * value:.{digits}f}"


def half_width(low: float | None, high: float | None, unit: float = 100.0, digits: int = 1) -> str:
    """Half of an interval's width, in points; of one that was cut at 0 or 100 %, its ends.

    unit: what a whole is written as, 100 for per cent. digits: decimals of the half.
    """
    if low is None or high is None:
        return ""
    if low <= 0 or high >= 1:
        return f"{unit * low:.{digits - 1}f} to {unit * high:.{digits - 1}f}"
    return f"±{unit * (high - low) / 2:.{digits}f}"


def number(value: float | None, form: str = ".3g") -> str:
    """A number, or the sign of a missing one."""
    return MISSING if value is None or value != value else format(value, form)


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names as a sentence has them."""
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def setting(value: Any) -> str:
    """A setting of a method, as it came from JSON, in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)


def duration(seconds: float | None) -> str:
    """Seconds in the unit that people would use."""
    if seconds is None or seconds != seconds:
        return MISSING
    if 0 < seconds < 1:
        return time_words(seconds)
    units = ((120, 1, "{:.1f} s"), (600, 60, "{:.1f} min"), (7200, 60, "{:.0f} min"))
    for limit, unit, form in units:
        if seconds < limit:
            return form.format(seconds / unit)
    return f"{seconds / 3600:.1f} h"


def size(count: float | None) -> str:
    """Bytes in the unit that people would use."""
    if count is None or count != count:
        return MISSING
    return size_words(count)


def slug(name: str) -> str:
    """A name as part of a file's name and of an address: the same for no two names.

    What the configuration allows in names stays as it is; tables may hold anything.
    """
    coded = re.sub(
        r"[^\w.-]|^\.", lambda m: "".join(f"={b:02x}" for b in m[0].encode()), name, flags=re.ASCII
    )
    if len(coded) <= LONGEST_NAME:
        return coded
    return f"{coded[: LONGEST_NAME - 17]}={sha256(name.encode()).hexdigest()[:16]}"
