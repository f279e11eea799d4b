"""Hyper-parameter search by Ray Tune and Optuna: the only room that knows either.

A trial is the very distillation that the stages run, judged on validation data alone. All trials
lie in a journal of small files, so a search that was killed goes on without losing any; Ray's own
state is thrown away. Because a few hundred validation images are noisy, and the best of many noisy
measurements is flattered, the best trials and the default are distilled anew under fresh seeds and
judged by more networks before one of them is named the winner: by the same measure, the winner is
never worse than the default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from iadd import methods
from iadd.artifacts import SPEC_VERSION, atomic_write, canonical_json, source_hash
from iadd.pipeline import stages
from iadd.pipeline.config import Config
from iadd.pipeline.plan import Plan
from iadd.progress import Progress
from iadd.search.cluster import cluster
from iadd.search.figure import importance, png
from iadd.search.journal import Entry, Journal
from iadd.search.population import run_population
from iadd.search.remote import run_all
from iadd.search.trial import CONFIRMED, Task, confirm, settings_of
from iadd.search.tune import first_points, run_trials

__all__ = ["importance", "search"]

BASE_BYTES = 700 * 2**20
"""Resident memory of a worker with torch and Ray loaded and nothing done yet."""


def search(
    plan: Plan,
    dataset: str,
    method: str,
    ipc: int,
    *,
    workers: int | None = None,
    address: str | None = None,
    cards: int | None = None,
    cpus: float | None = None,
) -> Path:
    """Find a method's parameters; writes the winner (JSON), its trials (Parquet) and a picture.

    Args:
        plan: of a benchmark whose `search.methods` names the method.
        workers: trials side by side; default: the benchmark's. On a cluster this may be all nodes.
        address: a Ray cluster, host:port or `auto`; None: a runtime of our own.
        cards, cpus: what our own runtime may count on; default: all cards, what the workers ask.

    Raises:
        ValueError: the method is not tuned here; no experts; the address does not answer; the
            resources do not exist.
    """
    config = plan.config
    wanted = config.search
    if method not in wanted.methods:
        tuned = ", ".join(wanted.methods) or "none"
        raise ValueError(
            f"method {method!r} is not tuned in this benchmark; search.methods: {tuned}"
        )
    if ipc not in config.ipcs(method):
        raise ValueError(f"ipc {ipc} is not in this benchmark: {list(config.ipcs(method))}")
    workers = workers or wanted.workers
    text = canonical_json(config.model_dump(mode="json"))
    task = Task(text, str(Path.cwd()), dataset, method, ipc)
    journal, space = task.journal, config.space(method, ipc)
    points = first_points(task, space, wanted)
    plain = config.model_copy(update={"precision": Config.model_fields["precision"].default})
    problem = stages.problem(Plan(plain), dataset, method, ipc)  # what is missing shows in one line
    methods.find(method)(config.params(method, ipc), problem)
    resources = _resources(plan, problem)
    own = cpus or workers * wanted.cpus
    with journal.lock():
        spec = plan.search_spec(dataset, method, ipc)
        journal.claim({key: value for key, value in spec.items() if key != "budget"})
        devices = torch.cuda.device_count() if cards is None else cards
        with cluster(journal.folder, own, devices, address) as there:
            _check_room(resources, there)
            if wanted.scheduler == "pbt":
                run_population(task, space, points, resources, workers)
            else:
                run_trials(task, space, resources, workers)
            finalists = _confirm(task, journal, resources, workers)
        return _write(plan, task, journal, finalists)


def _resources(plan: Plan, problem: methods.Problem) -> dict[str, float]:
    """What Ray counts a trial as; memory keeps trials from being packed until they run out."""
    wanted = plan.config.search
    peak = (wanted.memory_mb or 0) * 2**20 or trial_bytes(problem)
    resources = {"cpu": wanted.cpus, "memory": float(peak)}
    if wanted.gpus:
        share = wanted.gpus
        if torch.cuda.is_available() and wanted.memory_mb:
            card = torch.cuda.get_device_properties(0).total_memory
            share = max(share, min(1.0, round(peak / card, 4)))
        resources["gpu"] = share
    return resources


def trial_bytes(problem: methods.Problem, steps: int = 100) -> int:
    """An estimate of a trial's peak memory: the program, the data, O(steps * P) of unrolling."""
    images = problem.dataset.train.images
    data = images.numel() * images.element_size()
    return BASE_BYTES + 2 * data + 4 * problem.network.num_parameters * (steps + 16)


def _check_room(resources: dict[str, float], there: dict[str, Any]) -> None:
    """A trial that fits nowhere would wait for ever."""
    for ours, theirs in (("cpu", "CPU"), ("gpu", "GPU"), ("memory", "memory")):
        if resources.get(ours, 0) > there.get(theirs, 0):
            raise ValueError(
                f"a trial asks for {resources[ours]:g} {ours}, Ray has {there.get(theirs, 0):g}"
            )


def contenders(task: Task, journal: Journal) -> list[Entry]:
    """The default, then the best trials that ran to their end (or nearly), best first."""
    wanted = task.plan.config.search
    default = first_points(task, task.plan.config.space(task.method, task.ipc), wanted)[0]
    first = settings_of(task, default)
    able = [e for e in journal.entries() if e.rows and e.status != "failed" and e.settings != first]
    able.sort(key=lambda e: (e.status != "ok", -e.best, e.number))
    distinct: dict[str, Entry] = {}  # two members may have come to the same settings
    for entry in able:
        distinct.setdefault(canonical_json(entry.settings), entry)
    number = next((e.number for e in journal.entries() if e.settings == first), 0)
    return [Entry(number, default, first), *list(distinct.values())[: wanted.finalists]]


def _confirm(
    task: Task, journal: Journal, resources: dict[str, float], workers: int
) -> list[tuple[Entry, list[Entry]]]:
    """Each contender with its fresh distillations, judged."""
    wanted = task.plan.config.search
    finalists: list[tuple[Entry, list[Entry]]] = []
    for contender in contenders(task, journal):
        number, point, settings = contender.number, contender.point, contender.settings
        seeds = range(1, wanted.confirm_seeds + 1)
        again = [Entry(number, point, settings, seed) for seed in seeds]
        finalists.append((contender, [journal.read(entry.key) or entry for entry in again]))
    jobs = [entry for _, again in finalists for entry in again if not entry.finished]
    with Progress(f"confirm {task.method} {task.dataset} ipc {task.ipc}") as progress:
        for done, entry in enumerate(run_all(confirm, task, jobs, resources, workers), 1):
            progress(done, len(jobs), f"{entry.best:.3f}")
    return finalists


def _write(
    plan: Plan, task: Task, journal: Journal, finalists: list[tuple[Entry, list[Entry]]]
) -> Path:
    """Name the winner: JSON, trials, picture."""
    from iadd.leaderboard.results import TRIALS, write_table

    run = (task.dataset, task.method, task.ipc)
    rows = [row for entry in journal.entries(None) for row in _rows(plan, task, entry)]
    spec = plan.search_spec(*run)
    write_table(rows, plan.trials(*run), TRIALS, {"spec": spec})
    space = plan.config.space(task.method, task.ipc)
    entries = journal.entries()
    weights = importance(entries, space)
    winner = {"spec": spec, **_verdict(plan, task, entries, finalists), "importance": weights}
    title = f"{task.method} on {task.dataset}, {task.ipc} a class"
    out = plan.winner(*run)
    atomic_write(out.with_suffix(".png"), png(title, entries, space, weights, winner["settings"]))
    atomic_write(out, (json.dumps(winner, indent=1, sort_keys=True) + "\n").encode())
    found, default = winner["validation"]["winner"], winner["validation"]["default"]
    print(
        f"{out}: trial {winner['trial']} of {winner['evidence']['trials']}, validation accuracy "
        f"{found['mean']:.4f}, default {default['mean']:.4f}; "
        f"{100 * winner['evidence']['iterations_share']:.0f} % of the full search's iterations"
    )
    return out


def _rows(plan: Plan, task: Task, entry: Entry) -> list[dict[str, Any]]:
    """A trial as rows of `results.TRIALS`, one a rung; one without accuracy if it reached none."""
    same = {
        "benchmark": plan.config.benchmark,
        "dataset": task.dataset,
        "method": task.method,
        "ipc": task.ipc,
        "trial": entry.number,
        "config": canonical_json(entry.settings),
        "device": entry.device,
        "status": entry.status,
        "seed": entry.seed,
        "spec_version": SPEC_VERSION,
    }
    rows = entry.own_rows or [{"iteration": 0, "accuracy": None, "seconds": 0.0}]
    inherited = len(entry.rows) - len(entry.own_rows)
    return [
        same
        | {
            "rung": rung,
            "iteration": row["iteration"],
            "validation_accuracy": row["accuracy"],
            "seconds": row["seconds"],
        }
        for rung, row in enumerate(rows, inherited)
    ]


def _verdict(
    plan: Plan, task: Task, entries: list[Entry], finalists: list[tuple[Entry, list[Entry]]]
) -> dict[str, Any]:
    """The winner and its evidence, plain data. Ties go to the earlier: the default is the first."""

    def judged(finalist: tuple[Entry, list[Entry]]) -> dict[str, Any]:
        contender, again = finalist
        scores = [entry.best for entry in again if entry.status in (CONFIRMED, "diverged")]
        whole = len(scores) == len(again)
        return {
            "trial": contender.number,
            "settings": contender.settings,
            "accuracies": scores,
            "mean": sum(scores) / len(scores) if whole else 0.0,
        }

    judgements = [judged(finalist) for finalist in finalists]
    best = max(range(len(judgements)), key=lambda k: (judgements[k]["mean"], -k))
    settings = judgements[best]["settings"]
    params = plan.config.params(task.method, task.ipc, settings)
    trials = len({entry.number for entry in entries})  # a member's branches are one
    full = trials * int(params.updates)  # type: ignore[attr-defined]
    spent = sum(entry.own_iterations for entry in entries)
    statuses = sorted({entry.status for entry in entries})
    return {
        "trial": judgements[best]["trial"],
        "settings": settings,
        "params": params.model_dump(mode="json"),
        "validation": {
            "winner": judgements[best],
            "default": judgements[0],
            "finalists": judgements,
        },
        "evidence": {
            "trials": trials,
            "statuses": {s: sum(e.status == s for e in entries) for s in statuses},
            "retried": sum(max(0, entry.attempts - 1) for entry in entries),
            "iterations": spent,
            "iterations_full": full,
            "iterations_share": spent / max(1, full),
            "seconds": sum(entry.own_seconds for entry in entries),
            "confirm_seconds": sum(e.seconds for _, again in finalists for e in again),
            "source": source_hash(sorted(Path(__file__).parent.glob("*.py")))[:16],
        },
    }
