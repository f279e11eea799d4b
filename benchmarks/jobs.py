"""What a job costs beside its work: `iadd run` of small jobs against their stages in one process.

    python benchmarks/jobs.py [--seeds 100] [--cores 2]

Runs of `random` on made-up blobs, one tiny network judges each: two jobs a seed, of a few
hundredths of a second. What `iadd run` takes of all its cores beyond the same stages, done one
after the other in one warm process, is shared out among the jobs; its start and end are in it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from iadd.pipeline import stages, tables


def benchmark(seeds: int) -> dict[str, object]:
    """A configuration whose jobs do almost nothing."""
    return {
        **{"benchmark": "jobs", "seeds": seeds, "ipc": [1], "network": "mlp-w8"},
        "datasets": [{"name": "blobs"}],
        "evaluations": [{"networks": {"mlp-w8": 1}, "epochs": 1}],
        "methods": {"random": None},
    }


def work(config: Path) -> float:
    """Seconds of the stages themselves, in this process."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        plan, key = stages.open_plan(config)
        stages.prepare(plan, key)  # what is loaded once is loaded
        began = time.perf_counter()
        for run in plan.runs():
            stages.distill(plan, run)
            stages.evaluate(plan, run)
        tables.collect(plan)
        tables.site(plan)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--cores", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("alone", "run"):
            (Path(folder) / name).mkdir()
            (Path(folder) / name / "c.json").write_text(json.dumps(benchmark(asked.seeds)))
        command = [sys.executable, "-m", "iadd", "run", "c.json", "--cores", str(asked.cores)]
        began = time.perf_counter()
        subprocess.run(command, cwd=Path(folder) / "run", check=True)
        wall = time.perf_counter() - began
        os.chdir(Path(folder) / "alone")
        alone = work(Path("c.json"))
        os.chdir("/")
    jobs = 2 * asked.seeds + 3
    each = (wall * asked.cores - alone) / jobs
    print(f"{jobs} jobs: {wall:.1f} s on {asked.cores} cores, {alone:.1f} s in one process")
    print(f"a job costs {each:.2f} s of a core beside its work, {each / asked.cores:.2f} s of time")


if __name__ == "__main__":
    main()
