"""The leaderboard's page, made from the tables alone: one file that needs nothing beside it."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from iadd.artifacts import atomic_write
from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.results import read_rows, read_table
from iadd.leaderboard.rows import EVALUATIONS, TRACES, TRIALS, LeaderboardRow
from iadd.leaderboard.site.matrices import describe_confusions
from iadd.leaderboard.site.plot import COLOURS, png
from iadd.leaderboard.site.runs import describe_runs, describe_searches
from iadd.leaderboard.site.tables import Record, describe_dataset, main_place
from iadd.leaderboard.text import (
    near_chance,
    network_words,
    per_class,
    place_words,
    protocol_words,
    rank_range,
    remark,
)


def build_site(
    leaderboard: Path,
    evaluations: Path,
    traces: Path,
    pictures: Mapping[tuple[str, str, int], Path],
    out: Path,
    title: str,
    trials: Path | None = None,
    searches: Mapping[tuple[str, str, int], Path] | None = None,
    budget: str = "",
    classes: Mapping[str, Sequence[str]] | None = None,
    experts: Mapping[str, Sequence[str]] | None = None,
    warnings: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the page `out` (self-contained HTML) and `accuracy.png` beside it, atomically.

    Args:
        leaderboard, evaluations, traces: tables of `iadd.leaderboard.results`.
        pictures: PNG files of distilled images by (dataset, method, ipc).
        trials, searches: the table of trials, and PNG files of searches by (dataset, method, ipc).
        budget: of each search, in words.
        classes, experts, warnings: data set -> names of its classes, lines on experts and test.

    Same tables, same bytes. Raises ValueError naming the file that is missing or of the wrong kind.
    """
    board = read_rows(leaderboard, LeaderboardRow)
    networks = read_table(evaluations, EVALUATIONS)
    history = read_table(traces, TRACES)
    if not board:
        raise ValueError(f"{leaderboard}: has no rows, so there is nothing to show")
    images = {key: _picture(path) for key, path in sorted(pictures.items())}
    plots = {key: _picture(path) for key, path in sorted((searches or {}).items())}
    tried = read_table(trials, TRIALS) if trials and plots else None
    sections = []
    for name in dict.fromkeys(row.dataset for row in board):
        rows = [row for row in board if row.dataset == name]
        mine = networks[networks["dataset"] == name]
        runs = describe_runs(history[history["dataset"] == name])
        section = _section(name, rows, mine, runs, images, (classes or {}).get(name, ()))
        section["searches"] = [] if tried is None else describe_searches(name, tried, plots)
        for key, told in (("experts", experts), ("warnings", warnings)):
            section[key] = (told or {}).get(name, ())
        sections.append(section)
    facts = _facts(networks, board)
    page = _render(title=title, colours=COLOURS, budget=budget, datasets=sections, facts=facts)
    atomic_write(out.with_name("accuracy.png"), png([p for s in sections for p in s["panels"]]))
    atomic_write(out, page.encode())


def _section(
    name: str,
    rows: Sequence[LeaderboardRow],
    networks: pd.DataFrame,
    runs: list[Record],
    images: Mapping[tuple[str, str, int], Record],
    classes: Sequence[str],
) -> Record:
    """What the tables tell of one data set."""
    teachers = networks[networks["method"] != WHOLE]["network_distill"].value_counts()
    section = describe_dataset(name, rows, teachers.index.tolist(), runs, images)
    place = main_place(rows, section["teachers"])
    section["confusions"] = describe_confusions(networks, place, classes) if classes else []
    return section


def _render(**context: Any) -> str:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        **{"percent": _percent, "duration": _duration, "size": _size, "per_class": per_class},
        **{"rank": rank_range, "remark": remark, "place": place_words, "judge": network_words},
        "words": protocol_words,
    }
    template = Path(__file__).with_name("page.html").read_text("utf-8")
    return environment.from_string(template).render(context)


def _facts(networks: pd.DataFrame, board: Sequence[LeaderboardRow]) -> Record:
    """What the notes and the foot of the page tell of the evaluations."""

    def several(column: str, width: int | None = None) -> str:
        found = sorted({str(value)[:width] for value in networks[column].dropna()})
        return ", ".join(found[:4]) + ", ..." * (len(found) > 4) or "not recorded"

    methods = networks[networks["method"] != WHOLE]
    run = ["dataset", "ipc", "method", "tuned"]
    seeds = methods.groupby(run)["seed"].nunique()
    each = networks.groupby([*run, "network_eval", "protocol", "seed"]).size()
    wrong = networks[networks["status"] != "ok"]
    runs = networks[networks["distill_status"] != "ok"].drop_duplicates([*run, "seed"])
    return {
        "seeds": (seeds.min(), seeds.max()) if len(seeds) else (0, 0),
        "networks": (each.min(), each.max()),
        "evaluated": len(networks),
        "reconstructions": sorted({row.method for row in board if row.reconstruction}),
        "tuned": any(row.tuned for row in board),
        "published": any(row.source == "published" for row in board),
        "near_chance": list(near_chance(board)),
        "regimes": sorted({row.label_regime for row in board}),
        "trouble": _counted(wrong, ["dataset", "ipc", "method", "network_eval", "status"]),
        "diverged_runs": _counted(runs, ["dataset", "ipc", "method"]),
        "protocols": sorted(set(networks["protocol"])),
        "machine": [
            ("device", several("device")),
            ("torch", several("torch_version")),
            ("commit", several("git_commit", 10)),
            ("sources", several("source_hash", 10)),
            ("spec version", several("spec_version")),
        ],
        "peak": max(networks["host_peak_bytes"].dropna(), default=None),
    }


def _counted(rows: pd.DataFrame, columns: list[str]) -> list[list[Any]]:
    """Each combination of the columns' values and how many rows have it."""
    return rows.value_counts(columns).sort_index().reset_index().to_numpy().tolist()


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for limit, unit, form in ((120, 1, "{:.1f} s"), (7200, 60, "{:.0f} min")):
        if seconds < limit:
            return form.format(seconds / unit)
    return f"{seconds / 3600:.1f} h"


def _size(count: float | None) -> str:
    if count is None:
        return "–"
    power = min(int(math.log(max(count, 1), 1024)), 3)
    return f"{count / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _picture(path: Path) -> Record:
    """A PNG file as a data URI, and whether it is a strip rather than a square."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: picture cannot be read ({error.strerror})") from error
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < 24:
        raise ValueError(f"{path}: is no PNG picture")
    width, height = struct.unpack(">II", content[16:24])
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"uri": uri, "wide": width > 3 * height, "width": width, "height": height}
