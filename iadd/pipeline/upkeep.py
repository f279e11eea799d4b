"""What Snakemake's own process does beside running jobs, kept small."""

from __future__ import annotations

import atexit
import gc

RATE = 100, 1.0
"""Starts of jobs, and in how many seconds, to which Snakemake holds itself of its own."""
RARELY = 100_000, 50, 50
"""Thresholds for a graph of thousands of jobs: to look for garbage among its millions of objects as
often as usual takes a sixth of the time, and an eighth of a start, which loads PyTorch."""
USUAL = gc.get_threshold()


def spare() -> None:
    """Call it before PyTorch is loaded."""
    _collect_rarely()
    _hold_to_no_rate()


def _hold_to_no_rate() -> None:
    """Lift Snakemake's own limit of starts a second; any other that was asked for stays.

    Under it Snakemake weighs all ready jobs again a second after it did, and then again, in one
    more such chain for each job that has ended: of 200 jobs this took 7 % of a core. How many jobs
    run side by side is limited anyway. The class is none of Snakemake's interface: where it is not
    there, jobs run all the same.
    """
    from snakemake.scheduling import job_scheduler as its

    limiter = getattr(its, "JobRateLimiter", None)
    if limiter is None:
        return
    its.JobRateLimiter = lambda limit: (
        None if (limit.max_jobs, limit.timespan) == RATE else limiter(limit)
    )


def _collect_rarely() -> None:
    """At the end nothing is looked through: the process leaves its memory anyway."""
    gc.set_threshold(*RARELY)
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """For a job that is forked from such a process: its tensors must not wait to be freed."""
    gc.set_threshold(*USUAL)
