"""Sites of made-up tables, and a parser that finds what is in their pages."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from made_up_tables import Row, table

from iadd.leaderboard.beside import beside
from iadd.leaderboard.columns import judged_of
from iadd.leaderboard.ranking import rank
from iadd.leaderboard.results import write_table
from iadd.leaderboard.rows import COMPARISONS, EVALUATIONS, LEADERBOARD, TRACES, TRIALS
from iadd.leaderboard.site import RunKey, Search, build_site

VOID = {"meta", "img", "br", "link", "input", "hr", "path"}
UNCLOSED = {"tr", "td", "th"}
"""Elements whose end tags HTML lets one leave out, which grids do."""


def picture(path: Path, width: int = 90, height: int = 9) -> Path:
    """A PNG file of one colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + b"\x80" * width for _ in range(height))))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    return path


def write_tables(
    folder: Path,
    rows: Sequence[Row],
    history: Sequence[Row] = (),
    trials: Sequence[Row] = (),
    positive: Any = None,
    **about: Any,
) -> dict[str, Path]:
    """The tables that a site is made from, as `build_site` takes them."""
    paths = {
        name: folder / f"{name}.parquet"
        for name in ("leaderboard", "comparisons", "evaluations", "traces", "trials")
    }
    write_table(rows, paths["evaluations"], EVALUATIONS, {})
    write_table(history, paths["traces"], TRACES, {})
    write_table(trials, paths["trials"], TRIALS, {})
    board, comparisons = rank(judged_of([table(rows)]), positive=positive)
    board = beside(board, {"cifar10": "cifar10"})
    write_table(board, paths["leaderboard"], LEADERBOARD, {"about": {"title": "made up"} | about})
    write_table(comparisons, paths["comparisons"], COMPARISONS, {})
    return paths


def site(
    folder: Path,
    rows: Sequence[Row],
    history: Sequence[Row] = (),
    pictures: Mapping[RunKey, Path] | None = None,
    searches: Mapping[Search, Path] | None = None,
    **options: Any,
) -> Path:
    """The folder of a site of these rows."""
    tables = write_tables(folder / "tables", rows, history, **options)
    build_site(tables, pictures or {}, searches or {}, folder / "site")
    return folder / "site"


class Parsed(HTMLParser):
    """Checks that tags are balanced and gathers tags, ids, text, and the text of tables' rows."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.rows: list[list[str]] = []
        self.headings: set[int] = set()
        self.text = ""
        self.feed(page.read_text("utf-8"))
        self.close()
        assert not self.open, self.open
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        while tag in UNCLOSED and self.open[-1] in UNCLOSED - ({"tr"} if tag != "tr" else set()):
            self.open.pop()
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if ("scope", "col") in attrs:
            self.headings.add(len(self.rows) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        while tag not in UNCLOSED and self.open[-1] in UNCLOSED:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def row(self, name: str) -> dict[str, str]:
        """The first row one of whose first two cells begins with a name, by its headings."""
        heads: list[str] = []
        for place, row in enumerate(self.rows):
            if place in self.headings:
                heads = row
            elif any(cell.split(" ")[0] == name for cell in row[:2]):
                return dict(zip(heads, row, strict=True))
        raise AssertionError(f"no row of {name}")

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)
