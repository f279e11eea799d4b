"""`iadd reproduce`: measured beside published, and what differs in the set-up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from iadd.artifacts import counted
from iadd.evaluation.protocols import find_protocol
from iadd.experts import named_recipe
from iadd.leaderboard.beside import verdict_of
from iadd.leaderboard.cells import UNSEEN, WHOLE, cell_of
from iadd.leaderboard.published import SIDES, Published, counterpart
from iadd.leaderboard.published_settings import EXPERTS, find_settings
from iadd.leaderboard.results import read_rows
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.text import agreement_words, cell_words
from iadd.pipeline.plan import Plan
from iadd.pipeline.tables import current


def reproduce(plan: Plan) -> str:
    """What `report` tells of a benchmark's leaderboard.

    Raises:
        ValueError: it is not there, or was made under another configuration.
    """
    return report(plan, read_rows(current(plan), LeaderboardRow))


def report(plan: Plan, board: Iterable[LeaderboardRow]) -> str:
    """A line for each measured default result that has a published one, and how it was made.

    A published value of the same architecture in another width or depth counts too: the difference
    is named.
    """
    lines: list[str] = []
    without = []
    for row in board:
        if row.source != "measured" or row.tuned or row.network_eval == UNSEEN:
            continue
        published = counterpart(row, plan.config.dataset(row.dataset).published_name)
        if published is None:
            without.append(row.method)
        elif (line := _line(row, published)) not in lines:  # `whole` stands in several cells
            lines.append(line)
            if different := "; ".join(_differences(plan, row, published)):
                lines.append(f"    differs (published in brackets): {different}")
    if names := ", ".join(dict.fromkeys(without)):
        where = "In some tables no" if lines else "No"
        lines.append(f"{where} published value is known of: {names}")
    return "\n".join(lines)


def _line(row: LeaderboardRow, published: Published) -> str:
    verdict, more = verdict_of(row, published)
    judged = replace(row, published=published.accuracy, agrees=verdict, more_seeds=more)
    name = row.method + " (a reconstruction)" * row.reconstruction
    spread = "" if published.std is None else f" +- {100 * published.std:.1f}"
    place = cell_words(cell_of(row))
    if row.method == WHOLE:
        place = f"{row.dataset}, evaluated by {row.network_eval}, protocol {row.protocol}"
    return (
        f"{name}, {place}: measured {_measured(row)}, published "
        f"{100 * published.accuracy:.1f}{spread} ({published.source}): {agreement_words(judged)}"
    )


def _measured(row: LeaderboardRow) -> str:
    if row.accuracy_mean is None:
        return "nothing"
    seeds = f"{row.n_seeds} seed{'s' * (row.n_seeds != 1)}"
    if row.accuracy_low is None or row.accuracy_high is None:
        return f"{100 * row.accuracy_mean:.1f} ({seeds}, so no interval)"
    low, high = 100 * row.accuracy_low, 100 * row.accuracy_high
    return f"{100 * row.accuracy_mean:.1f} ({low:.1f} to {high:.1f}, {seeds})"


def _differences(plan: Plan, row: LeaderboardRow, published: Published) -> Iterator[str]:
    """Where a result's set-up departs from the published one, as far as that is known."""
    config = plan.config
    dataset = config.dataset(row.dataset)
    ours: dict[str, Any] = {"data": dataset.name, "judged by": row.network_eval}
    theirs: dict[str, Any] = {
        "data": published.dataset,
        "judged by": published.network_eval,
    }
    if about := plan.known_about(row.dataset):
        ours |= {"pixels a side": about.resolution}
        theirs |= {"pixels a side": SIDES.get(published.dataset, about.resolution)}
    (judged,) = (e for e in config.evaluations if e.protocol == row.protocol)
    if row.method != WHOLE:
        epochs = find_protocol(row.protocol).epochs
        ours |= {"network": config.network, "evaluation epochs": judged.epochs}
        theirs |= {"network": published.network_distill, "evaluation epochs": epochs}
        settings = find_settings(row.method, published.dataset, row.ipc)
        if settings:
            params = config.params(row.method, row.ipc).model_dump()
            ours |= {name: params[name] for name in settings.params} | {"zca": dataset.zca}
            theirs |= settings.params | ({} if settings.zca is None else {"zca": settings.zca})
        if (recipe := config.recipe(row.method)) and (usual := config.kind(row.method).experts):
            ours |= {"experts": config.experts.count}
            ours |= _prefixed(config.experts.named(recipe).model_dump())
            theirs |= {"experts": EXPERTS} | _prefixed(named_recipe(usual).model_dump())
    for name, value in theirs.items():
        if ours[name] != value:
            yield f"{name} {_word(ours[name])} ({_word(value)})"
    if row.method == WHOLE:
        trained = counted(judged.whole_epochs, "epoch{s}")
        yield f"trained for {trained}; how long the published one was is not known to us"
    elif not settings:
        yield f"settings published for {row.method} here are not known to us"


def _prefixed(recipe: dict[str, Any]) -> dict[str, Any]:
    return {f"experts' {name}": value for name, value in recipe.items() if name != "dtype"}


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
