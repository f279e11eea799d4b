"""What the site of many runs costs: seconds, memory, sizes of pages.

    python benchmarks/site.py [--runs 10000] [--trace 100] [--folder F]

Makes the tables of 25 methods on 20 data sets at 4 ipc with made-up numbers, ranks them, and builds
the site in a process of its own. At 10,000 runs the leaderboard has 10,000 rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scale import evaluation_rows, measured, replace, trace_rows

from iadd.leaderboard import results
from iadd.leaderboard.ranking import rank
from iadd.leaderboard.rows import COMPARISONS, EVALUATIONS, LEADERBOARD, TRACES, TRIALS
from iadd.leaderboard.site import RunKey, build_site
from iadd.leaderboard.weights import WEIGHTS

METHODS, DATASETS, IPC = 25, 20, (1, 5, 10, 50)
NETWORKS = ("convnet-d2-w16", "mlp", "lenet", "resnet18")


def keys(runs: int) -> list[RunKey]:
    """All runs, in the order of the tables."""
    seeds = max(3, runs // (METHODS * DATASETS * len(IPC)))
    return [
        RunKey(f"data{d:02}", ipc, f"method{m:02}", False, seed)
        for d in range(DATASETS)
        for ipc in IPC
        for m in range(METHODS)
        for seed in range(seeds)
    ]


def table_of_runs(template: pa.Table, runs: list[RunKey]) -> pa.Table:
    """The template's rows for each run."""
    whole = template.take(np.tile(np.arange(len(template)), len(runs)))
    for name in RunKey._fields:
        values = np.repeat([getattr(run, name) for run in runs], len(template))
        whole = replace(whole, name, pa.array(values, whole.schema.field(name).type))
    return whole


def make(folder: Path, runs: list[RunKey], trace: int) -> None:
    """Tables with made-up accuracies and losses."""
    generator = np.random.default_rng(0)
    first = evaluation_rows()[0]
    rows = [vars(first) | {"network_eval": n, "eval_seed": k} for n in NETWORKS for k in range(2)]
    evaluations = table_of_runs(results.table_of(rows, EVALUATIONS), runs)
    number = np.repeat([int(run.method[6:]) for run in runs], len(rows))
    accuracy = np.clip(0.4 + 0.01 * number + generator.normal(0, 0.01, len(number)), 0, 1)
    evaluations = replace(evaluations, "accuracy", pa.array(accuracy))
    traces = table_of_runs(results.table_of(trace_rows(trace), TRACES), runs)
    falling = 1 / np.tile(np.arange(1, trace + 1), len(runs)) + generator.uniform(
        0, 0.1, len(traces)
    )
    traces = replace(traces, "loss", pa.array(falling))
    iteration = pa.array(np.tile(np.arange(trace), len(runs)))
    board, comparisons = rank(evaluations)
    about = {
        "title": "site",
        "classes": {f"data{d:02}": list("0123456789") for d in range(DATASETS)},
    }
    written: dict[str, tuple[Any, pa.Schema]] = {
        "evaluations": (evaluations, EVALUATIONS),
        "traces": (replace(traces, "iteration", iteration), TRACES),
        "comparisons": (comparisons, COMPARISONS),
        "leaderboard": (board, LEADERBOARD),
        "trials": ([], TRIALS),
        "weights": ([], WEIGHTS),
    }
    for name, (found, schema) in written.items():
        results.write_table(found, folder / f"{name}.parquet", schema, {"about": about})
    from PIL import Image

    Image.fromarray(generator.integers(0, 255, (200, 200), np.uint8)).save(folder / "one.png")


def build(folder: Path, runs: list[RunKey]) -> None:
    """The site of the tables in a folder."""
    tables = {path.stem: path for path in folder.glob("*.parquet")}
    build_site(tables, dict.fromkeys(runs, folder / "one.png"), {}, folder / "site")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--trace", type=int, default=100, help="rows of a run's trace")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    parser.add_argument("--build", action="store_true", help="the tables are there")
    options = parser.parse_args()
    runs = keys(options.runs)
    if options.build:
        build(options.folder, runs)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, runs, options.trace)
        words = ["--build", "--folder", str(folder), "--runs", str(options.runs)]
        found = measured([sys.executable, __file__, *words])
        pages = sorted((folder / "site").rglob("*.html"), key=lambda path: -path.stat().st_size)
        print(f"{len(runs)} runs, {len(pages)} pages: ", end="")
        print("{cpu_s:.1f} s of processor time, {s:.1f} s, {MiB:.0f} MiB".format(**found))
        for path in pages[:5]:
            print(f"{path.stat().st_size / 1e6:.2f} MB  {path.relative_to(folder / 'site')}")


if __name__ == "__main__":
    main()
