"""A page a run: how it went, its settings and machine, what it made; and the list of all runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.site import html, places
from iadd.leaderboard.site.chart import Axis, Curve, curves
from iadd.leaderboard.site.content import Content, RunKey
from iadd.leaderboard.site.describe import Description, describe
from iadd.leaderboard.site.html import Cell, Column, Line, Table
from iadd.leaderboard.site.page import Page, paged
from iadd.leaderboard.site.traces import Trace, read_traces
from iadd.leaderboard.text import per_class

NAV = "Runs"
COLUMNS = (
    Column("Method", "head", filter=True),
    Column("Data set", "word", filter=True),
    Column("Images a class", filter=True),
    Column("Settings", "word", filter=True),
    Column("Seed", filter=True),
    Column("Status", "word", filter=True),
    Column("Accuracy, %", hint="mean over networks of the network and protocol shown first"),
    Column("Distilling"),
    Column("Peak memory"),
)
JUDGED = (
    Column("Network", "head"),
    Column("Protocol", "word"),
    Column("Networks"),
    Column("Mean accuracy, %"),
    Column("Each, %", "text"),
    Column("Not ended well"),
)
SHOWN = 20
"""Networks of a kind whose accuracies are told."""
LOSSES = ("loss", "loss_unweighted")


def pages(content: Content) -> Iterator[Page]:
    """The list, then a page for each run."""
    rows, evaluated = content.runs, _evaluated(content)
    accuracies = {key: _main(content, key, evaluated[key]) for key in rows}
    lines = [_line(key, found, accuracies[key]) for key, found in rows.items()]
    table = Table("All runs", COLUMNS, lines, f"{len(lines)} in all", "runs", grid=True)
    yield from paged(table, NAV, NAV)
    seeds: dict[tuple[Any, ...], list[RunKey]] = {}
    for key in rows:
        seeds.setdefault(key[:4], []).append(key)
    traces = read_traces(content.tables["traces"])
    waiting = next(traces, None)
    for key in sorted(rows):  # the order of the traces; runs without one lie between
        trace = None
        if waiting is not None and waiting[0] == key:
            trace, waiting = waiting[1], next(traces, None)
        beside = [(f"seed {other.seed}", places.run(other)) for other in seeds[key[:4]]]
        yield _page(content, key, evaluated[key], trace, beside)


class Judged(NamedTuple):
    """One evaluation network of a run."""

    network_eval: str
    protocol: str
    accuracy: float
    """NaN where there is none."""
    status: str


def _evaluated(content: Content) -> dict[RunKey, list[Judged]]:
    """The evaluation networks of each run."""
    found: dict[RunKey, list[Judged]] = {}
    keys, rows = (
        zip(*(content.networks[name].tolist() for name in kind._fields), strict=True)
        for kind in (RunKey, Judged)
    )
    for key, row in zip(keys, map(Judged._make, rows), strict=True):
        found.setdefault(RunKey._make(key), []).append(row)
    return found


def _main(content: Content, key: RunKey, judged: Sequence[Judged]) -> float | None:
    """A run's mean accuracy in the main place of its data set."""
    place = content.places.get(key.dataset)
    return _mean(row.accuracy for row in judged if (row.network_eval, row.protocol) == place)


def _mean(values: Iterable[float]) -> float | None:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else None


def _line(key: RunKey, row: Mapping[str, Any], accuracy: float | None) -> Line:
    seconds, peak = _known(row["distill_seconds"]), _known(row["host_peak_bytes"])
    return Line(
        [
            Cell(key.method, places.run(key)),
            key.dataset,
            str(key.ipc) if key.ipc else Cell("all", order=0),
            _settings(key),
            str(key.seed),
            row["distill_status"],
            html.percent(accuracy, 2),
            Cell(html.duration(seconds), order=None if seconds is None else round(seconds, 1)),
            Cell(html.size(peak), order=peak),
        ]
    )


def _settings(key: RunKey) -> str:
    return "tuned" if key.tuned else "default"


def _known(value: Any) -> Any:
    return None if value is None or pd.isna(value) else value


def _page(
    content: Content,
    key: RunKey,
    judged: Sequence[Judged],
    trace: Trace | None,
    beside: list[tuple[str, str]],
) -> Page:
    first = content.runs[key]
    tuned = ", tuned" * key.tuned
    told = None
    if first["source"] == "measured":
        told = describe(content.about.methods.get(key.method, key.method))
    context = {
        "key": key,
        "method_page": places.method(key.method),
        "board_page": places.board(key.dataset, key.ipc or content.ipcs(key.dataset)[0]),
        "facts": _facts(key, first, trace),
        "judged": _judged(judged),
        "settings": _parameters(first["params"], told),
        "environment": _environment(first),
        "plots": [] if trace is None else list(_plots(trace, told)),
        "picture": places.picture(key) if key in content.pictures else None,
    }
    title = f"{key.method}{tuned} on {key.dataset}, {per_class(key.ipc)}, seed {key.seed}"
    return Page(places.run(key), title, NAV, "run.html", context, beside)


def _facts(key: RunKey, first: Mapping[str, Any], trace: Trace | None) -> list[tuple[str, str]]:
    """What a run was and cost, as pairs of a name and a value."""
    found = [("Settings", _settings(key)), ("Status", str(first["distill_status"]))]
    if key.method == WHOLE:  # nothing was distilled; boards tell what all the data take
        return [*found, *_peaks(first)]
    times = ((n, _known(first[f"{n}_seconds"])) for n in ("distill", "validation", "expert"))
    found.append(("Distilled on", str(first["network_distill"])))
    if trace is not None:
        found.append(("Iterations", str(trace.last)))
        for name, at in (
            ("Rolled back at", trace.rollbacks),
            ("Skipped updates", trace.skipped),
            ("Diverged at", trace.diverged),
        ):
            if len(at):
                shown = ", ".join(f"{k:.0f}" for k in at[:12])
                found.append((name, shown + f" and {len(at) - 12} more" * (len(at) > 12)))
        found.append(("Computed by", ", ".join(name for name in trace.paths if name)))
    words = {
        "distill": "Distilling",
        "validation": "Validation",
        "expert": "Training of its experts",
    }
    found += [(words[name], html.duration(seconds)) for name, seconds in times if seconds]
    found += _peaks(first)
    for name in ("image", "label"):
        if (count := _known(first[f"{name}_bytes"])) is not None:
            found.append((f"Size of the {name}s", html.size(count)))
    return found


def _peaks(first: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The most memory that a run took."""
    names = (("Peak memory", "host"), ("Peak device memory", "device"))
    known = ((name, _known(first[f"{column}_peak_bytes"])) for name, column in names)
    return [(name, html.size(count)) for name, count in known if count]


def _environment(first: Mapping[str, Any]) -> list[tuple[str, str]]:
    columns = {
        "Device": "device",
        "PyTorch": "torch_version",
        "Commit": "git_commit",
        "Sources": "source_hash",
        "Spec version": "spec_version",
    }
    return [
        (name, str(_known(first[column]) or "not recorded")) for name, column in columns.items()
    ]


def _parameters(text: str, told: Description | None) -> Table | None:
    """The settings that a run had, and what they are."""
    params = json.loads(text)
    words = told.settings if told else {}
    lines = [Line([k, html.setting(v), words.get(k, "")]) for k, v in sorted(params.items())]
    columns = Column("Setting", "head"), Column("Value", "word"), Column("What it is", "text")
    return Table("Settings of the method", columns, lines) if lines else None


def _judged(judged: Sequence[Judged]) -> Table:
    """What the networks reached that were trained on the set, one after the other."""
    places: dict[tuple[str, str], list[Judged]] = {}
    for row in judged:
        places.setdefault((row.network_eval, row.protocol), []).append(row)
    lines = []
    for (network, protocol), rows in places.items():
        wrong = sum(row.status != "ok" for row in rows)
        shown = ", ".join(html.percent(row.accuracy) for row in rows[:SHOWN])
        mean = html.percent(_mean(row.accuracy for row in rows), 2)
        ended = str(wrong) if wrong else html.MISSING
        lines.append(Line([network, protocol, str(len(rows)), mean, shown, ended]))
    return Table("Networks trained on this set", JUDGED, lines)


def _plots(trace: Trace, told: Description | None) -> Iterator[tuple[str, Markup]]:
    """Loss, step size, validation accuracy, and what the method tells of itself."""
    losses = [name for name in LOSSES if name in trace.columns]
    both = [trace.columns[name] for name in losses]
    if len(both) > 1 and np.array_equal(both[0], both[1], equal_nan=True):
        losses = losses[:1]
    yield "Loss", _plot(trace, "loss", losses, log=True)
    if np.isfinite(trace.columns["step_size"]).any():
        yield "Step size of the student", _plot(trace, "step size", ["step_size"])
    at, accuracy = trace.validation
    if len(at) > 1:
        values = 100 * accuracy
        axis = Axis.over("validation accuracy, %", values.tolist(), most=100.0)
        yield (
            "Validation accuracy",
            curves(
                "Accuracy on validation data (balanced where classes are unequal)",
                Axis.over("iteration", [0.0, float(trace.last)]),
                axis,
                [Curve("validation", at.tolist(), values.tolist())],
            ),
        )
    for name in trace.columns:
        if name not in (*LOSSES, "step_size"):
            words = name.replace("_", " ")
            said = told.columns.get(name, "") if told else ""
            caption = words[:1].upper() + words[1:] + f": {said}" * bool(said)
            yield caption, _plot(trace, words, [name])


def _plot(trace: Trace, title: str, names: list[str], log: bool = False) -> Markup:
    every = np.concatenate([trace.columns[name] for name in names])
    known = every[np.isfinite(every)]
    log = log and len(known) > 0 and bool(known.min() > 0)
    found = [
        Curve(name.replace("_", " "), trace.iterations.tolist(), trace.columns[name].tolist())
        for name in names
    ]
    alt = f"{title} over the iterations" + ", rollbacks marked" * bool(len(trace.rollbacks))
    x = Axis.over("iteration", [0.0, float(trace.last)])
    return curves(alt, x, Axis.over(title, known.tolist(), log), found, trace.rollbacks.tolist())
