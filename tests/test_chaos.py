"""The faults of `make chaos` that take a second, and how it tells a run's processes apart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chaos.__main__ import report
from chaos.bench import Place, Watch
from chaos.faults import WRITERS, many_writers
from chaos.kills import Tally, attempt
from chaos.processes import MARK, kind_of, processes


def test_two_hundred_writers_of_one_file_leave_one_of_them_whole(tmp_path: Path) -> None:
    tally = Tally()
    many_writers(tmp_path / "w", None, tally)
    assert report(tally) == 0 and tally.done.total() == WRITERS
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["written"]


def test_a_tally_tells_what_went_wrong() -> None:
    tally = Tally()
    tally.done["job"] += 2
    assert report(tally) == 0
    tally.false.append("b: other tables")
    assert report(tally) == 1


def test_a_run_in_which_nothing_moves_is_ended_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch, "still", 0.5)
    place, tally = Place(tmp_path / "p"), Tally()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    place.said.touch()
    waits = subprocess.Popen(command, env=place.environment)
    attempt(lambda: place.wait(waits), tally)
    assert waits.wait(10) and not place.processes()
    (told,) = tally.stuck
    assert f"{waits.pid} of {os.getpid()}: client, S in" in told and report(tally) == 1
    moves = "import time; [(open('x', 'w').close(), time.sleep(0.2)) for _ in range(6)]"
    command = [sys.executable, "-c", moves]
    assert place.wait(subprocess.Popen(command, env=place.environment, cwd=place.folder)) == 0


def test_processes_are_found_by_their_mark_and_told_apart(tmp_path: Path) -> None:
    for words, kind in (
        (["python", "-m", "iadd.pipeline.events", "5"], "snakemake"),
        (["/ray/core/src/ray/raylet/raylet", "--x"], "raylet"),
        (["/ray/gcs/gcs_server"], "gcs_server"),
        (["ray::trainable"], "ray"),
        (["python", "-m", "iadd", "distill"], "client"),
        (["python", "-m", "iadd", "run", "b.yaml"], "run"),
    ):
        assert kind_of(words, 1, 1) == kind
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    marked = subprocess.Popen(command, env={MARK: str(tmp_path)})
    try:
        assert [process for process, _ in processes(str(tmp_path))] == [marked.pid]
        assert not list(processes(str(tmp_path / "other")))
    finally:
        marked.kill()
        marked.wait()
