"""Where submitted sets come from: what their makers say of themselves, what their files hold."""

from __future__ import annotations

from collections.abc import Iterator

from iadd.leaderboard.provenance import SubmissionRow
from iadd.leaderboard.results import read_rows
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.content import Content
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.site.page import Page, tables_page

NAV = "Submissions"
LEAD = (
    "Sets that others made, judged here like the benchmark's own. Authors, paper and description "
    "are the makers' own words, which nobody verified; the rest was found in the files."
)
COLUMNS = (
    Column("Method", "head"),
    Column("Data set", "word", filter=True),
    Column("Images a class"),
    Column("Seed"),
    Column("Authors", "text"),
    Column("Paper", "text"),
    Column("About", "text"),
    Column("Labels", "word"),
    Column("Size"),
    Column("File", "word"),
    Column("SHA-256", "text"),
)


def pages(content: Content) -> Iterator[Page]:
    """One page, where something was submitted."""
    path = content.tables.get("submissions")
    rows = read_rows(path, SubmissionRow) if path else []
    if rows:
        table = Table("Submitted sets", COLUMNS, [_line(row) for row in rows], grid=True)
        yield tables_page(
            "submissions.html", NAV, NAV, table._replace(name="submissions"), lead=LEAD
        )


def _line(row: SubmissionRow) -> Line:
    paper = " · ".join(part for part in (row.paper, row.url) if part)
    size = row.image_bytes + row.label_bytes
    return Line(
        [
            Cell(row.method, places.method(row.method)),
            row.dataset,
            str(row.ipc),
            str(row.seed),
            row.authors or html.MISSING,
            paper or html.MISSING,
            row.about or html.MISSING,
            row.label_kind,
            Cell(html.size(size), order=size),
            row.file,
            row.sha256,
        ]
    )
