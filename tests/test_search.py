"""Search: proposals, storage, schedulers, Ray; a killed search ends like one that was not."""

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from search_case import MTT, benchmark, plan_of, task_of

from iadd.artifacts import canonical_json
from iadd.leaderboard import results
from iadd.leaderboard.rows import TRIALS
from iadd.pipeline import stages
from iadd.pipeline.config import parse_config
from iadd.pipeline.plan import Plan, Run
from iadd.progress import Progress

pytest.importorskip("ray")
pytest.importorskip("optuna")


from iadd.search import figure, search
from iadd.search.proposals import propose
from iadd.search.storage import State, Trial, trial_of
from iadd.search.trial import measure
from iadd.search.tune import _CardHours, _Past, _Proposals, _Recorder, scheduler_of
from iadd.search.winner import contenders

TUNED_RUN = Run("blobs", "mtt", 1, 0, tuned=True)


def table(plan: Plan) -> list[dict[str, Any]]:
    rows = results.read_table(plan.trials("blobs", "mtt", 1), TRIALS)
    return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]


def shape(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """All of the trials but their seconds."""
    names = ("trial", "seed", "config", "rung", "iteration", "validation_accuracy", "status")
    return [tuple(str(row[name]) for name in names) for row in rows]


# Proposals.

SPACE: Any = {
    "reading": ["R1", "R2"],
    "lr_img": ("log", 1.0, 100.0),
    "unrolled_steps": ("int", 1, 9),
    "pruned": ("uniform", 0.0, 0.5),
}


def test_the_default_is_the_first_point_then_the_recipes() -> None:
    keep: Any = dict.fromkeys(("lr_lr", "step_size", "expert_epochs", "max_start"))
    space = {"mtt": keep | {"unrolled_steps": [2, 3], "lr_img": {"log": [1, 100]}}}
    config = plan_of(space=space, points={"mtt": [{"lr_img": 7.0}]}).config
    assert config.points("mtt", 1) == [
        {"unrolled_steps": 3, "lr_img": 30},
        {"unrolled_steps": 3, "lr_img": 7.0},
    ]


def searched(state: State, upto: int) -> None:
    """What a search with one worker does to its storage: each trial ends before the next."""
    first = [{"reading": "R2", "lr_img": 9.87654, "unrolled_steps": 1, "pruned": 0.0}]
    study = state.study
    while len(study.trials) < upto:
        study.add_trial(propose(("s",), "tpe", SPACE, first, study.trials))
        trial = trial_of(study.trials[-1])
        for iteration in (2, 4):
            value = trial.settings["pruned"] + trial.settings["unrolled_steps"] / 20
            measured(state, trial.number, value, iteration)
        state.end(trial.number, "stopped" if trial.number % 3 == 1 else "ok")


def measured(state: State, number: int, accuracy: float, iteration: int) -> None:
    result = {"iteration": iteration, "measured": accuracy, "accuracy": accuracy, "seconds": 1.0}
    state.note(number, result | {"device": "cpu", "node": "n"})


def test_a_proposal_depends_on_its_number_and_earlier_results_alone(tmp_path: Path) -> None:
    """Killed and resumed at any trial, a search proposes what it would have proposed."""
    whole = State(tmp_path / "whole")
    whole.claim({})
    searched(whole, 16)
    for upto in (1, 5, 9, 10, 14, 16):
        killed = State(tmp_path / "killed")  # each time by a new process
        killed.claim({})
        searched(killed, upto)
    assert [t.settings for t in killed.trials()] == [t.settings for t in whole.trials()]
    assert len({canonical_json(t.settings) for t in whole.trials()}) == 16
    known = whole.study.trials
    other, same = (trial_of(propose((name,), "tpe", SPACE, [], known)) for name in "ts")
    assert other.settings != same.settings


def test_proposals_are_cut_to_four_digits_and_stay_in_their_range(tmp_path: Path) -> None:
    state = State(tmp_path / "s")
    state.claim({})
    searched(state, 12)
    trials = [trial.settings for trial in state.trials()]
    assert trials[0]["lr_img"] == 9.87654  # a given point is used as it stands
    assert all(float(f"{t['lr_img']:.4g}") == t["lr_img"] for t in trials[1:])
    narrow: Any = {"lr_img": ("log", 0.123456, 0.123457)}  # no four digits lie in it
    (value,) = trial_of(propose(("n",), "random", narrow, [], [])).settings.values()
    assert 0.123456 <= value <= 0.123457


# What is written down.


def test_trials_of_another_spec_go_and_what_a_kill_tore_does_not_matter(tmp_path: Path) -> None:
    state = State(tmp_path / "s")
    state.claim({"a": 1})
    state.study.add_trial(propose((), "random", SPACE, [], []))
    measured(state, 0, 0.5, 2)
    measured(state, 0, 0.9, 2)  # a resumed trial tells again what it had told
    with state.journal.open("a") as file:
        file.write('{"op_code":')  # a write that was cut off
    state.journal.with_name("trials.log.lock").symlink_to("trials.log")
    state = State(tmp_path / "s")
    state.claim({"a": 1})
    began = time.monotonic()
    state.study.add_trial(propose((), "random", SPACE, [], state.study.trials))
    assert time.monotonic() - began < 5  # Optuna alone would wait for the lock, and then fail
    state = State(tmp_path / "s")
    assert [trial.rungs for trial in state.trials()] == [[[2, 0.5, 1.0]], []]
    confirmed = Trial(0, {"x": 1.0}, [[18, 0.7, 2.0]], "confirmed", seed=1)
    state.confirm(confirmed)
    assert State(tmp_path / "s").confirmed() == {confirmed.key: confirmed}
    state = State(tmp_path / "s")
    state.claim({"a": 2})
    assert state.trials() == [] and state.confirmed() == {}


@pytest.mark.parametrize("locks", [True, False])
def test_two_searches_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """On file systems without locks neither."""

    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if not locks:
        monkeypatch.setattr("fcntl.flock", none)
    refused = pytest.raises(ValueError, match="another process is searching")
    with State(tmp_path / "s").lock(), refused, State(tmp_path / "s").lock():
        pass
    with State(tmp_path / "s").lock():
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"), State(tmp_path / "file/s").lock():
        pass


class Killed(BaseException):
    pass


def test_a_killed_trial_goes_on_and_ends_like_one_that_was_not(ready: Path) -> None:
    task = task_of(plan_of(), ready)

    def run(number: int, kill_at: int | None) -> list[tuple[Any, ...]]:
        heard: list[tuple[Any, ...]] = []

        def report(result: dict[str, Any]) -> None:
            heard.append(tuple(result[k] for k in ("iteration", "measured", "accuracy", "status")))
            if result["iteration"] == kill_at:
                raise Killed

        settings = {"lr_img": 20.0, "unrolled_steps": 2}
        with contextlib.suppress(Killed):
            measure(task, {"number": number, "settings": settings, "seconds": 0.0}, report)
        return heard

    whole = run(0, None)
    assert [told[0] for told in whole] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert [told[3] for told in whole] == ["running"] * 8 + ["ok"]
    assert [told[2] for told in whole] == sorted(told[2] for told in whole)
    assert run(1, 8) == whole[:4]
    began = time.perf_counter()
    assert run(1, None) == whole
    assert run(1, None) == whole  # killed after its last rung, it only tells
    assert time.perf_counter() - began < 30


def test_a_trial_that_failed_for_good_is_recorded_counts_and_is_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = task_of(plan_of(searcher="random"), tmp_path)
    state, space = task.state, task.plan.config.space("mtt", 1)
    state.claim({})
    proposals = _Proposals(task, state, space, [])
    first, second = proposals.suggest("a"), proposals.suggest("b")
    error = RuntimeError("Traceback ...\nCUDA out of memory")
    again = [True, False]  # Ray gives it up although it should try again; then for good
    trial = SimpleNamespace(
        config=first, get_error=lambda: error, should_recover=lambda: again.pop(0)
    )
    recorder = _Recorder(state, 6, Progress("x"))
    recorder.on_trial_error(1, [], trial)
    assert recorder.given_up == [0] and state.trials()[0].status == "running"
    recorder.on_trial_error(1, [], trial)
    assert "trial 0 failed: CUDA out of memory" in capsys.readouterr().err
    assert [t.status for t in state.trials()] == ["failed", "running"]
    # Resumed: what was cut off first, then new ones.
    resumed = _Proposals(task, task.state, space, [])
    assert resumed.suggest("c") == second
    assert resumed.suggest("d")["number"] == 2


def test_a_full_disk_ends_a_search_in_one_line_and_fails_no_trial(tmp_path: Path) -> None:
    task = task_of(plan_of(searcher="random"), tmp_path)
    state = task.state
    state.claim({})
    first = _Proposals(task, state, task.plan.config.space("mtt", 1), []).suggest("a")
    error = (
        "Traceback ...\nValueError: a/0.safetensors: cannot be written (No space left on device)"
    )
    trial = SimpleNamespace(config=first, get_error=lambda: error, should_recover=lambda: False)
    with pytest.raises(ValueError, match=r"^a/0\.safetensors: cannot be written \(No space left"):
        _Recorder(state, 6, Progress("x")).on_trial_error(1, [], trial)
    assert [t.status for t in state.trials()] == ["running"]
    where = rf"{state.folder}: cannot be written \(No space left on device\)"
    with pytest.raises(ValueError, match=where), state.writing():
        raise OSError(28, "Error writing bytes to file. Detail: [errno 28]")
    with pytest.raises(ConnectionError), state.writing():
        raise ConnectionError("gone")


# Who stops trials early: Ray's schedulers as they are.


def decisions(scheduler: Any, found: list[list[float]], first: int = 0) -> list[int]:
    """How many rungs each trial gets, one after the other; rungs at 2, 4, ... 18."""
    came = []
    for number, accuracies in enumerate(found, first):
        trial, best, result = _Past(number), 0.0, {}
        scheduler.on_trial_add(trial, trial)
        for rung, accuracy in enumerate(accuracies, 1):
            best = max(best, accuracy)
            result = {"iteration": 2 * rung, "accuracy": best}
            if scheduler.on_trial_result(trial, trial, result) == "STOP":
                break
        else:
            scheduler.on_trial_result(trial, trial, result)
        scheduler.on_trial_complete(trial, trial, result)
        came.append(rung)
    return came


def test_asha_lets_ties_and_the_first_trials_pass(tmp_path: Path) -> None:
    """A few hundred validation images give ties; what Ray does with them is what a search does."""
    asha = scheduler_of(task_of(plan_of(), tmp_path), [])
    assert decisions(asha, [[0.5] * 9] * 6) == [9] * 6  # equal to the cutoff is good enough
    asha = scheduler_of(task_of(plan_of(), tmp_path), [])
    found = [[0.2] * 9, [0.3] * 9, [0.1] * 9, [0.4] * 9, [0.31] * 9]
    assert decisions(asha, found) == [9, 9, 1, 9, 1]  # the first, then whoever is not below 3/4


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_resumed_search_stops_the_trials_that_it_would_have_stopped(
    tmp_path: Path, scheduler: str
) -> None:
    task = task_of(plan_of(scheduler=scheduler), tmp_path)
    found = [[(7 * k * k + 3 * r) % 11 / 11 for r in range(9)] for k in range(24)]
    whole = decisions(scheduler_of(task, []), found)
    assert 1 in whole and 9 in whole
    for kill in (1, 4, 13):
        ended = [
            Trial(k, {}, [[2 * r, a, 1.0] for r, a in enumerate(found[k][: whole[k]], 1)],
                  "ok" if whole[k] == 9 else "stopped")
            for k in range(kill)
        ]  # fmt: skip
        assert decisions(scheduler_of(task, ended), found[kill:], kill) == whole[kill:]


def test_a_budget_counts_what_trials_took_before_a_kill() -> None:
    known = [Trial(0, {}, [[18, 0.5, 3600.0]]), Trial(1, {}, [[2, 0.5, 1800.0]])]
    cards = _CardHours(1.0, 0.5, known)  # half a card each: 0.75 hours so far
    assert not cards("a", {"config": {"number": 1}, "seconds": 3500.0}) and not cards.stop_all()
    assert not cards("a", {"config": {"number": 1}, "seconds": 3600.0}) and cards.stop_all()
    assert not _CardHours(None, 1.0, known).stop_all()


# Winner and figure.


def tried(number: int, accuracy: float, status: str = "ok", **settings: Any) -> Trial:
    return Trial(number, settings, [[18, accuracy, 1.0]], status)


def test_contenders_are_the_default_and_the_best_that_ran_to_their_end() -> None:
    found = [(0.1, "stopped"), (0.9, "failed"), (0.8, "stopped"), (0.6, "ok"), (0.7, "ok")]
    trials = [tried(k, a, status, lr_img=30.0 + k) for k, (a, status) in enumerate(found)]
    twin = tried(5, 0.7, lr_img=34.0)
    chosen = contenders([*trials, twin], {"lr_img": 30.0}, 2)
    assert [trial.number for trial in chosen] == [0, 4, 3]


def test_importance_finds_the_parameter_that_matters() -> None:
    space: Any = {
        "lr_img": ("log", 1.0, 100.0),
        "unrolled_steps": ("int", 1, 9),
        "reading": ["R1", "R2"],
    }
    trials = []
    for k in range(30):
        lr, reading = 10 ** (2 * ((k * 7) % 30) / 29), ("R1", "R2")[k % 2]
        trials.append(tried(k, lr / 100, lr_img=lr, unrolled_steps=1 + k % 9, reading=reading))
    weights = figure.importance(trials, space)
    assert weights["lr_img"] > 0.8 and weights.keys() == space.keys()
    assert sum(weights.values()) == pytest.approx(1, abs=1e-3)
    assert figure.importance(trials[:5], space) == {}
    assert figure.picture("few", trials[:5], space).startswith(b"\x89PNG")
    assert figure.picture("none", [], space).startswith(b"\x89PNG")


# Real searches.

DRIVER = """
import json, sys
from pathlib import Path
from iadd.pipeline.config import parse_config
from iadd.pipeline.plan import Plan
from iadd.search import search
if __name__ == "__main__":
    search(Plan(parse_config(json.loads(Path("b.json").read_text()), "x")), "blobs", "mtt", 1)
"""


def ended_trials(journal: Path) -> int:
    """How many trials have ended in a storage that another process writes."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return sum('"op_code":6' in line for line in lines)


@pytest.mark.slow
def test_a_killed_search_ends_with_the_winner_of_one_that_was_not(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, TPE, ASHA, kill -9 when TPE proposes: same trials, none lost, none run twice."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # another's cluster: never joined by itself
    keys = benchmark(trials=12)
    keys["methods"]["mtt"] = {"params": MTT | {"iterations": 90}}
    plan = Plan(parse_config(keys, "x"))
    with pytest.raises(ValueError, match="no such file; run: iadd search CONFIG --dataset blobs"):
        stages.distill(plan, TUNED_RUN)
    winner = json.loads(search(plan, "blobs", "mtt", 1).read_text())
    whole, state = table(plan), State(plan.search_state("blobs", "mtt", 1))
    assert {row["trial"] for row in whole if row["seed"] == 0} == set(range(12))
    assert json.loads(whole[0]["config"])["lr_img"] == 30  # the default came first
    found, default = winner["validation"]["winner"], winner["validation"]["default"]
    assert found["mean"] >= default["mean"]
    assert winner["evidence"]["iterations_share"] < 0.9  # the scheduler stopped some
    assert {row["status"] for row in whole} <= {"ok", "stopped", "diverged", "confirmed"}
    assert plan.winner("blobs", "mtt", 1).with_suffix(".png").stat().st_size > 1000
    stages.distill(plan, TUNED_RUN)
    assert plan.spec(TUNED_RUN)["params"] == winner["params"]

    state.folder.rename(state.folder.with_name("undisturbed"))
    (ready / "b.json").write_text(json.dumps(keys))
    (ready / "go.py").write_text(DRIVER)
    short = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    driver = subprocess.Popen([sys.executable, "go.py"], cwd=ready, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    while ended_trials(state.journal) < 9 and time.monotonic() < deadline:
        time.sleep(0.02)
    (session,) = short.iterdir()
    assert listening(session) == {"127.0.0.1"}  # nobody else reaches this runtime
    assert stat.S_IMODE(session.stat().st_mode) == 0o700
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # its workers die with it
    before = [frozen for frozen in State(state.folder).study.trials if frozen.state.is_finished()]
    assert 9 <= len(before) < 12
    ruin = state.folder / "ray" / "trials" / "tuner.pkl"
    ruin.parent.mkdir(parents=True, exist_ok=True)
    ruin.write_bytes(b"")  # what a crash of Ray Tune can leave

    again = json.loads(search(plan, "blobs", "mtt", 1).read_text())
    assert State(state.folder).study.trials[: len(before)] == before  # not lost, not measured again
    assert shape(table(plan)) == shape(whole)
    assert again["settings"] == winner["settings"] and again["validation"] == winner["validation"]
    assert list(short.iterdir()) == []  # neither the killed one's folder is left
    short.rmdir()
    with pytest.raises(ValueError, match="was found under other settings"):
        stages.distill(plan_of(finalists=2), TUNED_RUN)


def listening(session: Path) -> set[str]:
    """The addresses at which the processes of a Ray session listen."""
    import psutil

    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if any(str(session) in part for part in process.info["cmdline"] or ()):
            for socket in process.net_connections("tcp"):
                if socket.status == "LISTEN":
                    found.add(socket.laddr.ip.removeprefix("::ffff:"))
    return found


@pytest.mark.slow
def test_cards_are_shared_and_a_figure_that_fails_does_not_cost_the_winner(
    ready: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("out of range")

    monkeypatch.setattr(figure, "importance", fail)
    monkeypatch.setattr(figure, "picture", fail)
    plan = plan_of(gpus=0.5, trials=4, scheduler="none", memory_mb=100)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"trial asks for .* gpu, Ray has 0"):
        search(plan, "blobs", "mtt", 1)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    out = search(plan, "blobs", "mtt", 1, workers=4)
    assert json.loads(out.read_text())["importance"] == {}
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().err
    assert "warning: the search has no importances: out of range" in said
    assert "warning: the search has no picture: out of range" in said
    trials = State(plan.search_state("blobs", "mtt", 1)).trials()
    assert {trial.device for trial in trials} == {"cuda:0"}
    rows = [row for row in table(plan) if row["seed"] == 0]
    assert len(rows) == 4 * 9 and {row["status"] for row in rows} == {"ok"}
