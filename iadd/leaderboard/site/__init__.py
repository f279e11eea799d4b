"""The leaderboard's page, made from the tables alone: one file that needs nothing beside it."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from iadd.artifacts import atomic_write
from iadd.leaderboard.ranking import CELL, TUNED, WHOLE, is_null, rank_range, remark
from iadd.leaderboard.results import EVALUATIONS, LEADERBOARD, TRACES, TRIALS, read_table
from iadd.leaderboard.site.plot import COLOURS, png, svg

Record = dict[str, Any]
Pictures = Mapping[tuple[str, str, int], Record]
RECONSTRUCTIONS = {"iadd": "IADD", "ddpp": "DDPP"}


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
) -> None:
    """Write the page `out` (self-contained HTML) and `accuracy.png` beside it, atomically.

    leaderboard, evaluations, traces: tables of `iadd.leaderboard.results`. pictures: PNG files of distilled
    images by (dataset, method, ipc); searches: those of searches, told of by the table trials, each
    of the same budget.
    Same tables, same bytes. Raises ValueError naming the file
    that is missing or of the wrong kind.
    """
    board = _records(read_table(leaderboard, LEADERBOARD))
    networks = read_table(evaluations, EVALUATIONS)
    history = read_table(traces, TRACES)
    if not board:
        raise ValueError(f"{leaderboard}: has no rows, so there is nothing to show")
    images = {key: _picture(path) for key, path in sorted(pictures.items())}
    plots = {key: _picture(path) for key, path in sorted((searches or {}).items())}
    tried = read_table(trials, TRIALS) if trials and plots else None
    datasets = []
    panels = []
    for name in dict.fromkeys(row["dataset"] for row in board):
        rows = [row for row in board if row["dataset"] == name]
        distilled = networks[(networks["dataset"] == name) & (networks["method"] != WHOLE)]
        teachers = distilled["network_distill"].value_counts().index.tolist()
        runs = _runs(history[history["dataset"] == name])
        section = _section(name, rows, teachers, runs, images)
        section["searches"] = [] if tried is None else _searches(name, tried, plots)
        datasets.append(section)
        panels += section["panels"]
    page = _render(
        title=title,
        colours=COLOURS,
        budget=budget,
        datasets=datasets,
        facts=_facts(networks),
        reconstructions=[n for m, n in RECONSTRUCTIONS.items() if m in set(networks["method"])],
    )
    atomic_write(out.with_name("accuracy.png"), png(panels))
    atomic_write(out, page.encode())


def _render(**context: Any) -> str:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"percent": _percent, "duration": _duration, "size": _size}
    template = Path(__file__).with_name("page.html").read_text("utf-8")
    return environment.from_string(template).render(context)


def _records(frame: pd.DataFrame) -> list[Record]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _main_place(rows: list[Record], teachers: list[str]) -> tuple[str, str]:
    """(network_eval, protocol) to show first: what was distilled on, and with augmentation."""
    places = [(row["network_eval"], row["protocol"]) for row in rows]

    def later(place: tuple[str, str]) -> tuple[Any, ...]:
        network, protocol = place
        return (
            network not in teachers,
            "-noaug" in protocol,
            TUNED in protocol,
            -places.count(place),
            place,
        )

    return min(places, key=later)


def _section(
    name: str, rows: list[Record], teachers: list[str], runs: list[Record], images: Pictures
) -> Record:
    """All that the template needs of one dataset."""
    main = _main_place(rows, teachers)
    tables = [
        _table(list(members))
        for _, members in groupby(rows, key=lambda row: [row[name] for name in CELL])
    ]
    places = [main, (main[0], main[1] + TUNED)]  # tuned beside default, never mixed
    shown = [table for table in tables if table["place"] in places]
    first = [table for table in tables if table["place"] == main]
    order = {row["method"]: place for table in first for place, row in enumerate(table["rows"])}
    crosses = [
        _cross(protocol, ipc, list(members), main[0])
        for (protocol, ipc), members in groupby(
            sorted(rows, key=lambda row: (row["protocol"] != main[1], row["protocol"], row["ipc"])),
            key=lambda row: (row["protocol"], row["ipc"]),
        )
    ]
    panels = [
        {
            "title": f"{name}, {_per_class(cross['ipc'])}"
            + ", tuned" * cross["protocol"].endswith(TUNED),
            "main": main[0],
            **cross,
        }
        for cross in crosses
        if cross["protocol"] in (main[1], main[1] + TUNED)
    ]
    return {
        "name": name,
        "teachers": teachers,
        "first": first,
        "shown": shown,
        "others": [table for table in tables if table["place"] not in places],
        "crosses": [cross for cross in crosses if len(cross["networks"]) > 1],
        "panels": panels,
        "plots": [(panel["title"], svg(panel)) for panel in panels],
        "pictures": _grids({key[1:]: p for key, p in images.items() if key[0] == name}, order),
        "runs": sorted(runs, key=lambda run: (run["ipc"], order.get(run["method"], 99))),
    }


def _grids(
    pictures: Mapping[tuple[str, int], Record], order: Mapping[str, int]
) -> list[tuple[int, list[tuple[str, Record]]]]:
    """(ipc, [(method, picture), ...]), the methods in the ranking's order."""
    shown = sorted(pictures, key=lambda key: (key[1], order.get(key[0], 99), key[0]))
    return [
        (ipc, [(key[0], pictures[key]) for key in keys])
        for ipc, keys in groupby(shown, key=lambda key: key[1])
    ]


def _table(members: list[Record]) -> Record:
    """One cell: its rows with a common scale (percent) for the drawn intervals."""
    dataset, ipc, network, protocol = (members[0][name] for name in CELL)
    ends = [row[n] for row in members for n in ("accuracy_low", "accuracy_mean", "accuracy_high")]
    known = [end for end in ends if not is_null(end)] or [0.0, 1.0]
    low, high = 5 * (min(known) * 20 // 1), 5 * -(-max(known) * 20 // 1)  # whole steps of 5 %
    rows = [
        {name: None if is_null(value) else value for name, value in row.items()}
        | {"rank": rank_range(row), "remark": remark(row)}
        for row in members
    ]
    return {
        "dataset": dataset,
        "ipc": ipc,
        "images": _per_class(ipc),
        "place": (network, protocol),
        "tuned": protocol.endswith(TUNED),
        "scale": (low, max(high, low + 5)),
        "rows": rows,
        "best": [row for row in rows if row["rank_low"] == 1],
        "ceiling": next((row["accuracy_mean"] for row in rows if row["method"] == WHOLE), None),
    }


def _cross(protocol: str, ipc: int, members: list[Record], main: str) -> Record:
    """Methods by evaluation networks, the network that was distilled on first; None: not there."""
    networks = sorted({row["network_eval"] for row in members}, key=lambda n: (n != main, n))
    methods = dict.fromkeys(
        row["method"] for n in networks for row in members if row["network_eval"] == n
    )
    found = {
        (row["method"], row["network_eval"]): {
            name: None if is_null(row[f"accuracy_{name}"]) else row[f"accuracy_{name}"]
            for name in ("mean", "low", "high")
        }
        for row in members
    }
    rows = [(method, [found.get((method, network)) for network in networks]) for method in methods]
    return {
        "protocol": protocol,
        "ipc": ipc,
        "images": _per_class(ipc),
        "networks": networks,
        "rows": rows,
    }


def _runs(history: pd.DataFrame) -> list[Record]:
    """What the traces tell of each (ipc, method): where the loss went, at what price."""
    runs = []
    for ipc, method in history[["ipc", "method"]].drop_duplicates().itertuples(index=False):
        run = history[(history["ipc"] == ipc) & (history["method"] == method)]
        ends = run.groupby("seed").last()  # the last value that is not null, a column
        plain = run["loss_unweighted"].notna().any()
        loss = run.groupby("iteration")["loss_unweighted" if plain else "loss"].mean().dropna()
        runs.append(
            {
                "ipc": int(ipc),
                "method": method,
                "seeds": len(ends),
                "iterations": int(run["iteration"].max()),
                "spark": _spark(loss.tolist()),
                "loss": (loss.iloc[0], loss.iloc[-1]) if len(loss) else None,
                "step_size": _mean(ends["step_size"]),
                "effective": _mean(ends["weight_effective"]),
                "weights": [_mean(ends["weight_min"]), _mean(ends["weight_max"])],
                "seconds": _mean(run.groupby("seed")["seconds"].max()),
                "rollbacks": int((run["event"] == "rollback").sum()),
                "diverged": int((run["event"] == "diverged").sum()),
                "path": ", ".join(sorted(set(run["path"]))),
            }
        )
    return runs


def _searches(name: str, trials: pd.DataFrame, plots: Pictures) -> list[Record]:
    """What each search of a data set cost and found; the default is trial 0, the first tried."""
    found = []
    for (dataset, method, ipc), picture in plots.items():
        if dataset != name:
            continue
        rows = trials[
            (trials["dataset"] == dataset) & (trials["method"] == method) & (trials["ipc"] == ipc)
        ]
        searched = rows[rows["seed"] == 0].groupby("trial").last()
        judged = rows[rows["status"] == "confirmed"].groupby("config")["validation_accuracy"].mean()
        first = rows.sort_values(["trial", "seed", "rung"])["config"].tolist()[:1]  # the default
        found.append(
            {
                "method": method,
                "ipc": ipc,
                "picture": picture,
                "trials": len(searched),
                "ended": int((searched["status"] == "ok").sum()),
                "failed": int((searched["status"] == "failed").sum()),
                "iterations": int(searched["iteration"].sum()),
                "seconds": float(searched["seconds"].sum()),
                "default": _mean(judged[judged.index.isin(first)]),
                "best": float(judged.max()) if len(judged) else None,
            }
        )
    return found


def _mean(values: pd.Series[float]) -> float | None:
    known = values.dropna()
    return float(known.mean()) if len(known) else None


def _spark(values: list[float], width: int = 96, height: int = 22) -> str:
    """Points of a polyline of the given size, at most 60 of them, lowest value at the bottom."""
    step = max(1, -(-len(values) // 60))
    thin = values[::step]
    low, high = min(thin, default=0.0), max(thin, default=1.0)
    across, up = width / max(len(thin) - 1, 1), (height - 2) / ((high - low) or 1.0)
    return " ".join(
        f"{i * across:.1f},{height - 1 - (v - low) * up:.1f}" for i, v in enumerate(thin)
    )


def _facts(networks: pd.DataFrame) -> Record:
    """What the notes and the foot of the page tell of the evaluations."""

    def several(column: str, width: int | None = None) -> str:
        found = sorted({str(value)[:width] for value in networks[column].dropna()})
        return ", ".join(found[:4]) + ", ..." * (len(found) > 4) or "not recorded"

    methods = networks[networks["method"] != WHOLE]
    run = ["dataset", "ipc", "method"]
    seeds = methods.groupby(run)["seed"].nunique()
    each = networks.groupby([*run, "network_eval", "protocol", "seed"]).size()
    trouble = networks[networks["status"] != "ok"].value_counts([*run, "network_eval", "status"])
    return {
        "seeds": (seeds.min(), seeds.max()) if len(seeds) else (0, 0),
        "networks": (each.min(), each.max()),
        "evaluated": len(networks),
        "trouble": trouble.sort_index().reset_index().to_numpy().tolist(),
        "soft": bool((networks["label_kind"] == "soft").any()),
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


def _per_class(ipc: int) -> str:
    return f"{ipc} image{'' if ipc == 1 else 's'} a class"


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
