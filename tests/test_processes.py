"""Jobs do not outlive the Snakemake that runs them, and cores are those that may be used."""

import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from iadd.artifacts import locked
from iadd.pipeline import processes

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of another's end")

LEADER = """
import os, platform, subprocess, sys
os.environ["IADD_SNAKEMAKE"] = f"{platform.node()} {os.getpid()}"
subprocess.run(["bash", "-c", f"set -e; {sys.executable} -c '{sys.argv[1]}'; true"])
"""
JOB = """
import os, time
from iadd.pipeline.processes import die_with_snakemake
die_with_snakemake()
open("pid", "w").write(f"{os.getpid()} ")
time.sleep(120)
"""


def until(happened: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def written(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().endswith(" "))
    return int(path.read_text())


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@linux
def test_a_job_ends_with_its_snakemake_though_a_shell_is_between_them(tmp_path: Path) -> None:
    leader = subprocess.Popen([sys.executable, "-c", LEADER, JOB], cwd=tmp_path, process_group=0)
    job = written(tmp_path / "pid")
    leader.kill()
    leader.wait()
    until(lambda: gone(job), 10)


@linux
def test_a_job_ends_with_its_shell_though_its_snakemake_goes_on(tmp_path: Path) -> None:
    """Rule: Snakemake takes such a job for failed, and may begin it a second time."""
    leader = subprocess.Popen([sys.executable, "-c", LEADER, JOB], cwd=tmp_path, process_group=0)
    job = written(tmp_path / "pid")
    shell = int(Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[1])
    assert shell != leader.pid
    os.kill(shell, signal.SIGKILL)
    until(lambda: gone(job), 10)
    assert leader.wait(10) == 0


@linux
def test_a_job_that_begins_after_its_snakemake_s_end_does_not_begin(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    named = f"{platform.node()} {dead.pid}"
    code = f"import os; os.getpgid = lambda _: {dead.pid}\n{JOB}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {processes.SNAKEMAKE: named}
    )
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "pid").exists()


@pytest.mark.parametrize("named", ["", "elsewhere 1", f"{platform.node()} 1", "nonsense"])
def test_jobs_by_hand_and_on_other_machines_hang_on_nobody(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(processes.SNAKEMAKE, named)
    processes.die_with_snakemake()


@linux
def test_who_holds_a_lock_is_named(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from iadd.artifacts import locked\n"
        "with locked(Path('b.lock')): Path('held').touch(); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    try:
        until((tmp_path / "held").exists)
        with (
            pytest.raises(ValueError, match=rf"it is taken \(process {holder.pid}\)"),
            locked(tmp_path / "b.lock", "it is taken", 0.1),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with locked(tmp_path / "b.lock", "it is taken", 1):
        pass


def test_where_there_are_no_locks_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        import filelock
        def refuse(*_, **__):
            raise OSError(37, "No locks available")
        filelock.FileLock.acquire = refuse
        from iadd.artifacts import locked
        with locked(Path("b.lock"), "it is taken", 5):
            print("held", flush=True)
            time.sleep(float(sys.argv[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    how: dict[str, Any] = {"cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([*command, "60"], **how)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    done = subprocess.run([*command, "0"], **how, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_cores_are_those_that_the_process_may_use(tmp_path: Path) -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from iadd.pipeline.processes import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_a_containers_quota_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group, old = tmp_path / "a" / "b", tmp_path / "cpu" / "docker"
    for folder in (group, old):
        folder.mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    (group / "cpu.max").write_text("max 100000\n")
    for name, value in (("quota", "-1"), ("period", "100000")):
        (tmp_path / "cpu" / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
        (old / f"cpu.cfs_{name}_us").write_text("250000\n" if name == "quota" else "100000\n")
    for groups, cores in (
        ("0::/a/b\n", 1.5),
        ("0::/c\n", float("inf")),
        ("5:cpu,cpuacct:/docker\n3:cpuset:/x\n0::/\n", 2.5),
        ("5:cpu:/\n", float("inf")),
        ("nonsense", float("inf")),
    ):
        assert processes._quota(tmp_path, groups) == cores
    monkeypatch.setattr(processes, "_quota", lambda: 0.5)
    assert processes.usable_cores() == 1
