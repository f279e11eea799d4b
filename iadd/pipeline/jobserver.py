"""Warm starts: one process with torch loaded forks a child for every job.

A benchmark is hundreds of short jobs, and each would spend more than a second on importing torch.
`iadd run` starts a server beside Snakemake for jobs on this machine; in a submission to a cluster,
the Snakemake that runs its jobs starts one. The command `iadd` hands its arguments, folder,
environment and standard streams to the server, and ends with the status of the child that did the
work. Without a server, or where the server dies before the work was begun, it does the work itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import glob
import importlib
import json
import os
import platform
import shutil
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from iadd.pipeline.processes import die_with_parent
from iadd.pipeline.upkeep import collect_as_usual

VARIABLE = "IADD_WARM"
LOADED = (
    *("iadd.pipeline.stages", "iadd.evaluation", "iadd.leaderboard.results", "iadd.engine.unroll"),
    *("iadd.pipeline.foreign", "iadd.pipeline.card_share", "iadd.leaderboard.weights"),
    *("iadd.methods", "pandas", "pyarrow.parquet", "pyarrow.pandas_compat", "safetensors.torch"),
    *(f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Png", "Ppm")),
)
"""What jobs import beside PyTorch, a second's worth."""
CUT_OFF = 1
"""Status of a command whose child died without a word (killed, out of memory)."""
BEGUN = b"+"
"""What a child answers before it begins; then comes its status, one byte."""
PATIENCE = 60.0
"""Seconds in which a request must be there."""
AGAIN = 5.0
"""Seconds after a start in which a killed server is not started again."""
ENDS = 5.0
"""Seconds in which a server that was asked to end does."""
LONGEST = 1 << 24
"""Bytes of a request: arguments and environment, which the kernel holds to less."""


def ask(argv: list[str]) -> int | None:
    """Have the warm server run a command; its exit status, or None if there is no server."""
    address = os.environ.get(VARIABLE)
    if not address:
        return None
    request = json.dumps({"argv": argv, "cwd": str(Path.cwd()), "env": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            server.connect(address)
            socket.send_fds(server, [struct.pack("!Q", len(request))], [0, 1, 2])
            server.sendall(request)
        except OSError:
            return None
        if _answer(server) != BEGUN:
            return None
        answer = _answer(server)
    return answer[0] if answer else CUT_OFF


def _answer(other: socket.socket) -> bytes:
    """The next byte; none where the other side is gone."""
    try:
        return other.recv(1)
    except OSError:
        return b""


class Server:
    """A warm server, as seen by the process that started it; it and its jobs end with that one.

    Args:
        address: of its socket.
        command: does the work of one request: reads sys.argv and ends by SystemExit.
    """

    def __init__(self, address: str, command: Callable[[], None]) -> None:
        self.address, self.command, self.process = address, command, 0
        self._fork()

    def watch(self) -> None:
        """Start it anew where it was killed; before, commands do their work themselves, slowly."""
        if self.process and os.waitpid(self.process, os.WNOHANG)[0]:
            self.process = 0
        if not self.process and time.monotonic() - self.began > AGAIN:
            with contextlib.suppress(OSError):  # no room for a process: later, perhaps
                self._fork()

    def end(self) -> None:
        """End it, by force where it does not listen: Python can lose what a signal raises."""
        if self.process:
            with contextlib.suppress(OSError):  # it has ended
                os.kill(self.process, signal.SIGTERM)
                last = time.monotonic() + ENDS
                while not os.waitpid(self.process, os.WNOHANG)[0]:
                    if time.monotonic() > last:
                        os.kill(self.process, signal.SIGKILL)
                    time.sleep(0.01)
        shutil.rmtree(Path(self.address).parent, ignore_errors=True)

    def _fork(self) -> None:
        """OSError where its folder is gone, or its path too long for a socket."""
        Path(self.address).unlink(missing_ok=True)
        self.began, parent = time.monotonic(), os.getpid()
        sys.stdout.flush()  # else each child would write what waits there, too
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(self.address)
            listener.listen(64)
            self.process = os.fork()
            if self.process == 0:
                _become(listener, parent, Path(self.address).parent, self.command)


def start(command: Callable[[], None]) -> Server | None:
    """Fork a server.

    None where no folder is fit for a socket: its path may have some hundred bytes, and batch
    systems give long temporary folders.
    """
    for place in (None, "/tmp"):
        with contextlib.suppress(OSError):
            folder = _new_folder(place)
            try:
                return Server(str(Path(folder) / "s"), command)
            except OSError:  # too long, or a file system without sockets
                shutil.rmtree(folder)
    return None


def attend(workflow: Any, command: Callable[[], None]) -> None:
    """Start a server in the Snakemake that runs a submission's jobs, and end it before that ends: a
    batch system kills what is left then. Where jobs run in containers, none may serve them.

    Args:
        workflow: Snakemake's. One that submits, be it by srun, has a number of nodes.
        command: as of `Server`.
    """
    from snakemake.settings.types import DeploymentMethod

    inside = workflow.remote_exec and workflow.resource_settings.nodes is None
    if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
        os.environ.pop(VARIABLE, None)
    elif inside and (server := start(command)):
        os.environ[VARIABLE] = server.address
        atexit.register(server.end)


def _become(
    listener: socket.socket, parent: int, folder: Path, command: Callable[[], None]
) -> NoReturn:
    """The server: serve until the parent ends."""
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        die_with_parent(parent, signal.SIGTERM)
        _detach(listener)
        _load()
        _serve(listener, parent, command)
    finally:
        try:  # a second signal must not lead back into the program that was forked
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os._exit(0)


def _new_folder(place: str | None) -> str:
    """A folder for the socket, ours alone (mode 0700); those of killed runs are removed."""
    import tempfile

    from iadd.artifacts.writing import alive

    prefix = f"iadd.{platform.node()}."
    for old in Path(place or tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*.*"):
        with contextlib.suppress(FileNotFoundError):  # another run of ours was here first
            if old.stat().st_uid == os.getuid() and not alive(old.suffixes[-2][1:]):
                shutil.rmtree(old, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}.", dir=place)


def _detach(listener: socket.socket) -> None:
    """Leave the terminal's streams and interrupts to the foreground, and locks to who took them."""
    for sign in (signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.closerange(3, listener.fileno())
    os.closerange(listener.fileno() + 1, 1 << 20)


def _load() -> None:
    """Import what jobs need. No tensor is computed here: threads would not survive the fork."""
    from iadd import extension

    for name in LOADED:
        importlib.import_module(name)
    extension.status()
    collect_as_usual()
    gc.freeze()  # what is loaded stays: no job's collections look through it again


def _serve(listener: socket.socket, parent: int, command: Callable[[], None]) -> None:
    listener.settimeout(1.0)
    server = os.getpid()
    while os.getppid() == parent:
        with contextlib.suppress(OSError):  # no client for a second, or no room for a process
            client, _ = listener.accept()
            with client:
                if os.fork() == 0:
                    _child(listener, client, server, command)


def _child(
    listener: socket.socket, client: socket.socket, server: int, command: Callable[[], None]
) -> NoReturn:
    """The child: become the command, answer its status, end, whatever happens on the way."""
    status = CUT_OFF
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(server)
        listener.close()
        request = _receive(client)
        threading.Thread(target=_die_with, args=(client,), daemon=True).start()
        client.sendall(BEGUN)
        status = _run(request, command)
        sys.stdout.flush()
        sys.stderr.flush()
        client.sendall(bytes([status]))
    finally:
        os._exit(status)


def _receive(client: socket.socket) -> Mapping[str, Any]:
    """A request, with its streams in place of ours; ValueError or OSError for anything else."""
    client.settimeout(PATIENCE)
    head, streams, _, _ = socket.recv_fds(client, 8, 3)
    if len(head) < 8 or len(streams) < 3:
        raise ValueError("half a request")
    (length,) = struct.unpack("!Q", head)
    body = b""
    while len(body) < min(length, LONGEST):
        part = client.recv(length - len(body))
        if not part:
            raise ValueError("half a request")
        body += part
    request: Mapping[str, Any] = json.loads(body)
    for stream, descriptor in enumerate(streams):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    client.settimeout(None)
    return request


def _die_with(client: socket.socket) -> None:
    """A killed client closes its end; its job must not go on behind the scheduler's back."""
    if not _answer(client):  # or it resets it, where it had not yet read that the work has begun
        os.kill(os.getpid(), signal.SIGKILL)


def _run(request: Mapping[str, Any], command: Callable[[], None]) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = list(request["argv"])
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0
