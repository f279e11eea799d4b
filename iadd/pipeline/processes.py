"""What processes may do: which cores they use, and that a child does not outlive its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import select
import signal
import sys
import threading
from pathlib import Path

PR_SET_PDEATHSIG = 1
SNAKEMAKE = "IADD_SNAKEMAKE"
"""Where jobs find the machine and process of the Snakemake that they are run by."""


def die_with_parent(parent: int, sign: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(sign))
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), sign)


def die_with_snakemake() -> None:
    """Have this job end with the Snakemake that `iadd run` started it by, which names itself.

    Its shell in between would go on, and the same job would be begun a second time; so it would
    where the shell alone was killed. Where the kernel cannot tell of another process's end,
    `iadd run` ends the group that all are in.
    """
    node, _, process = os.environ.get(SNAKEMAKE, "").rpartition(" ")
    if node != platform.node() or str(os.getpgid(0)) != process or sys.platform != "linux":
        return  # a job of a cluster, or one by hand
    parent = os.getppid()
    if os.getpgid(parent) != int(process):  # the shell has ended already
        os.kill(os.getpid(), signal.SIGKILL)
    die_with_parent(parent)
    die_after(int(process))


def die_after(process: int) -> None:
    """Have a thread kill this process when another one, be it no parent, has ended (Linux)."""
    try:
        descriptor = os.pidfd_open(process)
    except OSError:  # it has ended already
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=_die_after, args=(descriptor,), daemon=True).start()


def _die_after(descriptor: int) -> None:
    select.select([descriptor], [], [])
    os.kill(os.getpid(), signal.SIGKILL)


def usable_cores() -> int:
    """The cores that this process may use: affinity (SLURM, taskset) and a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min(allowed or 1, _quota())))


def _quota(root: Path = Path("/sys/fs/cgroup"), groups: str | None = None) -> float:
    """Cores by the quotas of this process's control groups (versions 1 and 2), infinite if none.

    groups: what the kernel says of them, lines of `number:controllers:path`.
    """
    least = float("inf")
    with contextlib.suppress(OSError, ValueError):
        for line in (groups or Path("/proc/self/cgroup").read_text()).splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = root / "cpu" if controllers else root
            own = top / path.strip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(top):
                    least = min(least, _limit(folder))
    return least


def _limit(folder: Path) -> float:
    """Cores by the quota of one control group."""
    with contextlib.suppress(OSError, ValueError):
        if (folder / "cpu.max").exists():
            words = (folder / "cpu.max").read_text().split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            words = [(folder / name).read_text().strip() for name in names]
        quota, period = words
        return float("inf") if quota in ("max", "-1") else int(quota) / int(period)
    return float("inf")
