"""Forecast: complete, for any precision, the same number of jobs as the graph has."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from image_files import tree
from test_plan import plain, plan

from iadd.pipeline import stages
from iadd.pipeline.config import parse_config
from iadd.pipeline.forecast import Forecast
from iadd.pipeline.plan import Plan
from iadd.pipeline.plan_text import print_plan

GRADIENT = {"iterations": 10, "batch_real": 8, "outer_steps": 3}


def rows(p: Plan) -> dict[str, Any]:
    return {row.stage: row for row in Forecast(p).rows}


def test_searches_and_tuned_runs_are_in_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = rows(plan(search={"methods": ["mtt"], "trials": 9}))
    assert found["search mtt"].jobs == 2 and found["distill mtt, tuned"].jobs == 2 * 3
    assert found["evaluate mtt, tuned"].jobs == 2 * 3 and found["data"].jobs == 1
    assert found["search mtt"].seconds > found["distill mtt"].seconds > 0
    more = rows(plan(search={"methods": ["mtt"], "trials": 90, "scheduler": "none"}))
    assert more["search mtt"].seconds > 2 * found["search mtt"].seconds
    assert not Path("results").exists()


def test_validations_and_inner_epochs_cost_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seconds = []
    for changes in ({}, {"validations": 50}, {"inner_epochs": 500}):
        base = {"validations": 1, "inner_epochs": 0} | GRADIENT | changes
        seconds.append(Forecast(plan(methods={"dc": {"params": base}})))
    forecasts = seconds
    first = forecasts[0]
    for other in forecasts[1:]:
        other._rates = first._rates  # the same measurement
        assert other.distill_seconds("blobs", "dc", 1) > 1.5 * first.distill_seconds(
            "blobs", "dc", 1
        )


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_plan_for_a_card_needs_none(
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    print_plan(plan(precision=precision))
    told = capsys.readouterr().out
    assert f"core time left on this machine's CPU (not {precision})" in told and "0.0" not in told


def test_data_are_checked_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="data set blobs: ipc 500 is larger than class"):
        print_plan(plan(ipc=[500]))
    Path("x").mkdir()
    missing = plain(datasets=[{"name": "folder", "root": "x", "resolution": 8}])
    with pytest.raises(ValueError, match="x"):
        print_plan(Plan(parse_config(missing, "c")))


@pytest.mark.parametrize("zca", [False, True])
def test_prepared_images_take_what_was_forecast(
    zca: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "images", {"a": 200, "b": 200}, side=24)
    p = plan(datasets=[{"name": "folder", "root": "images", "zca": zca}], ipc=[1])
    before = rows(p)["data"]
    stages.prepare(p, "folder")
    after = rows(p)["data"]
    files = p.data("folder").train, p.data("folder").test
    assert after.disk == sum(path.stat().st_size for path in files) and after.jobs == 0
    assert before.disk == 400 * 24 * 24 * (4 if zca else 1) < after.disk
    # Beside the images: labels, names and sizes, and the matrix of the whitening in both files.
    assert after.disk - before.disk < 20_000 + zca * 2 * 4 * (24 * 24) ** 2 * 1.1


def test_a_jobs_cost_is_found_by_rule_and_wildcards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    p = plan()
    forecast = Forecast(p)
    shard = {"folder": p.experts_folder("blobs").name, "shard": "0"}
    run = {"dataset": "blobs", "method": "mtt", "ipc": "1", "seed": "0", "tuned": ""}
    for rule, wildcards in (("experts", shard), ("distill", run), ("evaluate", run)):
        assert forecast.seconds_of(rule, wildcards) > 0
    assert forecast.seconds_of("collect", {}) == 0


def test_passes_are_counted_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: a third of a gradient for each answer; augmentation where a protocol has it."""
    monkeypatch.chdir(tmp_path)
    protocols = [
        {"protocol": name, "networks": {"mlp": 2}, "epochs": 10, "whole_epochs": 3}
        for name in ("mtt-v1", "mtt-v1-noaug")
    ]
    recipe = {"step_size": 0.1, "rho": 0.01}
    validation = {"networks": 4, "epochs": 7, "protocol": "mtt-v1"}
    made: dict[str, Any] = {"evaluations": protocols, "validation": validation}
    made["experts"] = {"count": 5, "per_shard": 2, "recipe": recipe}
    forecast = Forecast(plan(methods={"mtt": {"params": {"iterations": 1}}, "whole": None}, **made))
    rates = {True: 7.0, False: 3.0}  # an augmentation takes 4, an answer 1
    forecast._rate = lambda *of: rates[of[2] if len(of) > 2 else False]  # type: ignore[method-assign]
    counts = {part: sum(n) for part, n in forecast.abouts["blobs"].counts.items()}
    train, held_out, tested = (counts[part] for part in ("train", "validation", "test"))
    classes = len(forecast.abouts["blobs"].class_names)
    trained, answers = 10 * classes, classes + tested
    assert forecast.evaluate_seconds("blobs", "mtt", 1) == pytest.approx(
        2 * (7 * trained + answers) + 2 * (3 * trained + answers)
    )
    assert forecast.evaluate_seconds("blobs", "whole", 0) == pytest.approx(
        2 * (7 * 3 * train + train + tested) + 2 * (3 * 3 * train + train + tested)
    )
    epochs = forecast.plan.expert_epochs("standard")
    assert forecast.expert_seconds("blobs", "standard", 0) == pytest.approx(
        2 * (epochs * train * (7 + 3) + held_out)
    )
    assert forecast._probe_seconds("blobs", "mtt", 1) == pytest.approx(
        4 * (7 * 7 * classes + held_out)
    )


def test_an_augmentation_costs_something_and_none_nothing() -> None:
    forecast = Forecast(plan())
    about = forecast.abouts["blobs"]
    bare = forecast._rate("blobs", "mlp")
    assert about.augmentation and forecast._rate("blobs", "mlp", True) > bare > 0
    forecast.abouts["blobs"] = replace(about, augmentation=())
    assert forecast._rate("blobs", "mlp", True) == bare
