"""The last stages: tables, ranking and page of a benchmark from its runs' files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from iadd.artifacts import spec_hash
from iadd.data import About
from iadd.leaderboard import gathering, results
from iadd.leaderboard.beside import beside
from iadd.leaderboard.columns import Judged, collect_evaluations
from iadd.leaderboard.controls import controls_text, panels
from iadd.leaderboard.exposure import PRIVACY, PrivacyRow
from iadd.leaderboard.exposure_text import exposure_text
from iadd.leaderboard.provenance import SUBMISSIONS
from iadd.leaderboard.published import same_side
from iadd.leaderboard.ranking import Positive, rank
from iadd.leaderboard.rows import (
    COMPARISONS,
    LEADERBOARD,
    TRIALS,
    ComparisonRow,
    LeaderboardRow,
)
from iadd.leaderboard.savings import Data, data_of, with_savings
from iadd.leaderboard.text import comparisons_text, leaderboard_text
from iadd.leaderboard.training import Training, with_training
from iadd.leaderboard.weights import collect_traces, with_collapses
from iadd.pipeline import privacy_plan
from iadd.pipeline.expert_check import expert_lines
from iadd.pipeline.few_tested import few_tested
from iadd.pipeline.plan import Plan, Run
from iadd.pipeline.submissions import provenance

TOLD = ("privacy", "submissions")
"""Tables that are empty where nothing was asked or handed in."""


def collect(plan: Plan) -> None:
    """Gather evaluations and traces, rank, write `leaderboard.parquet` and `.csv`, print it.

    Raises ValueError naming the file whose rows were made under another spec than the plan's.
    """
    judged, collapses = _join(plan)
    submitted = provenance(plan)
    results.write_table(
        submitted, plan.table("submissions"), SUBMISSIONS, {"files": len(submitted)}
    )
    datasets = plan.config.datasets
    positive = positive_classes(plan, *(d.key for d in datasets))
    measured, comparisons = rank(judged, positive)
    data, trainings = _trained(plan)
    measured = with_training(with_collapses(measured, collapses), trainings)
    measured = with_savings(measured, data, trainings)
    leaderboard = beside(measured, compared(plan))
    identity = {"configuration": configuration(plan), "about": about(plan)}
    results.write_table(comparisons, plan.table("comparisons"), COMPARISONS, identity)
    results.write_table(leaderboard, plan.table("leaderboard"), LEADERBOARD, identity)
    results.write_csv(leaderboard, plan.table("leaderboard").with_suffix(".csv"))
    _print(plan, leaderboard)


def _print(plan: Plan, leaderboard: Sequence[LeaderboardRow]) -> None:
    """The leaderboard, and what the configuration declares to be compared."""
    print(leaderboard_text(leaderboard, plan.config.search.budget))
    if declared := plan.config.held_against:
        rows = results.read_rows(plan.table("comparisons"), ComparisonRow)
        print(controls_text(panels(rows, declared)) + "\n")


def _trained(plan: Plan) -> tuple[dict[str, Data], dict[str, Training]]:
    """What networks are trained on and how long: by data set, by protocol."""
    data = {}
    for dataset in plan.config.datasets:
        about = plan.about(dataset.key)
        shape = about.channels, about.resolution
        data[dataset.key] = data_of(about.counts["train"], *shape, about.values)
    evaluations = plan.config.evaluations
    return data, {
        e.protocol: Training(e.epochs, e.whole_epochs, e.batch, e.step_size) for e in evaluations
    }


def _join(plan: Plan) -> tuple[Judged, Any]:
    """The tables of evaluations, traces, weights, trials and privacy, from the files of all jobs;
    returns what ranking needs, and the rows that tell of the whole networks' weights."""
    evaluations: list[gathering.Block] = []
    traces: list[gathering.Block] = []
    runs = sorted(plan.runs(), key=lambda r: (r.dataset, r.ipc, r.method, r.tuned, r.seed))
    for _, group in groupby(runs, key=lambda run: (run.dataset, run.ipc, run.method)):
        same = list(group)
        evaluations += [
            {plan.paths(run).evaluation: partial(plan.judged_spec, run) for run in same}
        ]
        traces += [{plan.paths(run).trace: partial(_traced, plan, run)} for run in same]
    judged = collect_evaluations(evaluations, plan.table("evaluations"))
    collapses = collect_traces(traces, plan.table("traces"), plan.table("weights"))
    trials = [{plan.trials(*s): {"spec": plan.search_spec(*s)}} for s in sorted(plan.searches())]
    exposed = {
        plan.paths(run).privacy: privacy_plan.privacy_spec(plan, run)
        for run in privacy_plan.exposed(plan)
    }
    for name, schema, blocks in (("trials", TRIALS, trials), ("privacy", PRIVACY, [exposed])):
        if any(blocks):
            gathering.collect(blocks, plan.table(name), schema)
        else:  # the workflow declares the table, searched or asked for or not
            results.write_table([], plan.table(name), schema, {"files": 0})
    return judged, collapses


def _traced(plan: Plan, run: Run) -> dict[str, Any]:
    """What made a run's trace."""
    return {"spec": plan.spec(run)}


def positive_classes(plan: Plan, *datasets: str) -> dict[str, Positive]:
    """The positive class of each of these prepared data sets that names one."""
    found = {}
    for dataset in datasets:
        about = plan.about(dataset)
        if about.positive is not None:
            label = about.class_names.index(about.positive)
            found[dataset] = Positive(about.positive, label)
    return found


def show(plan: Plan, compare: str | None = None, privacy: bool = False) -> None:
    """Print the leaderboard, or one method compared with the others, or what the sets give away;
    and where the files lie.

    Tables are enough: where data or a submission are gone, so that nobody can tell whether the
    tables are up to date, that is said.
    """
    table = plan.table("leaderboard")
    results.read_metadata(table)
    try:
        identity = configuration(plan)
    except ValueError as error:
        print(f"iadd: these tables may be out of date: {error}", file=sys.stderr)
    else:
        _check_current(table, identity)
    if privacy:
        privacy_plan.asked_of(plan)
        print(exposure_text(results.read_rows(plan.table("privacy"), PrivacyRow)))
    elif compare is None:
        board = results.read_rows(table, LeaderboardRow)
        _print(plan, board)
    else:
        rows = results.read_rows(plan.table("comparisons"), ComparisonRow)
        print(comparisons_text(rows, compare))
    print(f"Tables: {plan.root}/*.parquet, {table.with_suffix('.csv')}")
    print(f"Page:   {plan.root / 'site' / 'index.html'}")


def configuration(plan: Plan) -> str:
    """Identifies what the tables of a benchmark hold: every run's spec and how it is judged."""
    runs = {str(run): plan.spec(run) for run in plan.runs()}
    judged = {d.key: plan.evaluation_spec(d.key) for d in plan.config.datasets}
    exposed = [privacy_plan.privacy_spec(plan, run) for run in privacy_plan.exposed(plan)]
    told = {"privacy": exposed, "submissions": [s.told for s in plan.config.submissions]}
    return spec_hash({"runs": runs, "evaluations": judged, **told})


def current(plan: Plan) -> Path:
    """The leaderboard's table; ValueError if it was made under another configuration."""
    table = plan.table("leaderboard")
    _check_current(table, configuration(plan))
    return table


def _check_current(table: Path, identity: str) -> None:
    if results.read_metadata(table).get("configuration") != identity:
        raise ValueError(f"{table}: was made under other settings or data; run: iadd run CONFIG")


def compared(plan: Plan) -> dict[str, str]:
    """Data set -> the one whose published values stand beside its own, where images are alike."""
    names = {d.key: d.published_name for d in plan.config.datasets}
    return {k: name for k, name in names.items() if same_side(name, plan.about(k).resolution)}


def site(plan: Plan) -> None:
    """Build the folder `site` from the tables and the pictures of the distilled sets."""
    from iadd.leaderboard.site import RunKey, Search, build_site

    current(plan)
    names = ("leaderboard", "comparisons", "evaluations", "traces", "weights", "trials", *TOLD)
    drawn = {
        run: RunKey(run.dataset, run.ipc, run.method, run.tuned, run.seed)
        for run in plan.runs()
        if run.method != "whole"
    }
    asked = plan.config.privacy
    shown = privacy_plan.exposed(plan) if asked and asked.pictures else ()
    out = plan.root / "site"
    build_site(
        tables={name: plan.table(name) for name in names},
        pictures={key: plan.paths(run).picture for run, key in drawn.items()},
        searches={Search(*s): plan.winner(*s).with_suffix(".png") for s in plan.searches()},
        out=out,
        pairs={drawn[run]: plan.paths(run).pairs for run in shown if run.seed == 0},
    )
    print(f"{out / 'index.html'}: written")


def about(plan: Plan) -> dict[str, Any]:
    """What the pages tell of the benchmark beside its rows (`leaderboard.site.content.About`)."""
    config = plan.config
    keys = [d.key for d in config.datasets]
    return {
        "title": config.benchmark,
        "budget": config.search.budget if config.search.methods else "",
        "classes": {key: list(plan.about(key).class_names) for key in keys},
        "data": {key: _data_words(plan.about(key)) for key in keys},
        "experts": {key: list(lines) for key in keys if (lines := expert_lines(plan, key))},
        "warnings": {k: list(lines) for k in keys if (lines := few_tested(plan.about(k)))},
        "methods": {entry: config.method(entry) for entry in config.methods},
        "controls": config.held_against,
    }


def _data_words(about: About) -> str:
    """What a data set holds, in a sentence."""
    side, colour = about.resolution, "grey" if about.channels == 1 else "colour"
    train, validation, test = (sum(about.counts[p]) for p in ("train", "validation", "test"))
    return (
        f"{len(about.class_names)} classes, images of {side} x {side} pixels in {colour}: "
        f"{train:,} for training, {validation:,} for validation, {test:,} for the test."
    )
