"""What a benchmark of many runs costs before, between and after its jobs: plan, graph, tables.

    python benchmarks/scale.py [--runs 20000] [--methods 25] [--trace 100] [--folder F]

Makes a configuration on the digits (methods x 8 data sets x 10 ipc x seeds), prepares its data, and
runs `iadd plan`, the graph (`iadd run -n`), then, beside made-up files of all its runs, `iadd
collect`, `show`, `status`, the graph and the plan again. Each is a process of its own; told are
its processor time (user and system, which other work on the machine changes little), its time by
the clock and its peak of resident memory. With a folder that is there already, its files are used
again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from iadd.artifacts import SPEC_VERSION
from iadd.leaderboard import results
from iadd.leaderboard.rows import EVALUATIONS, TRACES, EvaluationRow, TraceRow
from iadd.pipeline.config import load_config
from iadd.pipeline.plan import Plan, Run

DATASETS, IPC, CLASSES, PER_CLASS = 8, 10, 10, 45
NETWORKS = {"convnet-d2-w16": 5, "mlp": 3, "lenet": 2}
COMMANDS = {
    "plan": ["plan"],
    "graph": ["run", "-n"],
    "collect": ["collect"],
    "show": ["show"],
    "status": ["status"],
    "again": ["run", "-n"],
    "plan again": ["plan"],
}
"""What is measured, in this order; files of runs are made before `collect`."""


def configuration(runs: int, methods: int) -> dict[str, Any]:
    """A benchmark of about so many runs."""
    mtt = {"iterations": 100, "unrolled_steps": 5, "max_start": 4, "validations": 2}
    entries = {
        f"m{k}": {"method": "mtt", "params": mtt | {"lr_img": 1 + k}} for k in range(methods)
    }
    return {
        "benchmark": "scale",
        "seeds": max(1, round(runs / (methods * DATASETS * IPC))),
        "ipc": list(range(1, IPC + 1)),
        "datasets": [{"name": "digits", "label": f"d{k}"} for k in range(DATASETS)],
        "network": "convnet-d2-w16",
        "experts": {"count": 10, "per_shard": 10},
        "evaluations": [{"protocol": "mtt-v1", "networks": NETWORKS, "epochs": 60}],
        "methods": entries,
    }


def make_files(plan: Plan, trace: int) -> None:
    """The files of all runs, with made-up numbers in their evaluations and traces."""
    # Written as jobs do, but for the wait until they are on the disk.
    results.atomic_write = lambda path, content: Path(path).write_bytes(content)  # type: ignore[assignment]
    generator = np.random.default_rng(0)
    template = results.table_of(evaluation_rows(), EVALUATIONS)
    history = results.table_of(trace_rows(trace), TRACES)
    for run in plan.runs():
        paths, judged = plan.paths(run), plan.judged_spec(run)
        paths.evaluation.parent.mkdir(parents=True, exist_ok=True)
        paths.trace.parent.mkdir(parents=True, exist_ok=True)
        noise = generator.normal(0, 0.01, len(template))
        accuracy = np.clip(0.5 + 0.01 * (int(run.method[1:]) % 30) + noise, 0, 1)
        table = replace(named(template, run), "accuracy", pa.array(accuracy))
        results.write_table(table, paths.evaluation, EVALUATIONS, judged)
        spec = {"spec": judged["spec"]}
        results.write_table(named(history, run), paths.trace, TRACES, spec)
        paths.distilled.touch()
        paths.picture.touch()


def replace(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)


def named(table: pa.Table, run: Run) -> pa.Table:
    """A table of another run's."""
    for name in ("dataset", "method", "ipc", "seed"):
        column = pa.array([getattr(run, name)] * len(table), type=table.schema.field(name).type)
        table = replace(table, name, column)
    return table


def evaluation_rows() -> list[EvaluationRow]:
    """One run's rows: every network tested on equally many images of each class."""
    matrix = np.full((CLASSES, CLASSES), 1, dtype=int)
    np.fill_diagonal(matrix, PER_CLASS - CLASSES + 1)
    shared: dict[str, Any] = {
        "spec_version": SPEC_VERSION,
        "protocol": "mtt-v1",
        "benchmark": "scale",
        "dataset": "",
        "ipc": 1,
        "method": "",
        "source": "measured",
        "tuned": False,
        "label_regime": "hard",
        "reconstruction": False,
        "network_distill": "convnet-d2-w16",
        "seed": 0,
        "accuracy": 0.5,
        "balanced_accuracy": 0.5,
        "confusion": matrix.ravel().tolist(),
        "recall": [0.5] * CLASSES,
        "specificity": [0.9] * CLASSES,
        "auroc": [0.8] * CLASSES,
        "train_accuracy": 1.0,
        "status": "ok",
        "distill_status": "ok",
        "expert_seconds": 1.0,
        "distill_seconds": 10.0,
        "validation_seconds": 1.0,
        "evaluate_seconds": 2.0,
        "host_peak_bytes": 2**28,
        "device_peak_bytes": 0,
        "image_bytes": 2560,
        "label_bytes": 80,
        "params": '{"lr_img":1.0}',
        "source_hash": "0123456789abcdef",
        "git_commit": None,
        "torch_version": "2.14",
        "device": "cpu",
    }
    return [
        EvaluationRow(**shared, network_eval=name, eval_seed=k)
        for name, number in NETWORKS.items()
        for k in range(number)
    ]


def trace_rows(count: int) -> list[TraceRow]:
    """One run's history."""
    values: dict[str, Any] = {
        "dataset": "",
        "ipc": 1,
        "method": "",
        "tuned": False,
        "seed": 0,
        "event": "",
    }
    values |= {"loss": 1.0, "step_size": 0.01, "seconds": 0.1, "path": "cpu", "grad_norm": 1.0}
    return [TraceRow.of(**values, iteration=k) for k in range(count)]


WATCHER = """
import json, os, sys, time
began, null = time.monotonic(), os.open(os.devnull, os.O_WRONLY)
actions = [(os.POSIX_SPAWN_DUP2, null, 1)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, used = os.wait4(pid, 0)
seconds = time.monotonic() - began
found = {"cpu_s": used.ru_utime + used.ru_stime, "s": seconds, "MiB": used.ru_maxrss / 1024}
print(json.dumps({name: round(value, 2) for name, value in found.items()}))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small process between us and what is measured: a child's peak of memory is never told to be
below what its parent held when it was started."""


def measured(words: list[str]) -> dict[str, float]:
    """Run a command to its end: its processor seconds, seconds, and peak memory in MiB."""
    watcher = [sys.executable, "-S", "-c", WATCHER, *words]
    done = subprocess.run(watcher, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: ended with status {done.returncode}")
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--methods", type=int, default=25)
    parser.add_argument("--trace", type=int, default=100, help="rows of a run's trace")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    parser.add_argument("--steps", default=",".join(COMMANDS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        file = Path("config.yaml")
        file.write_text(json.dumps(configuration(options.runs, options.methods)))
        plan = Plan(load_config(file))
        iadd = [sys.executable, "-m", "iadd"]
        for dataset in plan.stale_data():
            measured([*iadd, "data", str(file), "--dataset", dataset])
        for step in options.steps.split(","):
            first = next(plan.runs())
            if step == "collect" and not plan.paths(first).evaluation.exists():
                make_files(plan, options.trace)
            command, *further = COMMANDS[step]
            found = measured([*iadd, command, str(file), *further])
            if options.json:
                print(json.dumps({"step": step, **found}), flush=True)
            else:
                cpu, seconds, peak = found.values()
                told = f"{cpu:8.2f} s of processor time, {seconds:8.2f} s, {peak:6.0f} MiB"
                print(f"{step:12}{told}", flush=True)


if __name__ == "__main__":
    main()
