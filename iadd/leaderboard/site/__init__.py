"""The leaderboard's site: a folder of pages made from the tables and pictures of a benchmark alone.

It opens from the file system, loads nothing from the internet, and reads without scripts; with them
its tables can be sorted and filtered. `content` is what pages are made from, `pages` has a module a
kind of page, `html` writes tables, `chart` plots, `page` and `templates` the layout.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

from iadd.artifacts import atomic_write
from iadd.leaderboard.site import places
from iadd.leaderboard.site.content import Content, RunKey, Search
from iadd.leaderboard.site.page import Page, write, write_assets
from iadd.leaderboard.site.pages import (
    boards,
    controls,
    costs,
    differences,
    methods,
    overview,
    privacy,
    results,
    runs,
    searches,
    submissions,
    transfer,
    weights,
)

PAGES = (
    *(overview, boards, results, methods, differences, controls),
    *(costs, transfer, weights, privacy, submissions, searches, runs),
)
"""In the order of the navigation."""


def build_site(
    tables: Mapping[str, Path],
    pictures: Mapping[RunKey, Path],
    searches: Mapping[Search, Path],
    out: Path,
    pairs: Mapping[RunKey, Path] | None = None,
) -> None:
    """Write the site into the folder `out`, whole or not at all; what lay there is replaced.

    Args:
        tables: of `iadd.leaderboard.rows`, by their names.
        pictures: PNG files of distilled images.
        searches: PNG files of searches.
        pairs: PNG files of distilled images beside the nearest real ones.

    Same tables and pictures, same bytes. Raises ValueError naming the file that is missing or of
    the wrong kind, or `out` where it cannot be written.
    """
    content = Content.read(tables, pictures, searches, pairs or {})
    draft = out.with_name(f"{out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _write(content, draft)
        _replace(out, draft)
    except OSError as error:
        raise ValueError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(content: Content, folder: Path) -> None:
    write_assets(folder)
    for key, source in content.pictures.items():
        _take(source, folder / places.picture(key))
    for key, source in content.pairs.items():
        _take(source, folder / places.pairs(key))
    for search, source in content.searches.items():
        _take(source, folder / places.search_picture(search))
    navigation = []
    streams: list[Iterator[Page]] = []
    for module in PAGES:
        found = module.pages(content)
        if first := next(found, None):
            streams.append(chain([first], found))
            if word := getattr(module, "NAV", None):
                navigation.append((word, first.path))
    for page in chain.from_iterable(streams):
        write(page, folder, content.about.title, navigation)


def _replace(out: Path, draft: Path) -> None:
    old = out.with_name(f"{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    draft.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _take(source: Path, target: Path) -> None:
    """A picture into the site, by a second name of the same file where the disk can do that."""
    try:
        with source.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ValueError(f"{source}: picture cannot be read ({error.strerror})") from error
    if start != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"{source}: is no PNG picture")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
