"""The README's cluster section, word for word, on a SLURM of one machine; kills and requeues.

`make test-cluster`. Skipped in one line where slurm-wlm and munge are not installed.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from one_node_slurm import DAEMONS, Slurm, wait_for

from iadd.leaderboard.results import read_table
from iadd.leaderboard.rows import EVALUATIONS, LEADERBOARD, TRACES

ROOT = Path(__file__).parents[2]
PLACES = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
MISSING = [name for name in DAEMONS if shutil.which(name, path=PLACES) is None]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        bool(MISSING), reason=f"no {', '.join(MISSING)}: apt install slurm-wlm munge"
    ),
]
SMOKE: dict[str, Any] = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
# Twenty seconds on a fast core: a distillation must be under way when it is cancelled, killed, and
# cancelled again.
MTT = SMOKE["methods"]["mtt"]["params"] | {"iterations": 12_000, "validations": 40}
TINY = SMOKE | {"seeds": 1, "methods": {"random": None, "mtt": {"params": MTT}}}
WAIT = 300.0
SOON = """
import asyncio
sleep = asyncio.sleep
asyncio.sleep = lambda seconds, *result: sleep(min(seconds, 1.0), *result)
"""
"""Snakemake looks for ended jobs every second, not 5, 15, 25, ... seconds after it submitted."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="iadd-slurm-", dir="/tmp"))
    found = Slurm(folder, cpus=3, nodes=2)  # fewer than a group of short jobs would take
    try:
        (folder / "soon").mkdir()
        (folder / "tmp").mkdir()
        (folder / "soon" / "sitecustomize.py").write_text(SOON)
        try:
            found.start()
        except RuntimeError as error:  # no fault of ours: a sandbox without loopback, say
            pytest.skip(f"SLURM does not start here: {error}")
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


def environment(slurm: Slurm | None = None) -> dict[str, str]:
    path = [str(Path(sys.executable).parent), *([str(slurm.folder / "bin")] if slurm else [])]
    known = os.environ | {"PATH": os.pathsep.join([*path, os.environ.get("PATH", "")])}
    known["OMP_NUM_THREADS"] = "1"
    if slurm:
        paths = [str(slurm.folder / "soon"), os.environ.get("PYTHONPATH", "")]
        known["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        known["SLURM_CONF"] = slurm.environment["SLURM_CONF"]
        known["TMPDIR"] = str(slurm.folder / "tmp")
    return known


def place(folder: Path) -> Path:
    (folder / "xrays").mkdir(parents=True)
    (folder / "xrays" / "benchmark.yaml").write_text(yaml.safe_dump(TINY))
    return folder


def commands() -> list[str]:
    """The lines of the section's blocks of code."""
    section = (ROOT / "README.md").read_text().split("### On a cluster\n")[1].split("\n### ")[0]
    return [
        line
        for block in re.findall(r"```\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
    ]


def run(folder: Path, line: str, slurm: Slurm | None = None) -> tuple[int, str]:
    done = subprocess.run(
        shlex.split(line), cwd=folder, env=environment(slurm), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def tables(folder: Path) -> list[Any]:
    """What must not depend on where jobs ran: accuracies, ranks, every step of every trace."""
    results = folder / "results/smoke"
    wanted = {
        "evaluations": (EVALUATIONS, ["network_eval", "eval_seed", "accuracy", "confusion"]),
        "leaderboard": (LEADERBOARD, ["network_eval", "accuracy_mean", "accuracy_low", "rank_low"]),
        "traces": (TRACES, ["iteration", "loss", "step_size", "validation_accuracy"]),
    }
    found = []
    for name, (schema, columns) in wanted.items():
        frame = read_table(results / f"{name}.parquet", schema)[["method", *columns]]
        found.append(frame.map(repr).to_numpy().tolist())
    return found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The tables of a run on this machine."""
    folder = place(tmp_path_factory.mktemp("local"))
    status, said = run(folder, "iadd run xrays/benchmark.yaml --cores 2")
    assert status == 0, said
    return tables(folder)


def servers(slurm: Slurm) -> list[Path]:
    """Folders of warm servers on the nodes."""
    return list((slurm.folder / "tmp").glob("iadd.*"))


def new(slurm: Slurm, before: set[str]) -> dict[str, dict[str, str]]:
    return {key: job for key, job in slurm.jobs().items() if key not in before}


def test_the_readmes_command_ends_in_the_local_tables(
    slurm: Slurm, local: list[Any], tmp_path: Path
) -> None:
    """A handful of submissions, each with its own limits."""
    folder, before = place(tmp_path / "walk"), set(slurm.jobs())
    status, said = run(folder, commands()[0], slurm)
    assert status == 0, said
    assert tables(folder) == local
    jobs = new(slurm, before)
    assert len(jobs) == 5, jobs  # data; experts; runs; tables; page
    assert {job["JobState"] for job in jobs.values()} == {"COMPLETED"}
    assert all(job["Requeue"] == "1" and job["MinMemoryNode"] != "0" for job in jobs.values())
    assert len({job["TimeLimit"] for job in jobs.values()}) > 1
    assert not servers(slurm)


def test_a_card_that_is_not_there_is_told_in_one_line(slurm: Slurm, tmp_path: Path) -> None:
    """Rule: the options of the command line drop no limit; nothing runs on the CPU instead."""
    folder, before = place(tmp_path / "card"), set(slurm.jobs())
    status, said = run(folder, f"{commands()[1]} --retries 0", slurm)
    assert status == 1 and said.count("no usable CUDA device here") == 1, said
    assert "Traceback" not in said
    data, *others = sorted(new(slurm, before).items(), key=lambda item: int(item[0]))
    assert others
    assert "TresPerJob" not in data[1] and data[1]["Partition"] == "gpu"
    for _, job in others:
        assert job["TresPerJob"] == "gres:gpu:1" and job["Partition"] == "gpu", job
        assert job["MinMemoryNode"] != "0" and job["TimeLimit"] != "UNLIMITED"
        assert job["NumCPUs"] == job["NumTasks"] == "1", job
    assert not list(folder.glob("results/smoke/experts/*/*.safetensors"))


def test_requeues_kills_and_cancels_change_nothing(
    slurm: Slurm, local: list[Any], tmp_path: Path
) -> None:
    folder = place(tmp_path / "bad")
    checkpoint = folder / "results/smoke/checkpoints/blobs/mtt/ipc1/seed0.safetensors"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            shlex.split(commands()[0]), cwd=folder, env=environment(slurm), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def running() -> str | None:
        """The submission whose distillation is under way."""
        for key, job in slurm.jobs().items():
            if "distill" in job.get("Comment", "") and job["JobState"] == "RUNNING":
                return key if job["WorkDir"] == str(folder) else None
        return None

    def until(there: Callable[[], Any]) -> None:
        wait_for(there, WAIT, slurm)

    def under_way(since: float = 0.0) -> None:
        until(lambda: running() and checkpoint.exists() and checkpoint.stat().st_mtime > since)

    runner = start()
    under_way()
    requeued, saved = running(), checkpoint.stat().st_mtime
    assert requeued and len(servers(slurm)) == 1  # its jobs start warm
    slurm.ask("scontrol", "requeue", requeued)
    until(lambda: slurm.jobs()[requeued]["Restarts"] == "1")
    until(lambda: slurm.ask("scontrol", "update", f"jobid={requeued}", "StartTime=now") == "")
    under_way(saved)
    assert running() == requeued
    os.killpg(runner.pid, signal.SIGKILL)
    runner.communicate()
    left, saved = running(), checkpoint.stat().st_mtime
    assert left == requeued  # it goes on without anybody who waits for it
    runner = start()
    until(lambda: slurm.jobs()[left]["JobState"] == "CANCELLED")
    under_way(saved)
    cancelled = running()
    assert cancelled and cancelled != left
    slurm.ask("scancel", cancelled)
    said, _ = runner.communicate(timeout=WAIT)
    assert runner.returncode == 0, said
    assert "1 job of a killed run cancelled" in said
    assert tables(folder) == local
    assert not servers(slurm)


def test_an_interrupted_run_leaves_no_jobs(slurm: Slurm, tmp_path: Path) -> None:
    folder, before = place(tmp_path / "stop"), set(slurm.jobs())
    runner = subprocess.Popen(
        shlex.split(commands()[0]), cwd=folder, env=environment(slurm), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wait_for(lambda: new(slurm, before), WAIT, slurm)
    runner.send_signal(signal.SIGTERM)
    said, _ = runner.communicate(timeout=WAIT)
    assert runner.returncode == 128 + signal.SIGTERM and "interrupted" in said
    states = {job["JobState"] for job in new(slurm, before).values()}
    assert states <= {"CANCELLED", "COMPLETING", "COMPLETED"}, states


def test_a_search_gets_its_nodes(slurm: Slurm, tmp_path: Path) -> None:
    """The script in a job of two nodes, with a stand-in for Ray, which cannot be twice at one
    address: it is started on both, told of both, and the search runs once."""
    script = ROOT / "workflow/profiles/slurm/search.sh"
    ray = tmp_path / "ray"
    ray.write_text(
        '#!/bin/sh\ntest "$1" = get-auth-token && echo secret && exit\n'
        'echo "node $SLURM_NODEID of $SLURM_NNODES: $*, token $RAY_AUTH_TOKEN"\n'
        'while [ "$1" != -- ]; do shift; done; shift\ntest "$SLURM_NODEID" != 0 || exec "$@"\n'
    )
    ray.chmod(0o755)
    hidden = [f"--unset={name}" for name in ("SLURM_NNODES", "SLURM_JOB_NODELIST", "SLURM_NTASKS")]
    inner = shlex.join(
        ["env", *hidden, "sh", str(script), "2", "3", "sh", "-c", "echo $RAY_ADDRESS"]
    )
    asked = ["--nodes=2", "--ntasks=2", "--cpus-per-task=3", "--wait", f"--chdir={tmp_path}"]
    path = f"{tmp_path}:{environment(slurm)['PATH']}"
    done = subprocess.run(
        ["sbatch", *asked, f"--output={tmp_path}/out", "--wrap", inner],
        env=environment(slurm) | {"PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = (tmp_path / "out").read_text()
    assert done.returncode == 0, said
    found = [line for line in said.splitlines() if line.startswith("node ")]
    assert sorted(line[:11] for line in found) == ["node 0 of 2", "node 1 of 2"]
    assert all("--min-nodes 2 --num-cpus 3" in line and "token secret" in line for line in found)
    assert len(re.findall(r"^n1:2\d{4}$", said, re.MULTILINE)) == 1
