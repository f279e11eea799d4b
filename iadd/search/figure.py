"""What a search showed: which parameters mattered, where the good settings lie, how it went."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iadd.methods import Space
from iadd.search.journal import Entry

INK, MUTED, LINE, BEST = "#1c2128", "#66707c", "#d9dde2", "#c4570a"
MAP = "viridis"


def importance(entries: Sequence[Entry], space: Space) -> dict[str, float]:
    """Share of the variance of the trials' best accuracy that each parameter explains: fANOVA.

    Hutter, Hoos, Leyton-Brown, ICML 2014, by Optuna. A trial that was stopped counts with what it
    had reached. Empty where fewer than 8 trials differ in what they reached.
    """
    import optuna

    from iadd.search.tune import distributions

    # What a population's branch reached, it owes to more settings than its first ones.
    known = [entry for entry in entries if entry.rows and not entry.branched]
    if len(known) < 8 or len({entry.best for entry in known}) < 2:
        return {}
    over = distributions(space)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize")
        for entry in known:
            trial = optuna.trial.create_trial(
                params=dict(entry.settings), distributions=over, value=entry.best
            )
            study.add_trial(trial)
        judge = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=judge)
    return {name: round(float(share), 4) for name, share in found.items()}


def png(
    title: str,
    entries: Sequence[Entry],
    space: Space,
    weights: Mapping[str, float],
    winner: Mapping[str, Any],
) -> bytes:
    """Best so far, importance, parallel coordinates of one search: on white, 150 dots an inch."""
    shown = [entry for entry in entries if entry.rows]
    scheduled = bool(winner.get("schedule"))
    with matplotlib.rc_context({"font.size": 9, "font.family": "sans-serif"}):
        figure = Figure(figsize=(9.0, 6.2 + 2.6 * scheduled), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
        grid = figure.add_gridspec(2 + scheduled, 2, height_ratios=(1, 1.2, 0.9)[: 2 + scheduled])
        _best_so_far(figure.add_subplot(grid[0, 0]), shown)
        _importance(figure.add_subplot(grid[0, 1]), weights)
        _parallel(figure.add_subplot(grid[1, :]), shown, space, winner)
        if scheduled:
            end = max(entry.iteration for entry in shown)
            _schedule(figure.add_subplot(grid[2, :]), winner, space, end)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150, metadata={"Software": None})
    return image.getvalue()


def _plain(axes: Axes) -> None:
    axes.tick_params(length=0, labelcolor=INK)
    for side in axes.spines.values():
        side.set_visible(False)


def _best_so_far(axes: Axes, entries: Sequence[Entry]) -> None:
    """Across: iterations spent in all; stops and failures cost what they cost."""
    spent, best, across, up, line, ended = 0, 0.0, [], [], [], []
    for iterations, accuracy, whole in _history(entries):
        spent += iterations
        best = max(best, accuracy)
        across.append(spent)
        up.append(100 * accuracy)
        line.append(100 * best)
        ended.append(BEST if whole else MUTED)
    axes.scatter(across, up, c=ended, s=14, linewidths=0)
    axes.step(across, line, where="post", color=BEST, lw=1.5)
    axes.set_xlabel("iterations spent (coloured: ran to the end)", color=MUTED)
    axes.set_ylabel("validation accuracy, %", color=MUTED)
    axes.grid(color=LINE, lw=0.6)
    _plain(axes)


def _history(entries: Sequence[Entry]) -> list[tuple[int, float, bool]]:
    """Iterations, best accuracy, whether to the end: a trial each, of a population a rung each."""
    if not any(entry.parent is not None for entry in entries):
        return [(entry.iteration, entry.best, entry.status == "ok") for entry in entries]
    steps = []
    for entry in entries:
        before = entry.branched
        for row in entry.own_rows:
            last = entry.status == "ok" and row["iteration"] == entry.iteration
            iterations = row["iteration"] - before
            steps.append((row["iteration"], entry.number, iterations, row["accuracy"], last))
            before = row["iteration"]
    return [step[2:] for step in sorted(steps)]  # all members reach a rung before the next


def _importance(axes: Axes, weights: Mapping[str, float]) -> None:
    names = sorted(weights, key=lambda name: weights[name])
    axes.barh(range(len(names)), [100 * weights[name] for name in names], color=BEST, height=0.6)
    axes.set_yticks(range(len(names)), names)
    what = "importance, % of variance (fANOVA)" if names else "too few trials for importances"
    axes.set_xlabel(what, color=MUTED)
    _plain(axes)


def _place(value: Any, over: tuple[str, Any, Any] | list[Any]) -> float:
    """Where a value lies in its range, 0 to 1."""
    if isinstance(over, list):
        return over.index(value) / (len(over) - 1)
    kind, low, high = over
    if kind == "log":
        value, low, high = math.log(value), math.log(low), math.log(high)
    return float((value - low) / (high - low))


def _parallel(
    axes: Axes, entries: Sequence[Entry], space: Space, winner: Mapping[str, Any]
) -> None:
    """A line a trial through its settings; the brighter the better; the winner on top."""
    names = sorted(space)
    scores = [entry.best for entry in entries] or [0.0]
    low, high = min(scores), max(max(scores), min(scores) + 1e-9)
    colours = matplotlib.colormaps[MAP]
    for entry in sorted(entries, key=lambda entry: entry.best):
        line = [_place(entry.settings[name], space[name]) for name in names]
        won = entry.settings == winner
        colour = BEST if won else colours((entry.best - low) / (high - low))
        axes.plot(line, color=colour, lw=2.4 if won else 0.9, zorder=2 + won)
    for place, name in enumerate(names):
        over = space[name]
        ends = (over[0], over[-1]) if isinstance(over, list) else over[1:]
        for height, end in ((-0.05, ends[0]), (1.05, ends[1])):
            text = f"{end:.3g}" if isinstance(end, float) else str(end)
            axes.text(place, height, text, ha="center", va="center", color=MUTED, fontsize=8)
        axes.axvline(place, color=LINE, lw=0.8, zorder=0)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.12)
    _plain(axes)


def _schedule(axes: Axes, winner: Mapping[str, Any], space: Space, end: int) -> None:
    """The winner's numbers over its iterations, as multiples of what it began with."""
    held = {name: value for name, value in winner.items() if name in space}
    starts, states = [0], [dict(held)]
    for start, changes in winner["schedule"]:
        held |= changes
        starts.append(start)
        states.append(dict(held))
    colours = matplotlib.colormaps["tab10"]
    shown = sorted({name for _, changes in winner["schedule"] for name in changes})
    shown = [name for name in shown if not isinstance(space[name], list) and winner[name] > 0]
    for k, name in enumerate(shown):
        heights = [state[name] / winner[name] for state in states]
        axes.step(
            [*starts, end],
            [*heights, heights[-1]],
            where="post",
            color=colours(k),
            label=name,
            lw=1 + 0.5 * (len(shown) - k),  # where lines meet, all of them show
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("{x:.3g}")
    axes.set_xlabel("the winner's schedule: iteration", color=MUTED)
    axes.set_ylabel("times the first value", color=MUTED)
    axes.grid(color=LINE, lw=0.6)
    if shown:
        axes.legend(
            frameon=False,
            fontsize=8,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=len(shown),
        )
    _plain(axes)
