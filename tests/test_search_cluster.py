"""The Ray runtime of a search: our own, private and small, or a cluster that others started."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from search_case import MTT, benchmark, plan_of, task_of

from iadd.pipeline.config import parse_config
from iadd.pipeline.plan import Plan

pytest.importorskip("ray")
pytest.importorskip("optuna")


from iadd.search import search
from iadd.search.cluster import SOCKET_ROOT, cluster, temporary_root
from iadd.search.storage import State
from iadd.search.trial import _problem


def test_rays_folder_is_short_and_ours_alone_wherever_the_job_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long/" * 30)
    first = temporary_root(tmp_path)
    assert len(str(first)) < SOCKET_ROOT and stat.S_IMODE(first.stat().st_mode) == 0o700
    other = temporary_root(tmp_path / "b")
    second = temporary_root(tmp_path)  # the first was left by a kill
    assert not first.exists() and other.exists()
    second.rmdir(), other.rmdir()


class Rays:
    """Stands for ray: keeps how it was started."""

    def __init__(self) -> None:
        self.started: dict[str, Any] = {}
        self.shutdown = lambda: None
        node = SimpleNamespace(dead_processes=list)
        self._private = SimpleNamespace(worker=SimpleNamespace(_global_node=node))

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


def test_a_ray_that_does_not_start_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Rays):
        def init(self, **options: Any) -> None:
            raise RuntimeError("Timed out waiting for file\nsession/gcs_server_port")

    (tmp_path / "t").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "t"))
    monkeypatch.setitem(sys.modules, "ray", Full())
    message = (
        r"Ray does not start; is its disk full\? \(RuntimeError: Timed out waiting for file ses"
    )
    with pytest.raises(ValueError, match=message), cluster(tmp_path, 1, 0, None):
        pass
    assert not list((tmp_path / "t").iterdir())


def test_our_own_runtime_asks_no_cloud_who_runs_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own query uses requests, which goes by these variables."""
    from requests.utils import get_environ_proxies

    monkeypatch.setitem(sys.modules, "ray", Rays())
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    with cluster(tmp_path, 1, 0, None):
        for address in ("169.254.169.254/latest", "metadata.google.internal/computeMetadata"):
            assert get_environ_proxies(f"http://{address}")["http"] == "http://127.0.0.1:9"
        assert not get_environ_proxies("http://127.0.0.1:8265")
    assert os.environ["http_proxy"] == "http://proxy:3128" and "no_proxy" not in os.environ


def test_a_search_ends_in_one_line_with_the_servers_of_its_ray(tmp_path: Path) -> None:
    code = """
        import pathlib, subprocess, sys, threading, time
        from iadd.search.cluster import LOOK_SECONDS, end_with
        class Node:
            dead = [("log_monitor", 0)]
            helper = subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
            def dead_processes(self):
                return self.dead
            def kill_all_processes(self, check_alive):
                self.helper.kill()  # whose own child goes on
        over, node = threading.Event(), Node()
        watched = (node, pathlib.Path(sys.argv[1]) / "r", over)
        threading.Thread(target=end_with, args=watched).start()
        time.sleep(3 * LOOK_SECONDS)
        node.dead = [*node.dead, ("gcs_server", 0)]
        time.sleep(30)
    """
    (tmp_path / "r").mkdir()
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    # It reads until nobody can write any more: so the helper's own child has ended, too.
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("iadd: Ray's gcs_server was killed, perhaps for want of memory;")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "r").exists()


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
    state = plan.search_state("blobs", "mtt", 1)
    assert state.is_relative_to(plan.root / "checkpoints")
    assert not state.is_relative_to(plan.winner("blobs", "mtt", 1).parent)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:x"])
def test_an_address_that_does_not_answer(tmp_path: Path, address: str) -> None:
    began = time.monotonic()
    refused = pytest.raises(ValueError, match=f"Ray address '{address}'")
    with refused, cluster(tmp_path, 1, 0, address):
        pass
    assert time.monotonic() - began < 20


def test_what_is_missing_is_said_before_ray_starts(
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
    with pytest.raises(ValueError, match="method 'dm' is not in this benchmark"):
        search(plan_of(), "blobs", "dm", 1)
    with pytest.raises(ValueError, match="method 'random' is not tuned in this benchmark"):
        search(plan_of(), "blobs", "random", 1)
    with pytest.raises(ValueError, match="ipc 7 is not in this benchmark"):
        search(plan_of(), "blobs", "mtt", 7)
    plan_of().shards("blobs")[0].unlink()
    with pytest.raises(ValueError, match=r"shard0\.safetensors: .*no such file"):
        search(plan_of(), "blobs", "mtt", 1)


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
    state = State(Plan(parse_config(keys, "x")).search_state("blobs", "mtt", 1))
    lost = sorted(two_nodes.worker_nodes, key=str)[0]
    command = [sys.executable, "-m", "iadd", "search", "b.yaml", "--method", "mtt", "--ipc", "1"]
    searching = subprocess.Popen([*command, "--workers", "2", "--address", two_nodes.address])
    try:
        deadline = time.monotonic() + 90
        while len(nodes_in(state.journal)) < 2:
            assert time.monotonic() < deadline, "only one node took part"
            time.sleep(0.05)
        two_nodes.remove_node(lost, allow_graceful=False)
        assert searching.wait(timeout=480) == 0
    finally:
        searching.kill()
    trials = state.trials()
    assert len(trials) == 10 and {trial.status for trial in trials} == {"ok"}
    assert len(nodes_in(state.journal)) == 2


def nodes_in(journal: Path) -> set[str]:
    """The nodes that have reported so far, while another process writes."""
    return set(re.findall(r'"node":"(\w+)"', journal.read_text() if journal.exists() else ""))


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
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=480,
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
    scontrol = 'test "$2" = hostnames && echo 127.0.0.1 || echo "   NodeList=127.0.0.1"'
    srun = 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"'
    for name, does in (("scontrol", scontrol), ("srun", srun)):
        (ready / name).write_text(f"#!/bin/sh\n{does}\n")
        (ready / name).chmod(0o755)
    recipe = Path(__file__).parent.parent / "workflow" / "profiles" / "slurm" / "search.sh"
    said = contained(
        f"""
        export PATH=$PWD:$PATH SLURM_JOB_ID=$PORT
        {recipe} 1 1 iadd search b.yaml --method mtt --ipc 1 2>&1
        ls -d /tmp/ray/session_2*
        """,
        ready,
    )
    assert "blobs-mtt-ipc1.json: trial" in said, said[-3000:]
    trials = State(plan_of().search_state("blobs", "mtt", 1)).trials()
    assert len(trials) == 2 and {trial.status for trial in trials} == {"ok"}
    node = re.search(r"--node_id=(\w+)", said)  # told when the cluster ends
    assert node and {trial.node for trial in trials} == {node[1]}
