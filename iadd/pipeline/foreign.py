"""Other people's sets and experts in a benchmark: in, out, judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from iadd import data, exchange
from iadd.artifacts import counted
from iadd.exchange import buffers, torch_files
from iadd.pipeline.config.file import first_problem
from iadd.pipeline.config.submission import SubmissionConfig
from iadd.pipeline.plan import Plan, Run
from iadd.pipeline.stages import (
    CPU,
    check_recipe,
    check_run,
    evaluation_rows,
    open_data,
    open_network,
    open_plan,
)
from iadd.progress import Progress
from iadd.synthetic import SyntheticSet


def step_size(given: str | None) -> float | None:
    """A step size as the command line gives it: a number, or a `.pt` file that holds one."""
    return None if given is None else torch_files.step_size(given)


def _check_ending(out: Path, ending: str) -> None:
    """Refuse a file that would be named as what it is not, and may be somebody's."""
    if out.suffix != ending:
        raise ValueError(f"{out}: what is written here must end in {ending}")


def import_set(
    source: Path,
    out: Path,
    config: Path,
    dataset: str | None,
    labels: str | None,
    experiment: int | None,
    **words: Any,
) -> None:
    """Turn a set in any known form into ours; `words` say what its numbers are."""
    _check_ending(out, ".safetensors")
    plan, key = open_plan(config, dataset)
    own = open_data(plan, key)
    said = exchange.state(own, **words)
    found = exchange.read_set(source, own, said, labels=labels, experiment=experiment)
    found.save(out)
    step = "no step size" if found.step_size is None else f"step size {found.step_size:g}"
    budget, rest = divmod(len(found), own.classes)
    counted = f"no multiple of {own.classes} classes" if rest else f"in tables {budget} a class"
    print(f"{out}: {len(found)} images ({counted}), {found.label_kind} labels, {step}")


def evaluate_file(
    file: Path,
    config: Path,
    dataset: str | None,
    protocol: str | None,
    step_size: float | None,
    name: str,
    out: Path | None,
    device: torch.device = CPU,
) -> None:
    """Judge anybody's distilled set as the benchmark judges its own of seed 0; print its row."""
    from iadd.leaderboard.columns import judged_of
    from iadd.leaderboard.ranking import rank
    from iadd.leaderboard.results import table_of, write_table
    from iadd.leaderboard.rows import EVALUATIONS
    from iadd.leaderboard.text import leaderboard_text
    from iadd.pipeline.tables import positive_classes

    if out is not None:
        _check_ending(out, ".parquet")
    plan, key = open_plan(config, dataset)
    evaluations = [e for e in plan.config.evaluations if protocol in (None, e.protocol)]
    if not evaluations:
        known = ", ".join(e.protocol for e in plan.config.evaluations)
        raise ValueError(f"protocol {protocol!r} is not in this benchmark; it has {known}")
    own = open_data(plan, key, device)
    found = exchange.read_set(file, own, exchange.Statement(step_size=step_size))
    entry = {"name": name, "file": str(file), "ipc": _ipc(found, own, file), "dataset": key}
    try:
        submission = SubmissionConfig(**entry, step_size=step_size)
    except ValidationError as error:
        raise ValueError(f"evaluate: {first_problem(error)}") from None
    spec = submission.spec(0) | plan.data_identity(key)
    (run,) = submission.runs()
    bare = replace(found, run={})  # what making it took is told of no set of others
    rows = evaluation_rows(plan, run, bare, own, spec, evaluations)
    told = judged_of([table_of(rows, EVALUATIONS)])
    print(leaderboard_text(rank(told, positive_classes(plan, key))[0]))
    if out is not None:
        judged = [e.model_dump(mode="json") for e in evaluations]
        write_table(rows, out, EVALUATIONS, {"spec": spec, "evaluations": judged})
        print(f"{out}: written")


def _ipc(found: SyntheticSet, own: data.Dataset, file: Path) -> int:
    """Images a class, which is what tables file a set under."""
    if len(found) % own.classes:
        sides = f"{len(found)} images for {own.classes} classes"
        raise ValueError(f"{file}: holds {sides}; must be a multiple")
    return len(found) // own.classes


def submit(plan: Plan, run: Run) -> None:
    """Bring a submitted file into the place of a distilled set, where it is judged like one."""
    from iadd.leaderboard.results import write_table
    from iadd.leaderboard.rows import TRACES

    check_run(plan.config, run)
    submission = plan.config.submission(run.method)
    assert submission is not None
    file, own = Path(submission.files[run.seed]), open_data(plan, run.dataset)
    spec, paths = plan.spec(run), plan.paths(run)
    said = exchange.Statement(step_size=submission.step_size)
    found = exchange.read_set(file, own, said).resolve(own)
    if (ipc := _ipc(found, own, file)) != run.ipc:
        raise ValueError(
            f"{file}: holds {ipc} images a class, submission {run.method!r} says {run.ipc}"
        )
    write_table([], paths.trace, TRACES, {"spec": spec})
    found.picture(paths.picture)
    replace(found, spec=spec, run={}).save(paths.distilled)
    print(f"{paths.distilled}: {len(found)} images, step size {found.step_size}")


def _recipe(plan: Plan, asked: str | None) -> str:
    """The recipe asked for, or the only one that the benchmark's methods need."""
    if asked is None and len(plan.recipes) > 1:
        raise ValueError(f"--recipe: say which one of {', '.join(plan.recipes)}")
    recipe = asked or next(iter(plan.recipes), "standard")
    check_recipe(plan, recipe)
    return recipe


def import_experts(plan: Plan, key: str, folder: Path, asked: str | None = None) -> None:
    """Write a folder of replay buffers as the experts of a recipe that says that it is imported."""
    recipe = _recipe(plan, asked)
    found, settings = buffers.Buffers.of(folder), plan.config.experts.named(recipe)
    with Progress(f"checksum of {folder}"):
        checksum = found.checksum
    if settings.imported != checksum:
        said = f"{settings.imported}" if settings.imported else "nothing"
        raise ValueError(
            f"{folder}: these experts are {checksum}, and the configuration says {said}; put "
            f"`imported: {checksum}` and the settings that they were trained with under "
            f"experts.recipes.{recipe}"
        )
    own = open_data(plan, key)
    shards = {path: plan.shard_experts(k) for k, path in enumerate(plan.shards(key, recipe))}
    with Progress(f"experts {key} {recipe}") as progress:
        reached = buffers.read(
            found,
            shards,
            own,
            open_network(plan.config, own),
            settings,
            plan.expert_epochs(recipe),
            plan.config.seed,
            progress,
        )
    mean = f"{sum(reached) / len(reached):.4f}" if reached else "not measured"
    folder = next(iter(shards)).parent
    print(f"{folder}: {plan.config.experts.count} experts; validation accuracy {mean}")


def export_experts(plan: Plan, key: str, folder: Path, asked: str | None = None) -> None:
    """Write the experts of a recipe as replay buffers, a file a shard."""
    recipe = _recipe(plan, asked)
    if plan.config.experts.named(recipe).waypoints:
        raise ValueError(
            f"experts {recipe!r}: way-points are kept of them, buffers hold all epochs"
        )
    own = open_data(plan, key)
    buffers.write(plan.shards(key, recipe), open_network(plan.config, own), folder)
    print(f"{folder}: written, {counted(len(plan.shards(key, recipe)), 'file{s}')}")
