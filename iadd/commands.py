"""The command line `iadd <stage>`: reads files, calls one room, writes one file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="iadd",
    help="Dataset distillation, benchmarked: every stage of the pipeline by hand.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigPath = Annotated[Path, typer.Argument(help="Benchmark YAML, e.g. config/digits.yaml.")]
Dataset = Annotated[str | None, typer.Option(help="Data set key; default: the first.")]
Method = Annotated[str, typer.Option(help="A method of the benchmark, by its name there.")]
Ipc = Annotated[int, typer.Option(help="Images per class; 0 for `whole`.")]
Device = Annotated[
    str,
    typer.Option(envvar="IADD_DEVICE", help="cpu, cuda, cuda:<number>, or auto: a card if any."),
]
Seed = Annotated[int, typer.Option(help="Distillation seed, 0, 1, ...")]
Tuned = Annotated[bool, typer.Option("--tuned", help="With the parameters that a search found.")]


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="Folder for the configuration.")],
    data: Annotated[Path, typer.Option(help="Your images: one subfolder a class.")],
) -> None:
    """Write a benchmark's configuration for your own images, with what was found in them."""
    from iadd.pipeline.new import new

    file = new(folder, data)
    print(f"{file}: written; next: iadd plan {shlex.quote(str(file))}")


@app.command()
def data(config: ConfigPath, dataset: Dataset = None) -> None:
    """Read, check, cut and normalise a data set, once for all jobs."""
    from iadd.pipeline import stages

    stages.prepare(*stages.open_plan(config, dataset))


@app.command()
def experts(
    config: ConfigPath,
    dataset: Dataset = None,
    shard: Annotated[int | None, typer.Option(help="One shard; default: all.")] = None,
    recipe: Annotated[str | None, typer.Option(help="One recipe; default: all needed.")] = None,
    device: Device = "auto",
) -> None:
    """Train expert networks on the real data and store their trajectories."""
    from iadd import devices
    from iadd.pipeline import stages

    plan, key = stages.open_plan(config, dataset)
    where = devices.choose(device)
    for name in (plan.recipes or ["standard"]) if recipe is None else [recipe]:
        for k in range(len(plan.shards(key))) if shard is None else [shard]:
            stages.record(plan, key, k, where, name)


@app.command()
def search(
    config: ConfigPath,
    method: Method,
    ipc: Ipc,
    dataset: Dataset = None,
    workers: Annotated[
        int | None, typer.Option(help="Trials side by side; default: the benchmark's.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(envvar="RAY_ADDRESS", help="Ray cluster, host:port; default: one of its own."),
    ] = None,
) -> None:
    """Find a method's parameters on validation data; killed, it goes on where it was."""
    from iadd import search
    from iadd.pipeline import stages

    plan, key = stages.open_plan(config, dataset)
    search.search(plan, key, method, ipc, workers=workers, address=address)


@app.command()
def distill(
    config: ConfigPath,
    method: Method,
    ipc: Ipc,
    seed: Seed = 0,
    dataset: Dataset = None,
    tuned: Tuned = False,
    device: Device = "auto",
) -> None:
    """Distill one synthetic set: one method, ipc and seed."""
    from iadd import devices
    from iadd.pipeline import stages
    from iadd.pipeline.plan import Run

    plan, key = stages.open_plan(config, dataset)
    stages.distill(plan, Run(key, method, ipc, seed, tuned), devices.choose(device))


@app.command()
def evaluate(
    config: ConfigPath,
    method: Method,
    ipc: Ipc,
    seed: Seed = 0,
    dataset: Dataset = None,
    tuned: Tuned = False,
    device: Device = "auto",
) -> None:
    """Train fresh networks on one distilled set and test them."""
    from iadd import devices
    from iadd.pipeline import stages
    from iadd.pipeline.plan import Run

    plan, key = stages.open_plan(config, dataset)
    stages.evaluate(plan, Run(key, method, ipc, seed, tuned), devices.choose(device))


@app.command()
def collect(config: ConfigPath) -> None:
    """Gather all jobs' tables, rank the methods, write and print the leaderboard."""
    from iadd.pipeline import stages, tables

    tables.collect(stages.open_plan(config)[0])


@app.command()
def site(config: ConfigPath) -> None:
    """Build the self-contained leaderboard page from the tables."""
    from iadd.pipeline import stages, tables

    tables.site(stages.open_plan(config)[0])


@app.command()
def show(config: ConfigPath) -> None:
    """Print the leaderboard that `collect` wrote, and where everything lies."""
    from iadd.pipeline import stages, tables

    tables.show(stages.open_plan(config)[0])


@app.command()
def plan(config: ConfigPath) -> None:
    """Say what a benchmark will cost before anything runs: jobs, disk, estimated hours."""
    from iadd.pipeline import forecast, stages

    forecast.print_plan(stages.open_plan(config)[0])


@app.command()
def doctor() -> None:
    """Say what is installed, which kernels run, on which devices and threads."""
    from iadd.pipeline import doctor

    doctor.print_report()


@app.command("export")
def export_set(
    distilled: Annotated[Path, typer.Argument(help="A distilled set (.safetensors).")],
    folder: Annotated[Path, typer.Argument(help="New folder for PNG files and the exact set.")],
) -> None:
    """Write a distilled set as PNG files, a folder a class, with its exact tensors beside them."""
    from iadd.synthetic import SyntheticSet

    SyntheticSet.load(distilled).export_folder(folder)
    print(f"{folder}: written")


@app.command("import")
def import_set(
    source: Annotated[Path, typer.Argument(help="An exported folder, or foreign images (.pt).")],
    out: Annotated[Path, typer.Argument(help="The distilled set to write (.safetensors).")],
    config: Annotated[Path | None, typer.Option(help="Benchmark whose data set it is for.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Foreign labels (.pt).")] = None,
    step_size: Annotated[float | None, typer.Option(help="Its learned step size.")] = None,
    dataset: Dataset = None,
) -> None:
    """Read a distilled set from an exported folder or from foreign .pt files (never unpickled)."""
    from iadd.pipeline import stages

    stages.import_set(source, out, config, labels, step_size, dataset)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def run(
    context: typer.Context,
    config: ConfigPath,
    cores: Annotated[int, typer.Option(min=0, help="Jobs' cores in all; 0: what it may use.")] = 0,
) -> None:
    """Run a whole benchmark with Snakemake; further options are handed to it."""
    from iadd.pipeline.run import run

    sys.exit(run(config, cores, context.args, main))


def main() -> None:
    """Entry point: bad input ends in one line on stderr and status 2."""
    try:
        app(standalone_mode=True)
    except ValueError as error:
        print("iadd:", *str(error).split(), file=sys.stderr)
        sys.exit(2)
