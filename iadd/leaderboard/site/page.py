"""A page of the site and how it is written: one layout, one set of assets, relative links.

A module of `pages` gives `pages(content)`, an iterator of `Page`, and, if its first page is to
stand in the navigation, `NAV`, the word that leads there.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from iadd.leaderboard.site import html
from iadd.leaderboard.site.html import Table

HERE = Path(__file__).parent
ASSETS = ("site.css", "site.js", "theme.js", "datatables.min.js", "datatables.LICENSE.txt")
MOST_BYTES = 1_750_000
"""Of a page's grid: style and scripts take 0.2 MB."""
Navigation = Sequence[tuple[str, str]]
"""(word, path of a page)."""


@dataclass(frozen=True)
class Page:
    """One file of the site.

    path: in the site's folder, its parts made by `html.slug`. template: a file of `templates/`,
    which extends `layout.html`. context: what the template speaks of. part: the NAV of the page's
    module. beside: pages of the same kind, (word, path), to go on to.
    """

    path: str
    title: str
    part: str
    template: str = "tables.html"
    context: Mapping[str, Any] = field(default_factory=dict)
    beside: Navigation = ()

    @property
    def root(self) -> str:
        """What leads from the page to the site's folder."""
        return "../" * self.path.count("/")


def write(page: Page, folder: Path, benchmark: str, navigation: Navigation) -> None:
    """Write one page into the site's folder."""
    root = page.root
    text = _template(page.template).render(
        page.context,
        root=root,
        path=page.path,
        title=page.title,
        part=page.part,
        beside=page.beside,
        benchmark=benchmark,
        navigation=navigation,
        table=lambda table: html.render(table, root),
    )
    out = folder / page.path
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, "utf-8")


def write_assets(folder: Path) -> None:
    """Copy style, scripts and the licence of what is not ours."""
    (folder / "assets").mkdir(parents=True)
    for name in ASSETS:
        shutil.copyfile(HERE / "assets" / name, folder / "assets" / name)


@functools.cache
def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        **{"percent": html.percent, "duration": html.duration, "size": html.size},
        **{"slug": html.slug, "number": html.number, "listed": html.listed},
    }
    return environment


def paged(table: Table, title: str, part: str, lead: str = "") -> Iterator[Page]:
    """A page of a grid, or so many that each is below 2 MB; the grid's name is that of the file."""
    parts = html.parts(table, MOST_BYTES)
    paths = [f"{table.name}{f'-{k}' * (k > 1)}.html" for k in range(1, len(parts) + 1)]
    beside = [(f"Part {k}", path) for k, path in enumerate(paths, 1)]
    for one, path in zip(parts, paths, strict=True):
        yield Page(path, title, part, context={"tables": [one], "lead": lead}, beside=beside)


def tables_page(path: str, title: str, part: str, *tables: Table, lead: str = "") -> Page:
    """A page of tables alone, after a sentence."""
    return Page(path, title, part, context={"tables": tables, "lead": lead})
