"""The Ray runtime that a search runs on: its own and short-lived, or a cluster that was named."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iadd.artifacts import complaint

SOCKET_ROOT = 39
"""Ray makes sockets under its folder; longer roots run over the 107 bytes of a socket's path."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # the plan's paths are relative
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # Optuna's storage is the record
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # we tell what failed in one line
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would go on to name a winner
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_health_check_failure_threshold": "100",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "localhost,127.0.0.1",
}
"""Of a runtime of our own. By default on Windows and macOS, a node that is alone listens on the
loopback address only. And even with usage statistics off, Ray asks the metadata addresses of three
clouds who runs this machine: a proxy at a port where nothing listens answers that at once. On a
busy machine a node answers late: that it died, we see ourselves (`end_with`)."""
ANSWER_SECONDS = 120
SERVERS = ("raylet", "gcs_server")
LOOK_SECONDS = 0.5
"""Between two looks whether Ray's own servers are alive."""
OBJECT_STORE = 100 * 2**20  # settings and small results only; experts are memory-mapped


@contextmanager
def cluster(state: Path, cpus: float, cards: int, address: str | None) -> Iterator[dict[str, Any]]:
    """Ray, with its resources, for the length of a search.

    Args:
        state: the search's folder (absolute); every node must see it.
        cpus, cards: the share of this machine that a runtime of our own may count on.
        address: a running cluster as host:port or `auto`; None: one of our own, joined by nobody.

    Raises:
        ValueError: the address does not answer; a node does not see the folder.
    """
    before = {name: os.environ.get(name) for name in ALONE}
    os.environ |= QUIET if address else QUIET | ALONE
    # `ray start` asks for the user's token where there is one; a driver sends it if told to.
    told = address is not None and _has_token() and "RAY_AUTH_MODE" not in os.environ
    if told:
        os.environ["RAY_AUTH_MODE"] = "token"
    ray: Any = importlib.import_module("ray")
    temporary = temporary_root(state)
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}  # we tell what failed
    over = threading.Event()
    try:
        if address is None:
            _start(ray, temporary / "r", num_cpus=cpus, num_gpus=cards, **quiet)
            node = ray._private.worker._global_node
            threading.Thread(target=end_with, args=(node, temporary, over), daemon=True).start()
        else:
            _check_answers(address)
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"Ray address {address!r}: no cluster there ({reason})") from None
            _check_shared(ray, state)
        yield dict(ray.cluster_resources())
    finally:
        over.set()
        with contextlib.suppress(Exception):
            ray.shutdown()
        if told:
            before["RAY_AUTH_MODE"] = None
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}
        shutil.rmtree(temporary, ignore_errors=True)


def _start(ray: Any, folder: Path, **options: Any) -> None:
    """A runtime of our own; ValueError in one line where it does not start."""
    # Ray counts the machine's cores, not the job's share; without "local" it would join whatever
    # cluster it finds, and without the loopback address listen on the network.
    alone = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        ray.init(**alone, _temp_dir=str(folder), _node_ip_address="127.0.0.1", **options)
    except Exception as error:  # Ray's own kinds, and whatever its parts raise
        reason = complaint(error)
        raise ValueError(f"Ray does not start; is its disk full? ({reason})") from error


def end_with(node: Any, temporary: Path, over: threading.Event) -> None:
    """End this process in one line where a server of its own Ray has died, until `over`.

    Ray itself would wait for a minute, and end it from elsewhere with a page of text. Helpers of a
    node whose own server is gone wait for that, so that they are ended here, too.
    """
    import psutil

    while not over.wait(LOOK_SECONDS):
        died = [name for name, _ in node.dead_processes() if name in SERVERS]
        if died and not over.is_set():
            why = f"Ray's {died[0]} was killed, perhaps for want of memory"
            print(f"iadd: {why}; the same command goes on from here", file=sys.stderr, flush=True)
            helpers = psutil.Process().children(recursive=True)
            with contextlib.suppress(Exception):
                node.kill_all_processes(check_alive=False)
            for helper in helpers:
                with contextlib.suppress(psutil.Error):  # it has ended
                    helper.kill()
            shutil.rmtree(temporary, ignore_errors=True)
            os._exit(2)


def temporary_root(state: Path) -> Path:
    """A new folder for Ray's sockets and logs: short, and ours alone (0700).

    Those of searches of the same state that were killed are removed.
    """
    prefix = f"iadd-{hashlib.sha256(str(state).encode()).hexdigest()[:6]}-"
    root = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    if len(str(root / f"{prefix}12345678/r")) > SOCKET_ROOT:
        root = Path("/tmp")
    for old in root.glob(f"{prefix}*"):
        if old.stat().st_uid == os.getuid():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=root))


def _has_token() -> bool:
    """Whether this user has a token for Ray clusters; a runtime of our own leaves one."""
    given = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    return bool(given) or (Path.home() / ".ray" / "auth_token").exists()


def _check_answers(address: str) -> None:
    """A wrong address would keep Ray trying for a minute, and end in pages of text."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"Ray address {address!r}: allowed are host:port and auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ValueError(f"Ray address {address!r}: does not answer ({error})") from None


def _check_shared(ray: Any, state: Path) -> None:
    """Every node must see the search's folder: trials, checkpoints and experts lie on it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = state / "spec.json"

    def seen(path: str) -> str | None:
        try:
            return Path(path).read_text()
        except OSError:
            return None

    for node in ray.nodes():
        if not node["Alive"]:
            continue
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        look = ray.remote(seen).options(num_cpus=0, scheduling_strategy=there)
        name = f"node {node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
        try:
            found = ray.get(look.remote(str(mark)), timeout=ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"Ray {name} runs no worker: {reason}") from None
        if found != mark.read_text():
            raise ValueError(
                f"{state}: {name} does not see this folder; run from storage that all nodes share"
            )
