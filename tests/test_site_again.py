"""The site of every kind of page is a function of its tables and pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

from every_page import every_page

from iadd.leaderboard.site import build_site


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_tables_and_pictures_alone_give_the_same_site_byte_for_byte(tmp_path: Path) -> None:
    """From copies elsewhere: no path, clock or order of files is in a page."""
    parts = every_page(tmp_path / "tables")
    build_site(**parts, out=tmp_path / "site")
    (tmp_path / "moved").mkdir()
    moved = {
        part: {key: Path(shutil.copy(p, tmp_path / "moved")) for key, p in reversed(files.items())}
        for part, files in parts.items()
    }
    shutil.rmtree(tmp_path / "tables")
    build_site(**moved, out=tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "site")
    assert {"privacy.html", "submissions.html", "searches.html", "controls.html"} <= set(
        contents(tmp_path / "site")
    )
