"""Search: resumes without losing a trial, survives a node, refuses nonsense in one line."""

import base64
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iadd import methods
from iadd.artifacts import canonical_json
from iadd.leaderboard import results
from iadd.pipeline import stages
from iadd.pipeline.config import parse_config
from iadd.pipeline.plan import Plan, Run
from iadd.pipeline.search_space import space_of
from iadd.progress import Progress
from iadd.seeds import generator_for

pytest.importorskip("ray")
pytest.importorskip("optuna")

from iadd.search import contenders, importance, search
from iadd.search.cluster import SOCKET_ROOT, cluster, temporary_root
from iadd.search.figure import png
from iadd.search.journal import Entry, Journal
from iadd.search.population import explore, founders, next_generation
from iadd.search.remote import run_all
from iadd.search.stopping import Quota, milestones
from iadd.search.trial import Task, _problem, advance, attempt, settings_of
from iadd.search.tune import _follow, first_points

TUNED_RUN = Run("blobs", "mtt", 1, 0, tuned=True)
MTT = {
    "iterations": 18,
    "unrolled_steps": 3,
    "expert_epochs": 1,
    "max_start": 2,
    "lr_img": 30,
    "clip": 1.0,
    "step_size": 0.05,
    "lr_lr": 1e-5,
    "validations": 2,
}


def benchmark(**search_keys: Any) -> dict[str, Any]:
    tiny = {
        "methods": ["mtt"],
        "trials": 6,
        "confirm_seeds": 1,
        "confirm_networks": 1,
        "finalists": 1,
        "space": {"mtt": {"unrolled_steps": {"int": [1, 4]}, "max_start": {"int": [1, 3]}}},
    }
    return {
        "benchmark": "b",
        "seeds": 1,
        "ipc": [1],
        "datasets": [{"name": "blobs"}],
        "network": "mlp",
        "experts": {"count": 2, "per_shard": 2, "recipe": {"step_size": 0.05, "batch": 32}},
        "validation": {"networks": 1, "epochs": 6},
        "evaluations": [{"networks": {"mlp": 2}, "epochs": 6, "whole_epochs": 2}],
        "methods": {"random": None, "whole": None, "mtt": {"params": MTT}},
        "search": tiny | search_keys,
    }


def plan_of(**search_keys: Any) -> Plan:
    return Plan(parse_config(benchmark(**search_keys), "x"))


def task_of(plan: Plan, folder: Path) -> Task:
    text = canonical_json(plan.config.model_dump(mode="json"))
    return Task(text, str(folder), "blobs", "mtt", 1)


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with experts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    stages.record(plan_of(), "blobs", 0)
    return tmp_path


def table(plan: Plan) -> list[dict[str, Any]]:
    rows = results.read_table(plan.trials("blobs", "mtt", 1), results.TRIALS)
    return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]


def shape(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """All of the trials but their seconds."""
    names = ("trial", "seed", "config", "rung", "iteration", "validation_accuracy", "status")
    return [tuple(str(row[name]) for name in names) for row in rows]


# What may be searched.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["random"]}, "method random has nothing to tune"),
        ({"methods": ["mtx"]}, "unknown method 'mtx'"),
        ({"methods": ["dm"], "space": {}}, "dm is not in methods"),
        ({"searcher": "bohb"}, "search.searcher: .*'tpe', 'random' or 'grid'"),
        ({"trials": 0}, "search.trials: .*greater than or equal to 1"),
        ({"rung": 3}, "unknown key"),
        ({"space": {"mtt": {"lr_image": None}}}, "mtt.lr_image: unknown parameter; allowed: iter"),
        ({"space": {"dm": {}}}, "space.dm: is not among the tuned"),
        ({"space": {"mtt": {"lr_img": {"log": [0, 1]}}}}, "starts above 0, not at 0"),
        ({"space": {"mtt": {"lr_img": {"log": [5, 1]}}}}, r"allowed are \{log\|uniform\|int"),
        ({"space": {"mtt": {"lr_img": {"normal": [0, 1]}}}}, r"allowed are \{log\|uniform\|int"),
        ({"space": {"mtt": {"lr_img": [3]}}}, "at least two choices"),
        ({"space": {"mtt": {"momentum": {"uniform": [0, 1]}}}}, "the method refuses 1.0: .*less"),
        ({"space": {"mtt": {"init": ["real", "cats"]}}}, "the method refuses 'cats'"),
        ({"space": {"mtt": {"batch_syn": {"int": [1, 5]}}}}, "cannot hold the default None"),
        ({"points": {"mtt": [{"lr_img": -1}]}}, "lr_img: .*greater than 0"),
    ],
)
def test_nonsense_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        plan_of(**changes)
    assert "\n" not in str(caught.value)


def test_the_space_holds_the_default_and_what_the_benchmark_changes() -> None:
    space = space_of(
        "mtt", {"lr_img": 0.5, "max_start": 30}, {"lr_lr": None, "init": ["noise"] * 2}
    )
    assert space["lr_img"] == ("log", 0.5, 1e4)
    assert space["max_start"] == ("int", 1, 30)
    assert "lr_lr" not in space
    assert space["init"] == ["real", "noise", "noise"]


def test_experts_reach_as_far_as_any_trial_may() -> None:
    plain = plan_of(space={"mtt": {"max_start": None, "expert_epochs": None}})
    assert plain.expert_epochs == 2 - 1 + 1
    assert plan_of(space={"mtt": {"max_start": {"int": [1, 9]}}}).expert_epochs == 9 - 1 + 4


def test_the_default_is_the_first_point_then_the_recipes_then_the_grid(tmp_path: Path) -> None:
    keep: Any = dict.fromkeys(("lr_lr", "step_size", "expert_epochs", "max_start"))
    space = {"mtt": keep | {"unrolled_steps": [2, 3], "lr_img": {"log": [1, 100]}}}
    plan = plan_of(searcher="grid", space=space, points={"mtt": [{"lr_img": 7.0}]})
    points = first_points(task_of(plan, tmp_path), plan.config.space("mtt", 1), plan.config.search)
    assert points[0] == {"unrolled_steps": 3, "lr_img": 30}
    assert points[1] == {"unrolled_steps": 3, "lr_img": 7.0}
    grid = {(p["unrolled_steps"], round(p["lr_img"], 6)) for p in points[2:]}
    assert grid == {(j, lr) for j in (2, 3) for lr in (1.0, 10.0, 100.0)}
    with pytest.raises(ValueError, match="grid of mtt has 6 points, 5 trials are allowed"):
        few = plan_of(searcher="grid", space=space, trials=5)
        first_points(task_of(few, tmp_path), few.config.space("mtt", 1), few.config.search)


def test_settings_are_cut_to_four_digits_but_for_the_default(tmp_path: Path) -> None:
    task = task_of(plan_of(), tmp_path)
    cut = settings_of(task, {"lr_img": 12.34567, "step_size": 0.05, "unrolled_steps": 3})
    assert cut == {"lr_img": 12.35, "step_size": 0.05, "unrolled_steps": 3}


# What is written down.


def test_a_journal_keeps_its_own_trials_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.claim({"a": 1})
    entry = Entry(3, {"x": 1.23456}, {"x": 1.235})
    entry.add(10, 0.5, 1.0)
    entry.add(10, 0.9, 9.0)  # told twice, measured once
    journal.write(entry)
    (tmp_path / "j" / "trials" / "0.json").write_text("")  # cut short by a crash
    journal.claim({"a": 1})
    assert journal.entries() == [entry]
    assert entry.rows == [{"iteration": 10, "accuracy": 0.5, "seconds": 1.0}]
    journal.claim({"a": 2})
    assert journal.entries() == []


def test_two_searches_do_not_share_a_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    refused = pytest.raises(ValueError, match="another process is searching")
    with journal.lock(), refused, journal.lock():
        pass
    with journal.lock():
        pass


class Killed(BaseException):
    pass


def test_a_killed_trial_goes_on_and_ends_like_one_that_was_not(ready: Path) -> None:
    task = task_of(plan_of(), ready)
    point = {"lr_img": 20.0, "unrolled_steps": 2}

    def run(kill_at: int | None, start: Entry) -> list[tuple[int, float]]:
        heard: list[tuple[int, float]] = []

        def report(iteration: int, accuracy: float) -> None:
            heard.append((iteration, accuracy))
            if iteration == kill_at:
                raise Killed

        with contextlib.suppress(Killed):
            attempt(task, start, report)
        return heard

    task.journal.claim({})
    whole = run(None, Entry(0, point, point))
    first = task.journal.read(Entry(0, point, point).key)
    assert first and first.status == "ok" and first.attempts == 1
    assert [i for i, _ in whole] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert [a for _, a in whole] == sorted(a for _, a in whole)
    task.journal.claim({"again": True})
    assert run(8, Entry(0, point, point)) == whole[:4]
    left = task.journal.read(first.key)
    assert left and left.status == "running"
    assert run(None, left) == whole
    second = task.journal.read(first.key)
    assert second and second.attempts == 2
    accuracies = [[row["accuracy"] for row in e.rows] for e in (first, second)]
    assert accuracies[0] == accuracies[1]
    assert run(None, second) == whole  # a finished trial only tells


def test_a_trial_that_ran_out_of_memory_is_recorded_and_counts(tmp_path: Path) -> None:
    task = task_of(plan_of(), tmp_path)
    task.journal.claim({})
    point = {"lr_img": 20.0, "unrolled_steps": 2}
    error = RuntimeError("Traceback ...\nCUDA out of memory")
    trial = SimpleNamespace(config={"number": 4, "point": point}, get_error=lambda: error)
    _follow(task, 2, Progress("x")).on_trial_error(trial=trial)
    (entry,) = task.journal.entries()
    assert (entry.number, entry.status, entry.reason) == (4, "failed", "CUDA out of memory")
    heard: list[Any] = []
    attempt(task, entry, lambda *told: heard.append(told))
    assert heard == [(1, 0.0)]  # a resumed search does not try it again


def test_asha_decides_where_it_measures_first_and_then_ever_later() -> None:
    assert milestones(300, 9, 4) == [33, 132]
    assert milestones(18, 9, 4) == [2, 8]
    assert milestones(4, 9, 4) == [1]  # the end is no rung: what comes there has run


def test_no_more_than_the_quota_passes_a_rung_but_records() -> None:
    """In whatever order they come: ties, and a searcher that learns, are not let through."""
    quota = Quota(4)
    assert [quota.admits(0.5, True) for _ in range(9)] == [True, *[False] * 3, True, *[False] * 3,
                                                           True]  # fmt: skip
    assert quota.admits(0.6, True)  # over the quota, but better than all before it
    assert not quota.admits(0.6, True) and not quota.admits(0.1, False)
    learns = Quota(4)
    found = [learns.admits(0.9 + 0.001 * (k % 20) - (k % 4) / 100, k % 4 < 2) for k in range(32)]
    assert sum(found) <= 32 / 4 + 2


def test_importance_finds_the_parameter_that_matters() -> None:
    space: Any = {"lr_img": ("log", 1.0, 100.0), "unrolled_steps": ("int", 1, 9)}
    entries = []
    for k in range(30):
        settings = {"lr_img": 10 ** (2 * ((k * 7) % 30) / 29), "unrolled_steps": 1 + k % 9}
        entry = Entry(k, settings, settings)
        entry.add(1, settings["lr_img"] / 100, 1.0)
        entries.append(entry)
    weights = importance(entries, space)
    assert weights["lr_img"] > 0.8
    assert sum(weights.values()) == pytest.approx(1, abs=1e-3)
    assert importance(entries[:5], space) == {}


def test_contenders_are_the_default_and_the_best_that_ran_to_their_end(tmp_path: Path) -> None:
    plan = plan_of(finalists=2)
    task = task_of(plan, tmp_path)
    default = first_points(task, plan.config.space("mtt", 1), plan.config.search)[0]
    task.journal.claim({})
    for number, (accuracy, status) in enumerate(
        [(0.1, "stopped"), (0.9, "failed"), (0.8, "stopped"), (0.6, "ok"), (0.7, "ok")]
    ):
        point = default | {"lr_img": default["lr_img"] + number}
        entry = Entry(number, point, settings_of(task, point), status=status)
        entry.add(18, accuracy, 1.0)
        task.journal.write(entry)
    assert [entry.number for entry in contenders(task, task.journal)] == [0, 4, 3]


# Populations.

POPULATION = {"scheduler": "pbt", "trials": 5, "rungs": 4}


def member(task: Task, number: int, accuracies: list[float], **changes: Any) -> Entry:
    """A member that reached the rungs 4, 8, ... with these accuracies."""
    default = first_points(task, task.plan.config.space("mtt", 1), task.plan.config.search)[0]
    point = default | {"lr_img": 30.0 + number}
    settings = settings_of(task, point)
    entry = Entry(number, point, settings, parent=number, **changes)
    for k, accuracy in enumerate(accuracies, 1):
        entry.add(4 * k, accuracy, 1.0 * k)
    return entry


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"methods": {"mtt": {"params": MTT | {"schedule": [[3, {"clip": 2}]]}}}},
            "methods.mtt: schedule: search.scheduler pbt finds one, give none",
        ),
        (
            {"methods": {"mtt": {"params": MTT | {"schedule": [[99, {"clip": 2}]]}}}},
            r"methods.mtt: schedule at iteration 99: allowed are 0\.\.17, ascending",
        ),
    ],
)
def test_a_population_finds_the_schedule_by_itself(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_config(benchmark(**POPULATION) | changes, "x")


def test_a_population_must_have_something_to_change() -> None:
    nothing: Any = dict.fromkeys(methods.find("mtt").space) | {"init": ["real", "noise"]}
    with pytest.raises(ValueError, match=r"space.mtt: pbt changes none of it; it may change batch"):
        plan_of(**POPULATION, space={"mtt": nothing})
    with pytest.raises(ValueError, match="schedule: unknown parameter"):
        plan_of(space={"mtt": {"schedule": [[], [[1, {}]]]}})


def test_steps_stay_in_the_space() -> None:
    generator = generator_for("steps")
    seen = {explore(10, ("int", 1, 20), generator) for _ in range(20)}
    assert seen == {8, 12}
    assert {explore(1, ("int", 1, 20), generator) for _ in range(20)} == {1, 2}
    assert {explore(0.1, ("log", 1e-3, 0.11), generator) for _ in range(20)} == {0.08, 0.11}
    assert {explore("a", ["a", "b", "c"], generator) for _ in range(40)} == {"a", "b", "c"}


def test_the_worst_branch_off_from_the_best_and_so_do_the_lost(tmp_path: Path) -> None:
    plan = plan_of(**POPULATION | {"trials": 8})
    task = task_of(plan, tmp_path)
    task.journal.claim({})
    space = plan.config.space("mtt", 1)
    population = [member(task, k, [0.1 * k]) for k in range(8)]
    population[5].rows.clear()
    population[5].status = "diverged"
    for entry in population:
        task.journal.write(entry)
        if entry.rows:
            checkpoint = task.journal.checkpoint(entry.key)
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.write_text(str(entry.number))
    after = next_generation(task, space, population, 4)
    assert [e.number for e in after] == list(range(8))
    branches = [e for e in after if e.branched]
    assert [e.number for e in branches] == [0, 5]
    for branch in branches:
        assert branch.parent in (6, 7)
        parent = population[branch.parent]
        ((start, changes),) = branch.settings["schedule"]
        assert start == 4 and changes and "step_size" not in changes
        plan.config.params("mtt", 1, branch.settings)  # a schedule that the method takes
        assert branch.settings["lr_img"] == parent.settings["lr_img"]
        assert task.journal.checkpoint(branch.key).read_text() == str(branch.parent)
        assert branch.own_rows == [] and branch.best == parent.best
    left = {e.number: e.status for e in task.journal.entries() if not e.branched}
    assert left[0] == "stopped" and left[5] == "diverged" and left[1] == "running"
    again = next_generation(task, space, population, 4)
    assert [e.key for e in again] == [e.key for e in after]
    everybody = [member(task, 0, []), member(task, 1, [])]
    assert next_generation(task, space, everybody, 4) == everybody  # nobody to learn from


def test_a_member_that_is_cut_off_goes_on_and_a_rest_is_no_retry(ready: Path) -> None:
    task = task_of(plan_of(**POPULATION), ready)
    task.journal.claim({})
    (entry, *_) = founders(task, task.plan.config.space("mtt", 1), [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iadd.search.trial.place", lambda entry: None)
        rungs = [advance(task, entry, rung) for rung in (6, 10, 14, 18)]
        assert [row["iteration"] for row in rungs[1].rows] == [6, 10]
        assert [e.status for e in rungs] == ["running"] * 3 + ["ok"]
        assert rungs[-1].attempts == 1
        assert advance(task, entry, 18).rows == rungs[-1].rows  # a lost answer is given again
        task.journal.claim({"again": 1})
        task.journal.checkpoint(entry.key).unlink(missing_ok=True)
        first = advance(task, entry, 6)
        task.journal.write(dataclasses.replace(first, rows=[], rested=False))  # lost its report
        second = advance(task, entry, 6)
        assert second.attempts == 2
        accuracies = [[row["accuracy"] for row in e.rows] for e in (first, second, rungs[0])]
        assert accuracies[0] == accuracies[1] == accuracies[2]


def test_a_population_survives_a_kill_and_its_winner_is_replayed(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iadd.pipeline.plan.source_of", lambda *names: "the same")
    keys = benchmark(**POPULATION)
    plan = Plan(parse_config(keys, "x"))
    (ready / "b.json").write_text(json.dumps(keys))
    (ready / "go.py").write_text(DRIVER)
    state = plan.search_state("blobs", "mtt", 1)
    journal = Journal(state)
    driver = subprocess.Popen([sys.executable, "go.py"], cwd=ready, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(e.branched and e.own_rows for e in journal.entries()):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # its workers die with it
    measured = {(e.key, r["iteration"]): r for e in journal.entries() for r in e.own_rows}
    assert 5 < len(measured) < 20
    winner = json.loads(search(plan, "blobs", "mtt", 1).read_text())
    entries = journal.entries()
    after = {(e.key, r["iteration"]): r for e in entries for r in e.own_rows}
    assert {key: after[key] for key in measured} == measured  # no rung was measured again
    rows = [row for row in table(plan) if row["seed"] == 0]
    assert {(row["trial"], row["rung"]) for row in rows} == {
        (number, rung) for number in range(5) for rung in range(4)
    }
    assert len(rows) == 20 and winner["evidence"]["trials"] == 5
    assert winner["evidence"]["iterations_share"] == 1.0
    assert {json.loads(row["config"]).get("schedule") is None for row in rows} == {True, False}
    before = shape(table(plan))

    # Not interrupted, with two workers: the same.
    state.rename(state.with_name("old"))
    search(plan, "blobs", "mtt", 1, workers=2)
    assert shape(table(plan)) == before

    # The schedule of a branch, from the start: the very measurements of its lineage.
    task = task_of(plan, ready)
    branch = max((e for e in journal.entries() if e.status == "ok"), key=lambda e: e.branched)
    assert branch.settings["schedule"]
    task.journal.claim({"elsewhere": True})
    scratch = Entry(99, branch.point, branch.settings)
    attempt(task, scratch, lambda *told: None)
    assert [r["accuracy"] for r in scratch.rows] == [r["accuracy"] for r in branch.rows]

    # What distills a winner replays its schedule.
    spec = plan.search_spec("blobs", "mtt", 1)
    params = plan.config.params("mtt", 1, branch.settings).model_dump(mode="json")
    out = plan.winner("blobs", "mtt", 1)
    out.write_text(json.dumps({"spec": spec, "params": params, "settings": branch.settings}))
    stages.distill(plan, TUNED_RUN)
    assert plan.spec(TUNED_RUN)["params"]["schedule"]


def test_a_population_whose_budget_ends_goes_on_with_a_larger_one(ready: Path) -> None:
    small = plan_of(**POPULATION, seconds=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iadd.pipeline.plan.source_of", lambda *names: "the same")
        winner = json.loads(search(small, "blobs", "mtt", 1).read_text())
        assert winner["evidence"]["iterations"] == 0  # the default alone is judged
        large = plan_of(**POPULATION | {"trials": 3})
        winner = json.loads(search(large, "blobs", "mtt", 1).read_text())
        assert winner["evidence"]["iterations_share"] == 1.0


def test_tasks_are_tried_again_recorded_as_failed_and_cut_off(ready: Path) -> None:
    task = task_of(plan_of(**POPULATION, retries=1), ready)
    task.journal.claim({})

    def work(task: Task, entry: Entry, seconds: float) -> Entry:
        entry = task.journal.read(entry.key) or entry
        entry.start()
        task.journal.write(entry)
        if entry.number == 0:
            raise RuntimeError("out of memory")
        if entry.number == 1 and entry.attempts == 1:
            os._exit(1)  # a lost worker
        time.sleep(seconds)
        return entry

    entries = [member(task, k, []) for k in range(3)]
    with cluster(task.journal.folder.absolute(), 2, 0, None):
        resources = {"cpu": 1.0, "memory": 1e8}
        ended = list(run_all(work, task, entries, resources, 2, 0.0))
        began = time.monotonic()
        cut = run_all(work, task, [member(task, 7, [])], resources, 2, 60.0,
                      left=lambda: began + 4 - time.monotonic())  # fmt: skip
        assert list(cut) == [] and time.monotonic() - began < 40
    assert {(e.number, e.attempts, e.status) for e in ended} == {
        (0, 2, "failed"),
        (1, 2, "running"),
        (2, 1, "running"),
    }
    assert "out of memory" in next(e.reason for e in ended if e.number == 0)


def test_the_picture_shows_a_population_and_a_schedule(tmp_path: Path) -> None:
    plan = plan_of(**POPULATION)
    task = task_of(plan, tmp_path)
    space = plan.config.space("mtt", 1)
    entries = [member(task, k, [0.1 * k, 0.2 * k], status="ok") for k in range(4)]
    winner = entries[3].settings | {"schedule": [[4, {"lr_img": 60.0}], [6, {"max_start": 1}]]}
    assert png("x", entries, space, {}, winner).startswith(b"\x89PNG")


# Ray.


def test_rays_folder_is_short_wherever_the_job_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long/" * 30)
    assert len(str(temporary_root(tmp_path))) <= SOCKET_ROOT
    assert temporary_root(tmp_path) == temporary_root(tmp_path) != temporary_root(tmp_path / "b")


class Rays:
    """Stands for ray: keeps how it was started."""

    def __init__(self) -> None:
        self.started: dict[str, Any] = {}
        self.shutdown = lambda: None

    def init(self, **options: Any) -> None:
        self.started = options

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}


def test_our_own_runtime_is_small_and_joins_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    double = Rays()
    monkeypatch.setitem(sys.modules, "ray", double)
    with cluster(tmp_path, 3, 1, None):
        started = double.started
    assert started["address"] == "local" and not started["include_dashboard"]
    assert (started["num_cpus"], started["num_gpus"]) == (3, 1)  # not all the machine has
    assert started["object_store_memory"] < 200 * 2**20
    assert len(started["_temp_dir"]) <= SOCKET_ROOT
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_driver_sends_the_token_that_ray_start_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", Rays())
    room = sys.modules[cluster.__module__]
    monkeypatch.setattr(room, "_check_answers", lambda address: None)
    monkeypatch.setattr(room, "_check_shared", lambda ray, state: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(given, "x")  # so that it is as before afterwards
        monkeypatch.delenv(given)
    with cluster(tmp_path, 1, 0, "head:1"):
        assert "RAY_AUTH_MODE" not in os.environ
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    with cluster(tmp_path, 1, 0, "head:1"):
        assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_trial_has_the_threads_that_ray_counts(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray sets OMP_NUM_THREADS to a trial's cores; torch by itself would take all."""
    task, before = task_of(plan_of(), ready), torch.get_num_threads()
    try:
        for given, expected in (("2", 2), (None, 1)):
            _problem.cache_clear()
            torch.set_num_threads(3)
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            if given:
                monkeypatch.setenv("OMP_NUM_THREADS", given)
            _problem(task)
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
        _problem.cache_clear()


def test_the_state_of_a_search_is_not_among_what_the_workflow_deletes() -> None:
    """Snakemake removes a failed job's outputs; what a search goes on from must stay."""
    plan = plan_of()
    rules = (Path(__file__).parent.parent / "workflow" / "rules").glob("*.smk")
    assert all("checkpoints" not in path.read_text() for path in rules)
    state = plan.search_state("blobs", "mtt", 1)
    assert state.is_relative_to(plan.root / "checkpoints")
    assert not state.is_relative_to(plan.winner("blobs", "mtt", 1).parent)


def test_the_clusters_address_may_come_from_the_environment(
    ready: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from iadd import commands

    (ready / "b.yaml").write_text(json.dumps(benchmark()))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("sys.argv", ["iadd", "search", "b.yaml", "--method", "mtt", "--ipc", "1"])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert said[-1].startswith("iadd: Ray address '127.0.0.1:1': does not answer")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:x"])
def test_an_address_that_does_not_answer(tmp_path: Path, address: str) -> None:
    began = time.monotonic()
    refused = pytest.raises(ValueError, match=f"Ray address '{address}'")
    with refused, cluster(tmp_path, 1, 0, address):
        pass
    assert time.monotonic() - began < 20


def test_what_is_missing_is_said_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"shard0\.safetensors: .*no such file"):
        search(plan_of(), "blobs", "mtt", 1)
    with pytest.raises(ValueError, match="method 'dm' is not tuned in this benchmark"):
        search(plan_of(), "blobs", "dm", 1)
    with pytest.raises(ValueError, match="ipc 7 is not in this benchmark"):
        search(plan_of(), "blobs", "mtt", 7)


def test_a_search_ends_in_a_winner_and_distill_takes_it(
    ready: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # another's cluster: never joined by itself
    plan = plan_of()
    with pytest.raises(ValueError, match="no such file; run: iadd search CONFIG --dataset blobs"):
        stages.distill(plan, TUNED_RUN)
    out = search(plan, "blobs", "mtt", 1)
    winner = json.loads(out.read_text())
    rows = table(plan)
    found, default = winner["validation"]["winner"], winner["validation"]["default"]
    assert found["mean"] >= default["mean"]
    assert {row["trial"] for row in rows if row["seed"] == 0} == set(range(6))
    assert json.loads(rows[0]["config"])["lr_img"] == 30  # the default came first
    assert winner["evidence"]["iterations_share"] < 0.8  # the scheduler stopped some
    assert {row["status"] for row in rows} <= {"ok", "stopped", "diverged", "confirmed"}
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "ray" not in {path.name for path in plan.search_state("blobs", "mtt", 1).iterdir()}

    before = shape(rows)  # the same seed and one worker: the same trials
    state = plan.search_state("blobs", "mtt", 1)
    state.rename(state.with_name("old"))
    search(plan, "blobs", "mtt", 1)
    assert shape(table(plan)) == before

    stages.distill(plan, TUNED_RUN)
    stages.evaluate(plan, TUNED_RUN)
    evaluated = results.read_table(plan.paths(TUNED_RUN).evaluation, results.EVALUATIONS)
    assert set(evaluated["method"]) == {"mtt"}
    assert set(evaluated["protocol"]) == {"mtt-v1+tuned"}
    assert json.loads(evaluated["params"][0]) == winner["params"]
    for run in (("random", 1), ("whole", 0), ("mtt", 1)):
        stages.distill(plan, Run("blobs", *run, 0))
        stages.evaluate(plan, Run("blobs", *run, 0))
    stages.collect(plan)
    stages.site(plan)
    board = results.read_table(plan.table("leaderboard"), results.LEADERBOARD)
    tuned = board[board["protocol"] == "mtt-v1+tuned"]
    assert set(tuned["method"]) == {"mtt", "random", "whole"}
    page = (plan.root / "site" / "index.html").read_text()
    assert "Searches on validation data" in page and "parallel coordinates" in page
    assert "every trial is in trials.parquet" in page
    assert base64.b64encode(out.with_suffix(".png").read_bytes()).decode() in page
    captions = [c for c in re.findall(r"<caption>.*?</caption>", page) if "Searches" not in c]
    told = ["searches of 6 trials (tpe, asha) each" in caption for caption in captions]
    tuned = ["protocol mtt-v1+tuned" in caption for caption in captions]
    assert told == tuned and any(tuned) and not all(tuned)
    capsys.readouterr()
    stages.show(plan)
    assert "+tuned: settings found on validation data by searches of 6 " in capsys.readouterr().out
    other = plan_of(finalists=2)
    with pytest.raises(ValueError, match="was found under other settings"):
        stages.distill(other, TUNED_RUN)


DRIVER = """
import json, sys
from pathlib import Path
from iadd.pipeline import plan
from iadd.pipeline.config import parse_config
from iadd.pipeline.plan import Plan, Run
from iadd.search import search
plan.source_of = lambda *names: "the same"  # whoever edits the code while this test runs
if __name__ == "__main__":
    search(Plan(parse_config(json.loads(Path("b.json").read_text()), "x")), "blobs", "mtt", 1)
"""


def test_a_search_killed_in_the_middle_loses_no_finished_trial(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iadd.pipeline.plan.source_of", lambda *names: "the same")
    keys = benchmark(trials=8, scheduler="none")
    plan = Plan(parse_config(keys, "x"))
    (ready / "b.json").write_text(json.dumps(keys))
    (ready / "go.py").write_text(DRIVER)
    journal = Journal(plan.search_state("blobs", "mtt", 1))
    driver = subprocess.Popen([sys.executable, "go.py"], cwd=ready, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while sum(e.finished for e in journal.entries()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # its workers die with it
    finished = [e for e in journal.entries() if e.finished]
    assert 3 <= len(finished) < 8
    ruin = journal.folder / "ray" / "trials" / "tuner.pkl"
    ruin.parent.mkdir(parents=True, exist_ok=True)
    ruin.write_bytes(b"")  # what a crash of Ray Tune can leave
    search(plan, "blobs", "mtt", 1)
    after = {entry.key: entry for entry in journal.entries()}
    assert [after[entry.key] for entry in finished] == finished  # not measured again
    assert sorted(entry.number for entry in after.values()) == list(range(8))


def test_fractions_of_a_declared_card_limit_what_runs_side_by_side(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(gpus=0.5, trials=4, scheduler="none", memory_mb=100)
    with pytest.raises(ValueError, match=r"trial asks for .* gpu, Ray has 0"):
        search(plan, "blobs", "mtt", 1, cards=0)
    search(plan, "blobs", "mtt", 1, workers=4, cpus=4, cards=1)
    entries = Journal(plan.search_state("blobs", "mtt", 1)).entries()
    assert {entry.device for entry in entries} == {"cuda:0"}
    spans = sorted((entry.began, entry.ended) for entry in entries)
    together = max(sum(b <= begun < e for b, e in spans) for begun, _ in spans)
    assert together <= 2


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    # Unlike `ray start`, it asks for no token, be there one of an earlier Ray or not.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
    small.pop("include_dashboard")
    nodes.add_node(num_cpus=1, **small)
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()


@pytest.mark.slow
def test_a_search_on_two_nodes_survives_the_loss_of_one(ready: Path, two_nodes: Any) -> None:
    """In a process of its own: one that has had a Ray with a token sends it to every other."""
    keys = benchmark(trials=10, scheduler="none", retries=3, memory_mb=100)
    # Long enough that one node cannot have done them all before the other is there.
    keys["methods"]["mtt"] = {"params": MTT | {"iterations": 500}}
    (ready / "b.yaml").write_text(json.dumps(keys))
    journal = Journal(Plan(parse_config(keys, "x")).search_state("blobs", "mtt", 1))
    lost = sorted(two_nodes.worker_nodes, key=str)[0]
    command = [sys.executable, "-m", "iadd", "search", "b.yaml", "--method", "mtt", "--ipc", "1"]
    searching = subprocess.Popen([*command, "--workers", "2", "--address", two_nodes.address])
    try:
        deadline = time.monotonic() + 90
        while len({e.node for e in journal.entries() if e.finished}) < 2:
            assert time.monotonic() < deadline, "only one node took part"
            time.sleep(0.05)
        two_nodes.remove_node(lost, allow_graceful=False)
        assert searching.wait(timeout=240) == 0
    finally:
        searching.kill()
    entries = journal.entries()
    assert len(entries) == 10
    assert {entry.status for entry in entries} == {"ok"}
    assert len({entry.node for entry in entries}) == 2


# A cluster that others started: in namespaces, so that nothing of it is left or met by others.

CONTAINER = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-ec"]


def contained(script: str, folder: Path, **variables: str) -> str:
    """What a shell script says in a process tree and a /tmp/ray of its own; $PORT is free."""
    probe = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no namespaces here: {probe.stderr.strip()}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*CONTAINER, f"mkdir -p /tmp/ray; mount -t tmpfs none /tmp/ray\n{script}"],
        cwd=folder, env=os.environ | {"PATH": path, "PORT": port} | variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=240,
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
def test_a_node_that_does_not_see_the_folder_is_named_in_one_line(ready: Path) -> None:
    """A second raylet with an empty file system over the results."""
    (ready / "b.yaml").write_text(json.dumps(benchmark()))
    said = contained(
        """
        export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(ray get-auth-token --generate 2> /dev/null)
        small="--num-cpus 1 --object-store-memory 80000000 --disable-usage-stats"
        two_nodes() {
            ray start --head --port $PORT --include-dashboard=false $small > /dev/null 2>&1 &&
                unshare --mount sh -c "mount -t tmpfs none results
                    exec ray start --address 127.0.0.1:$PORT $small" > /dev/null 2>&1
        }
        # On a machine that is busy with other things a node may not come up in Ray's time.
        two_nodes || { ray stop --force > /dev/null 2>&1; sleep 5; two_nodes; } ||
            { echo "Ray's nodes did not start"; exit; }
        status=0
        iadd search b.yaml --method mtt --ipc 1 --address 127.0.0.1:$PORT 2>&1 || status=$?
        echo "status $status"
        """,
        ready,
    ).splitlines()
    assert said[-1:] == ["status 2"], said
    message = [line for line in said if line.startswith("iadd: ")]
    assert len(message) == 1 and "does not see this folder; run from storage" in message[0]


@pytest.mark.slow
def test_the_recipe_for_a_search_over_the_nodes_of_a_job(ready: Path) -> None:
    """The profile's script under stand-ins for Slurm: the search joins what it started."""
    (ready / "b.yaml").write_text(json.dumps(benchmark(trials=2, scheduler="none")))
    for name, does in (("scontrol", "echo 127.0.0.1"), ("srun", 'exec "$@"')):
        (ready / name).write_text(f"#!/bin/sh\n{does}\n")
        (ready / name).chmod(0o755)
    recipe = Path(__file__).parent.parent / "workflow" / "profiles" / "slurm" / "search.sh"
    said = contained(
        f"""
        export PATH=$PWD:$PATH SLURM_JOB_ID=$PORT
        {recipe} iadd search b.yaml --method mtt --ipc 1 2>&1
        ls -d /tmp/ray/session_2*
        """,
        ready,
        SLURM_JOB_NODELIST="n",
        SLURM_NNODES="1",
        SLURM_CPUS_ON_NODE="1",
    )
    assert "blobs-mtt-ipc1.json: trial" in said, said[-3000:]
    entries = Journal(plan_of().search_state("blobs", "mtt", 1)).entries()
    assert len(entries) == 2 and {e.status for e in entries} == {"ok"}
    node = re.search(r"--node_id=(\w+)", said)  # told when the cluster ends
    assert node and {e.node for e in entries} == {node[1]}
