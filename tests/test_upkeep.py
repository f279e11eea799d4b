"""Snakemake's process: garbage is looked for rarely, ready jobs are weighed when a job ends."""

import subprocess
import sys

import pytest

pytest.importorskip("snakemake")

SPARING = """
import gc
usual = gc.get_threshold()
from iadd.pipeline import upkeep
upkeep.spare()
assert gc.get_threshold()[0] > usual[0]
upkeep.collect_as_usual()
assert gc.get_threshold() == usual

from snakemake.cli import get_argument_parser
from snakemake.scheduling import job_scheduler
import sys
asked = get_argument_parser().parse_args(["--cores", "1", *sys.argv[1:]])
limiter = job_scheduler.JobRateLimiter(asked.max_jobs_per_timespan)
print(limiter and (limiter.max_jobs, limiter.timespan))
"""


@pytest.mark.parametrize(
    ("options", "rate"),
    [([], "None"), (["--max-jobs-per-timespan", "10/1m"], "(10, 60)")],
)
def test_starts_are_held_to_a_rate_only_where_that_was_asked_for(
    options: list[str], rate: str
) -> None:
    """Rule: by Snakemake's default it weighs all ready jobs over and over."""
    done = subprocess.run(
        [sys.executable, "-c", SPARING, *options], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().replace(".0", "") == rate
