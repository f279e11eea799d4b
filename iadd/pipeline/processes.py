"""What processes may do: which cores they use, and that a child does not outlive its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, sign: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(sign))
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), sign)


def usable_cores() -> int:
    """The cores that this process may use: affinity (SLURM, taskset) and a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min(allowed or 1, _quota())))


def _quota(root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> float:
    """Cores by the quotas of this process's control groups (version 2), infinite if none."""
    least = float("inf")
    with contextlib.suppress(OSError, ValueError, IndexError):
        if own is None:
            own = Path("/proc/self/cgroup").read_text().split("::", 1)[1].split("\n")[0].strip("/")
        for folder in (root / own, *(root / own).parents):
            if not folder.is_relative_to(root):
                break
            with contextlib.suppress(OSError):
                quota, period = (folder / "cpu.max").read_text().split()
                if quota != "max":
                    least = min(least, int(quota) / int(period))
    return least
