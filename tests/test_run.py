"""`iadd run`: what it refuses, what it shows, which cores and whose lock."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from iadd.artifacts import counted, locked
from iadd.pipeline import run as runs
from iadd.pipeline.monitor import Monitor, job_name, reason
from iadd.pipeline.run import refuse_overrides
from iadd.progress import Progress


@pytest.mark.parametrize(
    "word", ["--config", "-C", "--configfile=x.yaml", "--configfiles", "--conf"]
)
def test_what_would_change_the_graph_and_not_the_jobs_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="jobs read the benchmark's file"):
        refuse_overrides(["--keep-going", word, "seed=7"])
    refuse_overrides(["--cores", "2", "--conda-prefix", "x", "-n"])


def event(kind: str, job: int, seed: int, log: str = "") -> dict[str, Any]:
    wildcards = {"dataset": "digits", "method": "mtt", "ipc": "1", "seed": str(seed), "tuned": ""}
    return {"event": kind, "job": job, "rule": "distill", "wildcards": wildcards, "log": [log]}


def test_the_line_tells_jobs_names_and_the_time_left() -> None:
    with Monitor("digits", cores=2) as monitor:
        monitor.handle({"event": "jobs", "counts": {"distill": 4}})
        monitor.handle(event("started", 1, 0))
        monitor.handle(event("started", 2, 1))
        assert monitor.line() == (
            "digits: 0 of 4 jobs done; running: "
            "distill mtt digits ipc1 seed0, distill mtt digits ipc1 seed1"
        )
        monitor.expect(lambda rule, wildcards: 9.0, {"distill": 9.0})
        assert monitor.line().startswith("digits: 0 of 4 jobs done, about 0:20 left")
        then = time.monotonic() - 30
        monitor.first = monitor.running[1].began = monitor.running[2].began = then
        monitor.handle(event("finished", 1, 0))
        monitor.handle({"event": "done", "done": 1})
        # Both jobs took 30 seconds so far, forecast 10 each; trust is a tenth of the work of 40.
        # Left 20, pace (60 + 4) / (20 + 4), side by side (60 + 4) / (30 + 4 / 2) = 2.
        assert monitor.line() == (
            "digits: 1 of 4 jobs done, about 0:27 left; running: distill mtt digits ipc1 seed1"
        )


def test_slow_jobs_of_one_rule_say_nothing_of_another() -> None:
    """Rule: a method that is slower than forecast does not make evaluations last longer."""
    monitor = Monitor("digits", cores=1)
    monitor.handle({"event": "jobs", "counts": {"distill": 2, "evaluate": 10}})
    monitor.expect(lambda rule, wildcards: 9.0, {"distill": 9.0, "evaluate": 9.0})
    monitor.handle(event("started", 1, 0))
    monitor.first = monitor.running[1].began = time.monotonic() - 100
    monitor.handle(event("finished", 1, 0))
    distill = 10 * (100 + 2) / (10 + 2)
    assert monitor.seconds_left() == pytest.approx(distill + 100, abs=0.1)


def test_start_up_and_long_jobs_do_not_count_against_the_machine() -> None:
    """Rule: a second into the first of many long jobs, the forecast stands as it was."""
    monitor = Monitor("digits", cores=1)
    monitor.began -= 100  # Snakemake drew the graph
    monitor.handle({"event": "jobs", "counts": {"distill": 10}})
    monitor.expect(lambda rule, wildcards: 3599.0, {"distill": 3599.0})
    monitor.handle(event("started", 1, 0))
    for seconds in (1, 3000):
        monitor.first = monitor.running[1].began = time.monotonic() - seconds
        assert monitor.seconds_left() == pytest.approx(36000 - seconds, abs=1)
    monitor.first = monitor.running[1].began = time.monotonic() - 7200  # twice its forecast
    assert monitor.seconds_left() == pytest.approx(32400 * (7200 + 3600) / 7200, abs=1)
    assert job_name("distill", {"method": "mtt", "tuned": "-tuned"}) == "distill mtt tuned"


def test_without_a_terminal_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Monitor("digits") as monitor:
        monitor.handle({"event": "jobs", "counts": {"distill": 600}})
        for k in range(600):
            monitor.handle({"event": "done", "done": k})
            monitor.handle({"event": "text", "level": 20, "text": "Execute 1 jobs..."})
    assert capsys.readouterr().err == "digits: 600 jobs. Provided cores: 1\n"


def test_the_jobs_own_reasons_come_last(tmp_path: Path) -> None:
    """Rule: not Snakemake's CalledProcessError, and a reason that many jobs share only once."""
    monitor = Monitor("digits")
    for k, text in enumerate(["a\niadd: too few\n\n", "iadd: too few", ""]):
        (tmp_path / f"{k}.log").write_text(text)
        monitor.handle(event("failed", k, k, str(tmp_path / f"{k}.log")))
    assert monitor.reasons() == [
        "digits: 3 jobs failed",
        f"distill mtt digits ipc1 seed0 and 1 more ({tmp_path}/0.log):",
        "  iadd: too few",
        f"distill mtt digits ipc1 seed2 ({tmp_path}/2.log):",
        "  ended without a word: killed, perhaps for want of memory",
    ]
    assert reason([str(tmp_path / "none")]).startswith("ended without a word")


def test_how_far_a_job_was_is_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rule: what a killed job said last of its progress does not stand for why it ended."""
    monkeypatch.setattr("iadd.progress.SECONDS", 0.0)
    with Progress("distill mtt on digits, ipc 1, seed 0") as progress:
        progress(1, 60, "loss 2.9")
        progress(26, 60, "loss 1.5")
    said = capsys.readouterr().err
    (tmp_path / "job.log").write_text(said)
    why = reason([str(tmp_path / "job.log")])
    assert why.startswith("ended without a word: killed, perhaps for want of memory (before that: ")
    assert "seed 0: 26/60" in why
    (tmp_path / "job.log").write_text(said + "iadd: too few")
    assert reason([str(tmp_path / "job.log")]) == "iadd: too few"


def test_jobs_that_a_signal_ends_have_not_failed() -> None:
    monitor = Monitor("digits")
    monitor.handle({"event": "jobs", "counts": {"distill": 4}})
    monitor.handle(event("started", 1, 0))
    monitor.stopping = True
    monitor.handle(event("failed", 1, 0))
    assert monitor.line() == "digits: 0 of 4 jobs done, stopping" and not monitor.failed


def test_a_job_that_is_tried_again_has_not_failed() -> None:
    monitor = Monitor("digits", cores=0)
    for kind in ("started", "failed", "started"):
        monitor.handle(event(kind, 1, 0))
    assert not monitor.failed and monitor.running
    monitor.handle(event("failed", 1, 0))
    assert monitor.reasons()[0] == "digits: 1 job failed"


def test_of_a_group_the_job_that_failed_is_told(tmp_path: Path) -> None:
    """Rule: those that shared a submission with it are no failures; without a name all are."""
    monitor, logs = Monitor("digits", cores=0), [str(tmp_path / f"{k}.log") for k in range(3)]
    for k, said in enumerate(["fine", "iadd: too few", "fine"]):
        Path(logs[k]).write_text(said)
    slurm = tmp_path / "slurm.log"
    slurm.write_text(
        f"rule distill:\n    log: {logs[0]}\nError in rule distill:\n"
        f"    log: {logs[1]} (check log file(s) for error details)\n"
    )
    for ended, count in (("", 1), ("slurmstepd: error: *** JOB 7 CANCELLED DUE TO TIME LIMIT", 3)):
        if ended:
            slurm.write_text(ended)
        for k in range(3):
            monitor.handle(event("started", k, k, logs[k]))
        monitor.handle({"event": "group", "log": [str(slurm)], "jobs": [0, 1, 2]})
        for k in range(3):
            monitor.handle(event("failed", k, k, logs[k]))
        assert len(monitor.failed) == count
        told = monitor.reasons()
        assert told[0] == f"digits: {counted(count, 'job{s}')} failed" and "  iadd: too few" in told
    assert f"  {ended}" in told and "  fine" not in told


def test_a_line_names_only_some_of_many_running_jobs() -> None:
    monitor = Monitor("digits", cores=0)
    monitor.handle({"event": "jobs", "counts": {"distill": 40}})
    for k in range(40):
        monitor.handle(event("started", k, k))
    assert monitor.line().endswith("ipc1 seed4 and 35 more")


def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: no traceback of flock where there is none; a file with the holder's number does."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    path = tmp_path / ".b.lock"
    with locked(path, "it is being run", 0.2):
        assert path.with_suffix(".pid").exists()
        with (
            pytest.raises(ValueError, match="it is being run"),
            locked(path, "it is being run", 0.2),
        ):
            pass
    assert not path.with_suffix(".pid").exists()


def test_a_snakemake_that_does_not_end_after_a_signal_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rule: Snakemake's own handler of SIGTERM may wait for a lock that it holds itself."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda _, **how: start([sys.executable, "-c", code], **how)
    )
    monkeypatch.setattr(runs, "GRACE", 0.5)
    child = runs.Child(None, runs.Machine(2), [], "b")  # type: ignore[arg-type]
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert child.follow() == 128 + signal.SIGTERM
    assert "interrupted; the same command goes on from here" in capsys.readouterr().err
    assert child.process.returncode == -signal.SIGKILL


def test_of_a_traceback_of_snakemake_the_last_line_is_told() -> None:
    text = "Traceback (most recent call last):\n  File x\nPermissionError: [Errno 13] denied: 'a'\n"
    assert runs.last_of_trace(text) == "PermissionError: [Errno 13] denied: 'a'"
    assert runs.last_of_trace("two\nlines") == "two\nlines"
