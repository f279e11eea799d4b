"""Warm jobs: the same work, status and streams as cold ones, and they die with their client."""

import contextlib
import json
import os
import platform
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iadd.pipeline import jobserver

SERVER = """
import os, sys, time
from iadd.pipeline import jobserver

def command():
    print("argv", *sys.argv[1:], flush=True)
    if "fail" in sys.argv:
        sys.exit(3)
    if "crash" in sys.argv:
        os.abort()
    if "raise" in sys.argv:
        raise RuntimeError("a bug")
    if "sleep" in sys.argv:
        open("pid", "w").write(str(os.getpid()))
        time.sleep(60)
    print("cwd", os.getcwd(), os.environ.get("COLOUR"))

jobserver.AGAIN = 0.5
server = jobserver.start(command)
print(server.address, flush=True)
for _ in sys.stdin:
    server.watch()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout and holder.stdin
    found = holder.stdout.readline().strip()
    yield found
    holder.stdin.close()
    holder.wait()
    deadline = time.monotonic() + 10
    while Path(found).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(found).parent.exists()  # the server ended with its owner and cleaned up


def client(address: str, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "iadd", *words],
        cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {jobserver.VARIABLE: address, "COLOUR": "blue"},
    )  # fmt: skip


def test_streams_folder_environment_and_status(address: str, tmp_path: Path) -> None:
    job = client(address, "hello", cwd=tmp_path)
    out, _ = job.communicate(timeout=60)
    assert out.splitlines() == ["argv hello", f"cwd {tmp_path} blue"] and job.returncode == 0
    assert client(address, "fail").wait(60) == 3


def test_a_crash_is_a_failure_not_a_success(address: str) -> None:
    assert client(address, "crash").wait(60) == jobserver.CUT_OFF
    job = client(address, "raise")
    assert "RuntimeError: a bug" in job.communicate(timeout=60)[1] and job.returncode == 1


def test_a_killed_client_takes_its_job_along(address: str, tmp_path: Path) -> None:
    job = client(address, "sleep", cwd=tmp_path)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    job.kill()
    job.wait()
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_killed_before_it_read_that_the_work_began_takes_it_along(
    address: str, tmp_path: Path
) -> None:
    """Rule: the kernel then resets the connection, rather than closing it."""
    asked = {"argv": ["iadd", "sleep"], "cwd": str(tmp_path), "env": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as half:
        half.connect(address)
        words = request(asked)
        socket.send_fds(half, [words[:8]], [0, 1, 2])
        half.sendall(words[8:])
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    job = Path("/proc") / (tmp_path / "pid").read_text()
    while job.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said(address: str, words: bytes, streams: int = 3) -> None:
    """Say something to the server, and leave."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as half:
        half.connect(address)
        if words:
            socket.send_fds(half, [words[:8]], [0, 1, 2][:streams])
            half.sendall(words[8:])


def request(content: object) -> bytes:
    body = json.dumps(content).encode()
    return struct.pack("!Q", len(body)) + body


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"\0\0",
        struct.pack("!Q", 100),
        struct.pack("!Q", 100) + b"{",
        struct.pack("!Q", 1 << 63) + b"{" * 50,
        struct.pack("!Q", 3) + b"no!",
        request([]),
        request({"argv": 3, "cwd": "/", "env": {}}),
        request({"argv": ["x"], "cwd": "/nowhere", "env": {"a": 1}}),
        request({"argv": ["iadd", "hello"], "cwd": "/", "env": {}}),  # whole: leaves before the end
    ],
)
def test_whoever_leaves_too_early_is_forgotten_and_the_server_stays(
    address: str, words: bytes
) -> None:
    for streams in (3, 1):
        said(address, words, streams)
    assert client(address, "fail").wait(60) == 3
    assert Path(address).exists()
    server = int(Path(address).parent.name.split(".")[-2])  # its owner
    deadline = time.monotonic() + 20
    while len(descendants(server)) > 1:  # the server alone: no child of it is left
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descendants(process: int) -> list[int]:
    """Living processes below one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    found, near = [], [process]
    while near:
        near = [child for child, parent in parents.items() if parent in near]
        found += near
    return found


def test_a_server_that_dies_before_the_work_began_leaves_it_to_the_command(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        job = client(str(tmp_path / "s"), "plan", "none.yaml", cwd=tmp_path)
        listener.accept()[0].close()
        assert "none.yaml: cannot be read" in job.communicate(timeout=60)[1]
    assert job.returncode == 2


def holder_in(temporary: Path) -> subprocess.Popen[str]:
    """A process that owns a server, with its temporary files in a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )  # fmt: skip


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    name = f"iadd.{platform.node()}"
    old, others = f"{name}.{dead.pid}.x", (f"{name}.{os.getpid()}.x", f"iadd.far.{dead.pid}.x")
    for folder in (old, *others):
        (tmp_path / folder).mkdir()
    holder = holder_in(tmp_path)
    assert holder.stdout and holder.stdin
    found = Path(holder.stdout.readline().strip()).parent.name
    assert {path.name for path in tmp_path.iterdir()} == {found, *others}
    holder.stdin.close()
    assert holder.wait(60) == 0


def test_a_temporary_folder_too_long_for_a_socket(tmp_path: Path) -> None:
    """Rule: batch systems set long ones; the socket lies elsewhere."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    holder = holder_in(long)
    assert holder.stdout and holder.stdin
    assert holder.stdout.readline().startswith(f"/tmp/iadd.{platform.node()}.{holder.pid}.")
    holder.stdin.close()
    assert holder.wait(60) == 0 and not list(long.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="looks through /proc")
def test_a_killed_server_is_started_again_where_it_was(tmp_path: Path) -> None:
    holder = holder_in(tmp_path)
    assert holder.stdout and holder.stdin
    address = holder.stdout.readline().strip()
    assert client(address, "fail").wait(60) == 3
    (server,) = descendants(holder.pid)
    os.kill(server, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while server in descendants(holder.pid) or not descendants(holder.pid):
        assert time.monotonic() < deadline
        print(file=holder.stdin, flush=True)  # it looks
        time.sleep(0.1)
    assert client(address, "fail").wait(60) == 3
    (again,) = descendants(holder.pid)
    inherited = {str(path.readlink()) for path in Path(f"/proc/{again}/fd").iterdir()}
    assert all(link == "/dev/null" or link.startswith("socket:") for link in inherited)
    holder.stdin.close()
    assert holder.wait(60) == 0
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


STOPPED = """
import os, signal, sys, time
from pathlib import Path
from iadd.pipeline import jobserver

jobserver.ENDS = 0.5
server = jobserver.start(lambda: sys.exit(0))
os.environ[jobserver.VARIABLE] = server.address
jobserver.ask(["iadd"])  # when it answers it is ready, and listens to SIGTERM
os.kill(server.process, signal.SIGSTOP)
began = time.monotonic()
server.end()
print(0.5 <= time.monotonic() - began < 5, Path(server.address).parent.exists())
"""


def test_a_server_that_does_not_listen_is_ended_by_force(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=60,
        env=os.environ | {"TMPDIR": str(tmp_path)}, check=True,
    )  # fmt: skip
    assert done.stdout == "True False\n" and not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's end")
def test_a_killed_owner_takes_server_and_jobs_along(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    job = client(holder.stdout.readline().strip(), "sleep", cwd=tmp_path)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    holder.kill()
    assert job.wait(10) == jobserver.CUT_OFF


def test_without_a_server_the_command_works_itself(tmp_path: Path) -> None:
    job = client(str(tmp_path / "nobody"), "plan", "none.yaml", cwd=tmp_path)
    assert "none.yaml: cannot be read" in job.communicate(timeout=60)[1] and job.returncode == 2


ATTENDED = """
import json, os, sys
from types import SimpleNamespace as Of
from snakemake.settings.types import DeploymentMethod
from iadd.pipeline import jobserver

nodes, remote, deployed = json.loads(sys.argv[1])
deployed = Of(deployment_method={DeploymentMethod[name] for name in deployed})
asked = Of(nodes=nodes)
workflow = Of(remote_exec=remote, resource_settings=asked, deployment_settings=deployed)
print("once ", end="")  # it waits to be written when the server is forked
jobserver.attend(workflow, lambda: sys.exit(3))
address = os.environ.get(jobserver.VARIABLE, "")
print(address, jobserver.ask(["iadd"]), os.path.exists(address))
"""


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ((None, True, []), "ours 3 True"),
        ((1, True, []), "none None False"),  # it only starts the other one, by srun
        ((None, False, []), "none None False"),  # on this machine, where `iadd run` has a server
        ((None, True, ["APPTAINER"]), " None False"),  # else jobs would leave their containers
        ((None, False, ["APPTAINER"]), " None False"),
        ((None, True, ["CONDA"]), "ours 3 True"),
    ],
)
def test_the_snakemake_that_runs_a_submissions_jobs_has_a_server(
    asked: object, answer: str, tmp_path: Path
) -> None:
    """It serves, its folder is gone when Snakemake has ended, and nothing is written twice."""
    done = subprocess.run(
        [sys.executable, "-c", ATTENDED, json.dumps(asked)], capture_output=True, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path), jobserver.VARIABLE: "none"}, check=True,
    )  # fmt: skip
    assert re.sub(rf"{re.escape(str(tmp_path))}\S+", "ours", done.stdout) == f"once {answer}\n"
    assert not list(tmp_path.iterdir())
