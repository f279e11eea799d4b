"""`iadd run` on a SLURM cluster: how it sees jobs end, and jobs that a killed run left behind."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from iadd.pipeline.plan import Plan

NAMES = ("profile.yaml", "config.v9+.yaml", "config.v8+.yaml", "config.yaml")
"""Of the file in a profile's folder."""
REMEMBERED = 240
"""Seconds for which SLURM must know of ended jobs: Snakemake looks every three minutes at least."""
PATIENCE = 60
"""Seconds that a command of SLURM may take."""


def executor_of(options: Sequence[str]) -> str | None:
    """The executor that options name, themselves or by a profile; None: this machine."""
    named = value_of(options, "--executor") or value_of(options, "-e")
    profile = Path(value_of(options, "--profile") or ".none")
    for path in (profile, *(profile / name for name in NAMES)):
        if named is None and path.is_file():
            found = yaml.safe_load(path.read_text())
            named = found.get("executor") if isinstance(found, dict) else None
    return None if named in (None, "local") else str(named)


def arguments(plan: Plan, options: Sequence[str]) -> list[str]:
    """What is added to the user's options: names for the jobs, and a way to see them end.

    Raises:
        ValueError: SLURM is not here, or forgets its jobs too soon.
    """
    added = ["--slurm-jobname-prefix", _prefix(plan)]
    if value_of(options, "--slurm-status-command") is None:
        known = re.search(r"MinJobAge\s*=\s*(\d+)", _ask("scontrol", "show", "config"))
        seconds = int(known[1]) if known else REMEMBERED
        if seconds < REMEMBERED:
            if not _works("sacct", "-nX"):
                raise ValueError(
                    f"SLURM forgets ended jobs after {seconds} s (MinJobAge in slurm.conf) and "
                    "keeps no accounts: Snakemake would wait for ever; allowed are "
                    f"{REMEMBERED} and more"
                )
            added += ["--slurm-status-command", "sacct"]
    return added


def cancel_leftovers(plan: Plan) -> int:
    """Cancel the jobs that an earlier run of this benchmark left when it was killed; how many.

    Call it under the benchmark's lock: then nobody waits for them, and new ones would do the same.
    """
    listed = _ask("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A %j").splitlines()
    left = {row.split()[0] for row in listed if row.split()[1:] and _prefix(plan) in row}
    if left:
        _ask("scancel", *sorted(left))
    return len(left)


def cores_of_a_node(partition: str | None = None) -> int | None:
    """Cores of the largest node, of a partition or of all; None where SLURM does not tell."""
    where = [f"--partition={partition}"] if partition else []
    try:
        told = _ask("sinfo", "--noheader", "--format=%c", *where).split()
        return max(int(count.rstrip("+")) for count in told)
    except ValueError:  # no SLURM, no such partition, or no nodes in it
        return None


def _prefix(plan: Plan) -> str:
    """Names the jobs of one benchmark in one folder: letters, digits and hyphens, at most 50."""
    place = hashlib.sha256(str(plan.root.absolute()).encode()).hexdigest()[:8]
    return f"iadd-{re.sub(r'[^A-Za-z0-9_-]', '-', plan.root.name)[:30]}-{place}"


def value_of(options: Sequence[str], name: str) -> str | None:
    """What follows an option; the last one counts."""
    found = None
    for k, option in enumerate(options):
        if option.startswith(f"{name}="):
            found = option.partition("=")[2]
        elif option == name and k + 1 < len(options):
            found = options[k + 1]
    return found


def _works(*command: str) -> bool:
    try:
        return not subprocess.run(
            command, capture_output=True, check=False, timeout=PATIENCE
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except FileNotFoundError:
        raise ValueError(f"{command[0]} is not installed here: is this a SLURM cluster?") from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = [*(error.stderr or "").strip().splitlines(), str(error)][0]
        raise ValueError(f"{' '.join(command[:3])}: {said}") from None
    return done.stdout
