"""`iadd reproduce`: measured values beside published ones, and what differs in the set-up."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_up_tables import rank, runs, spread, table

from iadd.leaderboard.rows import LeaderboardRow
from iadd.pipeline.config import load_config, parse_config
from iadd.pipeline.config.file import read_yaml
from iadd.pipeline.plan import Plan
from iadd.pipeline.reproduce import report

CIFAR = Path(__file__).parent.parent / "config" / "cifar10.yaml"
NET = "convnet-d3-w128"


def board(method: str, accuracy: float, network: str = NET, **changes: Any) -> list[LeaderboardRow]:
    here = {"dataset": "cifar10", "network_eval": network, "network_distill": network} | changes
    return rank(table([row | here for row in runs(method, spread(accuracy))]))


def changed(**changes: Any) -> Plan:
    return Plan(parse_config(read_yaml(CIFAR) | changes, "x"))


def test_a_benchmark_by_the_published_recipe_differs_in_nothing_but_what_is_not_known() -> None:
    lines = report(Plan(load_config(CIFAR)), board("mtt", 0.465)).splitlines()
    assert lines == [
        "mtt, cifar10, 1 image a class, hard labels, evaluated by convnet-d3-w128, protocol "
        "mtt-v1: measured 46.5 (45.5 to 47.5, 3 seeds), published 46.3 +- 0.8 (arXiv 2203.11932, "
        "as quoted in arXiv 2601.21296, table 1): agrees with published 46.3"
    ]


def test_what_differs_is_told() -> None:
    small = read_yaml(CIFAR)
    methods = {"mtt": {"params": {"iterations": 600, "lr_lr": 1e-5}}, "random": None, "iadd": None}
    plan = changed(
        network="convnet-d3-w32",
        methods=methods,
        experts={"count": 10, "recipe": {"batch": 64}},
        datasets=[{"name": "folder", "root": "x", "label": "cifar10", "published": "cifar10"}],
        evaluations=[small["evaluations"][0] | {"epochs": 300}],
    )
    rows = board("mtt", 0.36, "convnet-d3-w32") + board("iadd", 0.36, "convnet-d3-w32")
    first, second, third = report(plan, rows).splitlines()
    assert first.endswith("lower than published 46.3")
    assert second.startswith("    differs (published in brackets): ")
    told = second.split(": ")[1].split("; ")
    assert {
        "data folder (cifar10)",
        "judged by convnet-d3-w32 (convnet-d3-w128)",
        "network convnet-d3-w32 (convnet-d3-w128)",
        "iterations 600 (5000)",
        "lr_lr 1e-05 (1e-07)",
        "zca no (yes)",
        "experts 10 (100)",
        "experts' batch 64 (256)",
        "evaluation epochs 300 (1000)",
    } == set(told)
    assert third == "In some tables no published value is known of: iadd"


def test_images_of_another_side_are_told_and_how_long_whole_was_trained() -> None:
    plan = Plan(load_config(CIFAR))
    for side, told in ((32, ""), (28, "pixels a side 28 (32)")):
        plan.known_about = lambda _, side=side: SimpleNamespace(resolution=side)  # type: ignore
        assert told in report(plan, board("mtt", 0.465))
        assert ("differs" in report(plan, board("mtt", 0.465))) == bool(told)
    text = report(plan, board("whole", 0.6, ipc=0))
    assert "(32); trained for 100 epochs; how long the published one was is not known to us" in text


def test_the_seeds_that_are_missing_are_counted() -> None:
    plan = Plan(load_config(CIFAR))
    (row,) = board("ddpp", 0.465)
    wide = replace(row, accuracy_std=0.02, accuracy_low=0.415, accuracy_high=0.515)
    text = report(plan, [wide])
    assert "ddpp (a reconstruction)" in text
    assert "undecided beside published 46.4 (15 more seeds would settle it)" in text
    one = replace(row, n_seeds=1, accuracy_std=None, accuracy_low=None, accuracy_high=None)
    assert "46.5 (1 seed, so no interval)" in report(plan, [one])
    assert "settings published for ddpp here are not known to us" in report(plan, [one])


def test_the_whole_data_are_told_once_and_tuned_or_published_rows_not_at_all() -> None:
    plan = Plan(load_config(CIFAR))
    mtt, other = board("mtt", 0.465), board("mtt", 0.65, ipc=10)
    (whole,) = board("whole", 0.848, ipc=0)
    text = report(plan, [*mtt, replace(whole, ipc=1), *other, replace(whole, ipc=10)])
    assert text.count("whole, cifar10, evaluated by convnet-d3-w128, protocol mtt-v1") == 1
    assert report(plan, [replace(mtt[0], tuned=True), replace(mtt[0], source="published")]) == ""


@pytest.mark.parametrize("method", ["random", "dc"])
def test_protocols_are_not_mixed(method: str) -> None:
    plan = Plan(load_config(CIFAR))
    by_dc = report(plan, board(method, 0.2, protocol="dc-v1"))
    by_mtt = report(plan, board(method, 0.2))
    assert ("14.4 +- 2.0" if method == "random" else "28.3 +- 0.5") in by_dc
    assert ("15.4 +- 0.3" if method == "random" else "No published value") in by_mtt


def test_one_s_own_images_are_compared_only_if_the_file_says_what_they_are() -> None:
    plan = changed(datasets=[{"name": "folder", "root": "x", "label": "cifar10"}])
    assert report(plan, board("mtt", 0.465)).startswith("No published value is known of: mtt")
