"""Warm jobs: the same work, status and streams as cold ones, and they die with their client."""

import os
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

print(jobserver.start(command), flush=True)
sys.stdin.read()
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


def test_half_a_message_is_ignored(address: str) -> None:
    for words in (b"", struct.pack("!Q", 100) + b"{"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as half:
            half.connect(address)
            if words:
                socket.send_fds(half, [words[:8]], [0, 1, 2])
                half.sendall(words[8:])
    assert client(address, "fail").wait(60) == 3


def test_a_temporary_folder_too_long_for_a_socket(tmp_path: Path) -> None:
    """Rule: batch systems set long ones; the socket lies elsewhere."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(long)},
    )  # fmt: skip
    assert holder.stdout and holder.stdin
    assert holder.stdout.readline().startswith("/tmp/iadd-")
    holder.stdin.close()
    assert holder.wait(60) == 0 and not list(long.iterdir())


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
