"""A function a stage: it finds its inputs by the plan, calls one package, writes its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from iadd import data, methods
from iadd.api import Teacher, Validation, run_distillation, synthetic_set
from iadd.artifacts import SPEC_VERSION, atomic_write, canonical_json, locked, remove
from iadd.devices import threads
from iadd.experts import record_shard
from iadd.networks import Network, build_network
from iadd.pipeline.config import Config, EvaluationConfig, load_config
from iadd.pipeline.costs import costs_of, gpu_seconds
from iadd.pipeline.plan import Plan, Run, too_large
from iadd.pipeline.source import git_commit
from iadd.pipeline.tensorboard import observing
from iadd.progress import Progress
from iadd.seeds import Seeds
from iadd.synthetic import SyntheticSet

if TYPE_CHECKING:
    from iadd.leaderboard.rows import EvaluationRow

CPU = torch.device("cpu")


def open_plan(path: Path, dataset: str | None = None) -> tuple[Plan, str]:
    """A benchmark's plan and the data set asked for, by default the first; sets torch's threads."""
    torch.set_num_threads(threads())
    config = load_config(path)
    key = config.dataset(dataset).key if dataset else config.datasets[0].key
    return Plan(config), key


def prepare(plan: Plan, key: str) -> None:
    """Read, check, cut and normalise one data set, once for all jobs."""
    with Progress(f"data {key}", plan.progress_file("data", key)) as progress:
        about = data.prepare(plan.source(key), plan.data(key).folder, progress)
    made = canonical_json(plan.data_spec(key)).encode()
    atomic_write(plan.data(key).made, made)  # what tells that it is up to date
    print("\n".join(about.lines()))


def open_data(plan: Plan, key: str, device: torch.device = CPU) -> data.Dataset:
    """One prepared data set on a device; by hand it is prepared when it is first asked for."""
    paths = plan.data(key)
    if not paths.about.exists():
        with locked(paths.folder.with_name(f".{key}.lock")):
            if not paths.about.exists():
                prepare(plan, key)
    return data.open_dataset(paths.folder, device)


def open_network(config: Config, dataset: data.Dataset) -> Network:
    """The network distilled on; ValueError for a precision that the data's device does not have."""
    if config.precision != "float32" and not dataset.train.images.is_cuda:
        raise ValueError(f"precision {config.precision!r} needs a CUDA device; a CPU has float32")
    size = (dataset.channels, dataset.resolution, dataset.classes)
    return build_network(config.network, *size, config.precision)


def record(
    plan: Plan, key: str, shard: int, device: torch.device = CPU, recipe: str = "standard"
) -> None:
    """Record one shard of experts, of a recipe that the benchmark's methods ask for."""
    check_recipe(plan, recipe)
    shards = plan.shards(key, recipe)
    if not 0 <= shard < len(shards):
        raise ValueError(f"shard {shard}: allowed are 0..{len(shards) - 1}")
    dataset = open_data(plan, key, device)
    file = plan.progress_file("experts", f"{shards[shard].parent.name}/shard{shard}")
    with Progress(f"experts {key} {recipe} shard {shard}", file) as progress:
        record_shard(
            dataset,
            open_network(plan.config, dataset),
            plan.config.experts.named(recipe),
            epochs=plan.expert_epochs(recipe),
            experts=plan.shard_experts(shard),
            seed=plan.config.seed,
            path=shards[shard],
            source=plan.experts_source(),
            progress=progress,
        )
    print(f"{shards[shard]}: {len(plan.shard_experts(shard))} experts")


def check_recipe(plan: Plan, recipe: str) -> None:
    """One line for experts that no method of the benchmark needs."""
    if recipe not in plan.recipes:
        asked = ", ".join(plan.recipes) or "none"
        raise ValueError(f"no method of this benchmark needs experts {recipe!r}; needed: {asked}")


def problem(
    plan: Plan, key: str, method: str, ipc: int, device: torch.device = CPU
) -> methods.Problem:
    """What a method works on; experts are opened where it needs them."""
    config = plan.config
    dataset = open_data(plan, key, device)
    for line in too_large(key, plan.about(key), ipc):
        raise ValueError(f"{config.origin}: {line}")
    network = open_network(config, dataset)
    recipe = config.recipe(method)
    experts = plan.experts(key, recipe, dataset, network) if recipe else None
    return methods.Problem(dataset, network, ipc, experts)


def validation_of(config: Config) -> Validation:
    """The probe that the configuration asks for."""
    return Validation(**config.validation.model_dump())


def seeds_of(config: Config, run: Run) -> Seeds:
    """A run's randomness. No method in it: seed s means the same draws for all of them."""
    return Seeds((config.seed, run.dataset, run.ipc, run.seed))


def distill(plan: Plan, run: Run, device: torch.device = CPU) -> None:
    """Distill one synthetic set; writes the set, its trace and its picture."""
    config = plan.config
    check_run(config, run)
    task = problem(plan, run.dataset, run.method, run.ipc, device)
    spec, paths = plan.spec(run), plan.paths(run)
    file, curves = plan.progress_file("distill", run.place), plan.root / "tensorboard" / run.place
    with Progress(f"distill {run}", file) as progress, observing(curves) as observe:
        result = run_distillation(
            task,
            config.method(run.method),
            spec["params"],  # a tuned run's are the winner's
            seeds_of(config, run),
            validation_of(config),
            spec=spec,
            checkpoint=paths.checkpoint,
            progress=progress,
            observe=observe,
            keep_states="states" in spec,
        )
    costs = costs_of(device) | {"expert_seconds": task.experts.seconds if task.experts else 0.0}
    synthetic = synthetic_set(task, result, spec, costs, config.kind(run.method).by_reference)
    _write_trace(plan, run, spec, result)
    synthetic.picture(paths.picture, task.dataset, start=result.start)
    synthetic.save(paths.distilled)
    remove(paths.checkpoint)
    if task.experts and task.experts.validation_accuracy:
        from iadd.pipeline.expert_check import expert_line

        recipe = config.recipe(run.method) or ""
        print(expert_line(plan, run.dataset, recipe, task.experts.validation_accuracy))
    images, step = len(result.images), result.step_size
    print(f"{paths.distilled}: {result.status}, {images} images, step size {step}")


def _write_trace(plan: Plan, run: Run, spec: dict[str, Any], result: methods.Distilled) -> None:
    from iadd.leaderboard.results import write_table
    from iadd.leaderboard.rows import TRACES, TraceRow
    from iadd.leaderboard.weights import TRACE_FILE

    same = {"dataset": run.dataset, "ipc": run.ipc, "method": run.method, "tuned": run.tuned}
    weights: dict[int, list[dict[str, Any]]] = {row["iteration"]: [] for row in result.trace}
    for told in result.weights:
        weights[told["iteration"]].append(told)
    rows = [vars(TraceRow.of(**same, **row, seed=run.seed)) for row in result.trace]
    if result.weights:
        rows = [row | {"weights": weights[row["iteration"]]} for row in rows]
    schema = TRACE_FILE if result.weights else TRACES
    write_table(rows, plan.paths(run).trace, schema, {"spec": spec})


def evaluate(plan: Plan, run: Run, device: torch.device = CPU) -> None:
    """Judge one distilled set by every protocol of the benchmark; writes one small table."""
    from iadd.leaderboard.results import write_table
    from iadd.leaderboard.rows import EVALUATIONS

    config = plan.config
    check_run(config, run)
    dataset = open_data(plan, run.dataset, device)
    judged, paths = plan.judged_spec(run), plan.paths(run)
    synthetic = SyntheticSet.load(paths.distilled, judged["spec"])
    rows = evaluation_rows(plan, run, synthetic, dataset, judged["spec"], config.evaluations)
    write_table(rows, paths.evaluation, EVALUATIONS, judged)
    first = [row.accuracy or 0.0 for row in rows if row.protocol == rows[0].protocol]
    print(f"{paths.evaluation}: {run}, mean accuracy {sum(first) / len(first):.4f}")


def evaluation_rows(
    plan: Plan,
    run: Run,
    synthetic: SyntheticSet,
    dataset: data.Dataset,
    spec: Mapping[str, Any],
    evaluations: Iterable[EvaluationConfig],
) -> list[EvaluationRow]:
    """Judge a set by some of the benchmark's protocols, on the device of the data."""
    from iadd.evaluation import evaluate as judge
    from iadd.leaderboard.rows import EvaluationRow

    rows: list[dict[str, Any]] = []
    with Progress(f"evaluate {run}", plan.progress_file("evaluate", run.place)) as progress:
        for e in evaluations:
            rows += [
                {"protocol": e.protocol, **row}
                for row in judge(
                    synthetic,
                    dataset,
                    e.protocol,
                    e.networks,
                    epochs=e.whole_epochs if run.method == "whole" else e.epochs,
                    batch=e.batch,
                    step_size=e.step_size,
                    teacher=_teacher(plan, run.dataset, e, dataset),
                    seeds=seeds_of(plan.config, run),
                    progress=progress,
                )
            ]
    constant = _constant(plan, run, synthetic, spec, dataset.train.images.device)
    return [
        EvaluationRow(
            **constant,
            **row,
            evaluate_gpu_seconds=gpu_seconds(constant["device"], row["evaluate_seconds"]),
        )
        for row in rows
    ]


def _teacher(plan: Plan, key: str, e: EvaluationConfig, dataset: data.Dataset) -> Teacher | None:
    """The first expert of a recipe, for a protocol with a teacher."""
    from iadd.evaluation import teacher_of

    if not e.rules.teacher:
        return None
    network = open_network(plan.config, dataset)
    experts = plan.experts(key, e.teacher, dataset, network, shards=1)
    params = experts.snapshot(0, e.teacher_epoch)
    return teacher_of(network, params, dataset.train.images)


def _constant(
    plan: Plan, run: Run, synthetic: SyntheticSet, spec: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """What all rows of a run's evaluation share."""
    submitted = spec["kind"] == "submitted"
    spent, here = synthetic.run, costs_of(device)
    seconds = (spent.get("distill_seconds"), spent.get("validation_seconds"))
    return {
        "spec_version": SPEC_VERSION,
        "benchmark": plan.config.benchmark,
        "dataset": run.dataset,
        "ipc": run.ipc,
        "method": run.method,
        "source": "submitted" if submitted else "measured",
        "tuned": run.tuned,
        "reconstruction": not submitted and plan.config.kind(run.method).reconstruction,
        "network_distill": "unknown" if submitted else plan.config.network,
        "seed": run.seed,
        "distill_status": synthetic.status,
        "expert_seconds": spent.get("expert_seconds"),
        "distill_seconds": seconds[0],
        "validation_seconds": seconds[1],
        "distill_gpu_seconds": gpu_seconds(spent.get("device"), *seconds),
        "host_peak_bytes": max(here["host_peak_bytes"], spent.get("host_peak_bytes", 0)),
        "device_peak_bytes": max(here["device_peak_bytes"], spent.get("device_peak_bytes", 0)),
        "image_bytes": synthetic.image_bytes,
        "label_bytes": synthetic.label_bytes,
        "params": canonical_json(spec["params"]),
        "source_hash": spec["source"],
        "git_commit": git_commit(),
        "torch_version": torch.__version__,
        "device": here["device"],
    }


def check_run(config: Config, run: Run) -> None:
    """One line for a run that the benchmark does not have."""
    method = run.method
    if submission := config.submission(method):
        seeds = len(submission.files)
        if (run.dataset, run.ipc) != (submission.dataset, submission.ipc) or run.seed >= seeds:
            allowed = f"data set {submission.dataset}, ipc {submission.ipc}, seeds 0..{seeds - 1}"
            raise ValueError(f"submission {method!r}: {run} is not in this benchmark: {allowed}")
        return
    if method not in config.methods:
        methods.find(method)
        raise ValueError(f"method {method!r} is not in this benchmark: {', '.join(config.methods)}")
    if run.tuned and method not in config.search.methods:
        tuned = ", ".join(config.search.methods) or "none"
        raise ValueError(
            f"method {method!r} is not tuned in this benchmark; search.methods: {tuned}"
        )
    if run.ipc not in config.ipcs(method, run.dataset):
        allowed = ", ".join(map(str, config.ipcs(method, run.dataset)))
        raise ValueError(f"ipc {run.ipc} is not in this benchmark for {method}: {allowed}")
    if not 0 <= run.seed < config.seeds:
        raise ValueError(f"seed {run.seed}: allowed are 0..{config.seeds - 1}")
