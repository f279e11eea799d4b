"""How far a benchmark is, told from its files alone."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from iadd.pipeline import remaining, stages, status
from iadd.pipeline.plan import Plan, Run
from iadd.progress import Progress

SMOKE = Path(__file__).parent.parent / "config" / "smoke.yaml"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A benchmark of three runs of `random`, whose data are prepared."""
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(SMOKE.read_text())
    config |= {"methods": {"random": {}}, "evaluations": config["evaluations"][:1]}
    config["evaluations"][0] |= {"networks": {"mlp": 1}, "epochs": 2}
    Path("c.yaml").write_text(yaml.safe_dump(config))
    plan, key = stages.open_plan(Path("c.yaml"))
    stages.prepare(plan, key)
    return plan


def leave_word(plan: Plan, rule: str, run: Run, **changes: Any) -> None:
    word = {"title": "x", "host": platform.node(), "pid": os.getpid(), "rate": 2.0, "note": "n"}
    word |= {"began": time.time() - 60, "told": time.time() - 5, "done": 20, "total": 100}
    path = plan.progress_file(rule, run.place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(word | changes))


def leave_log(plan: Plan, rule: str, run: Run, text: str) -> None:
    log = plan.log(rule, run.place)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text)


def test_before_anything_ran_all_wait_and_nothing_is_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = status.status(stages.open_plan(SMOKE)[0])
    assert found.all.total == found.all.waiting == 1 + 2 + 2 * 6 + 2
    assert list(found.stages) == ["data", "experts", "distill", "evaluate", "collect and site"]
    assert (found.disk, found.disk_forecast, found.seconds_left) == (0, None, None)
    assert not Path("results").exists()


def test_done_running_failed_and_waiting_jobs_are_told_apart(plan: Plan) -> None:
    one, two, three = plan.runs()
    for run in (one, two):
        stages.distill(plan, run)
    stages.evaluate(plan, one)
    leave_word(plan, "evaluate", two)
    leave_log(plan, "evaluate", two, "")
    leave_log(plan, "distill", three, "something\niadd: images.npz: is empty\n")
    found = status.status(plan)
    assert vars(found.stages["data"]) == vars(status.Counts(done=1))
    assert vars(found.stages["distill"]) == vars(status.Counts(done=2, failed=1))
    assert vars(found.stages["evaluate"]) == vars(status.Counts(done=1, running=1, waiting=1))
    (running,), (failed,) = found.running, found.failed
    assert running.job == "evaluate random blobs ipc1 seed1" and running.done == 20
    assert running.seconds_left == pytest.approx(80 / 2 - 5, abs=1)
    assert running.seconds == pytest.approx(60, abs=2)
    assert failed.reason == "iadd: images.npz: is empty" and failed.log.endswith("seed2.log")
    assert found.disk > 1000 and found.disk_forecast and found.seconds_left
    status.print_status(found)


def test_a_killed_job_is_not_running_and_another_machines_may_be(plan: Plan) -> None:
    one, two, three = plan.runs()
    gone = 2**22 + 1  # no process has such a number
    for run in (one, two):
        leave_log(plan, "distill", run, "")
        os.utime(plan.log("distill", run.place), (1, 1))
    leave_word(plan, "distill", one, pid=gone)
    leave_word(plan, "distill", two, pid=gone, host="node7")
    leave_log(plan, "distill", three, "")  # a moment ago: it is starting, if anything runs
    assert vars(status.status(plan).stages["distill"]) == vars(
        status.Counts(failed=1, running=1, waiting=1)
    )
    with plan.lock():
        found = status.status(plan)
    assert [job.job[-5:] for job in found.failed] == ["seed0"]
    assert "killed" in found.failed[0].reason
    assert [(job.job[-5:], job.host) for job in found.running] == [
        ("seed1", "node7"),
        ("seed2", ""),
    ]


def test_a_job_that_somebody_stopped_waits(plan: Plan) -> None:
    for run in plan.runs():
        leave_log(plan, "distill", run, "Traceback (most recent call last):\nKeyboardInterrupt\n")
    assert vars(status.status(plan).stages["distill"]) == vars(status.Counts(waiting=3))


def test_what_was_made_and_taken_away_waits(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    run = next(plan.runs())
    for rule, stage, path in (
        ("distill", stages.distill, plan.paths(run).distilled),
        ("evaluate", stages.evaluate, plan.paths(run).evaluation),
    ):
        capsys.readouterr()
        stage(plan, run)
        leave_log(plan, rule, run, capsys.readouterr().out)
        path.rename(path.with_suffix(".kept"))
        assert vars(status.status(plan).stages[rule]) == vars(status.Counts(waiting=3))
        path.with_suffix(".kept").rename(path)


def test_experts_that_nobody_reads_any_more_are_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan, key = stages.open_plan(SMOKE)
    stages.prepare(plan, key)
    for shard in range(2):
        stages.record(plan, key, shard)
    plan.shards(key, "standard")[1].unlink()
    assert vars(status.status(plan).stages["experts"]) == vars(status.Counts(done=1, waiting=1))
    monkeypatch.setattr(
        remaining.Job, "done", property(lambda job: job.path.exists() or job.rule != "experts")
    )
    assert vars(status.status(plan).stages["experts"]) == vars(status.Counts(done=2))


def test_what_was_made_under_other_settings_waits(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next(plan.runs())
    stages.distill(plan, run)
    leave_log(plan, "distill", run, "done")
    text = Path("c.yaml").read_text()
    Path("c.yaml").write_text(text.replace("w16", "w8"))
    changed = status.status(stages.open_plan(Path("c.yaml"))[0])
    assert vars(changed.stages["distill"]) == vars(status.Counts(waiting=3))
    capsys.readouterr()
    status.print_status(changed)
    told = capsys.readouterr().out
    assert "\n1 result of other settings, data or code will be replaced; under another" in told


def test_the_time_left_goes_by_the_pace_of_the_last_hour(plan: Plan) -> None:
    one, two, three = plan.runs()
    for run, age in ((one, 100), (two, 50)):
        stages.distill(plan, run)
        os.utime(plan.paths(run).distilled, (time.time() - age,) * 2)
    os.utime(plan.data("blobs").about, (1, 1))
    forecast = stages_cost(plan)
    leave_word(plan, "distill", three)
    found = status.status(plan)
    # Of 100 seconds since the first, one more distillation was all that was done.
    expected = 100 * (forecast["distill"] + 3 * forecast["evaluate"]) / forecast["distill"]
    assert found.seconds_left == pytest.approx(expected, rel=0.2)
    os.utime(plan.paths(one).distilled, (1, 1))
    assert status.status(plan).seconds_left is None


def stages_cost(plan: Plan) -> dict[str, float]:
    forecast = status.Forecast(plan)
    names = {"dataset": "blobs", "method": "random", "ipc": "1"}
    return {r: status.START + forecast.seconds_of(r, names) for r in ("distill", "evaluate")}


def test_the_command_tells_it_in_words_and_as_json(iadd: Command) -> None:
    code, out, err = iadd("status", str(SMOKE))
    assert code == 0 and not err
    assert out.startswith("smoke: 0 of 17 jobs done\n") and "experts" in out
    code, out, _ = iadd("status", str(SMOKE), "--json")
    told = json.loads(out)
    assert told["all"] == {"done": 0, "running": 0, "failed": 0, "waiting": 17}
    assert told["stages"]["distill"]["waiting"] == 6 and told["running"] == []
    assert iadd("status", "nothing.yaml")[0] == 2


def test_work_leaves_word_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("iadd.progress.time.monotonic", lambda: clock[0])
    file = tmp_path / "running" / "a.json"
    with Progress("some work", file) as progress:
        word = json.loads(file.read_text())
        assert (word["title"], word["pid"], word["total"]) == ("some work", os.getpid(), None)
        progress(1, 10)
        assert json.loads(file.read_text())["done"] == 0  # not more often than every ten seconds
        clock[0] += 20
        progress(5, 10, "loss 1")
        word = json.loads(file.read_text())
        assert (word["done"], word["total"], word["note"]) == (5, 10, "loss 1")
        assert word["rate"] == pytest.approx(5 / 20)
        assert list(file.parent.iterdir()) == [file]
    assert not file.exists()


def test_a_folder_that_cannot_be_written_ends_no_work(tmp_path: Path) -> None:
    (tmp_path / "running").write_text("a file where the folder would be")
    with Progress("some work", tmp_path / "running" / "a.json") as progress:
        progress(1, 1)
