"""The command line: `iadd <stage>` reads files, calls one package and writes that stage's files."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from iadd.commands import before, exchange, paper, submit, watch
from iadd.commands.message import message

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

app.callback()(before.options)
app.command()(before.new)


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
    read: Annotated[
        Path | None,
        typer.Option(
            "--import", help="Read them from this folder of replay_buffer_<k>.pt instead."
        ),
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--export", help="Write them as replay_buffer_<k>.pt here.")
    ] = None,
) -> None:
    """Train expert networks and store their trajectories.

    With --import, take those that MTT, FTD, TESLA or DATM trained; with --export, give ours in that
    form.
    """
    from iadd.pipeline import foreign, stages
    from iadd.pipeline.card_share import on_card

    plan, key = stages.open_plan(config, dataset)
    if read or write:
        for folder, work in ((read, foreign.import_experts), (write, foreign.export_experts)):
            if folder is not None:
                work(plan, key, folder, recipe)
        return
    with on_card(plan, device, "experts") as where:
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
    """Find a method's parameters on validation data.

    Killed, it goes on where it was.
    """
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
    """Distill one synthetic set: one method, ipc and seed.

    Of a submission, take its file in.
    """
    from iadd.pipeline import foreign, stages
    from iadd.pipeline.card_share import on_card
    from iadd.pipeline.plan import Run

    plan, key = stages.open_plan(config, dataset)
    run = Run(key, method, ipc, seed, tuned)
    if plan.config.submission(method):
        foreign.submit(plan, run)
        return
    with on_card(plan, device, f"distill-{method}-{key}-ipc{ipc}") as where:
        stages.distill(plan, run, where)


@app.command()
def evaluate(
    what: Annotated[
        Path, typer.Argument(help="Benchmark YAML; or, with --config, a distilled set to judge.")
    ],
    method: Annotated[
        str | None, typer.Option(help="A method of the benchmark, by its name there.")
    ] = None,
    ipc: Annotated[int | None, typer.Option(help="Images per class; 0 for `whole`.")] = None,
    seed: Seed = 0,
    dataset: Dataset = None,
    tuned: Tuned = False,
    device: Device = "auto",
    config: Annotated[
        Path | None, typer.Option(help="Benchmark YAML whose data and protocols judge the file.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="One of that benchmark's protocols; default: all.")
    ] = None,
    step_size: Annotated[
        str | None,
        typer.Option(help="Learning rate to train with: a number, or DATM's lr_best.pt."),
    ] = None,
    name: Annotated[str, typer.Option(help="What rows call the file.")] = "submitted",
    out: Annotated[Path | None, typer.Option(help="Also write the rows (.parquet).")] = None,
) -> None:
    """Train fresh networks on one distilled set and test them.

    A run of the benchmark: iadd evaluate CONFIG --method mtt --ipc 1 --seed 0
    Anybody's file: iadd evaluate FILE --config CONFIG --protocol mtt-v1
    """
    from iadd import devices
    from iadd.pipeline import foreign, stages
    from iadd.pipeline.card_share import on_card
    from iadd.pipeline.plan import Run

    if config is not None:
        rate, where = foreign.step_size(step_size), devices.choose(device)
        foreign.evaluate_file(what, config, dataset, protocol, rate, name, out, where)
        return
    if method is None or ipc is None:
        raise ValueError("evaluate: --method and --ipc are needed, or --config to judge a file")
    plan, key = stages.open_plan(what, dataset)
    with on_card(plan, device, f"evaluate-{method}-{key}-ipc{ipc}") as where:
        stages.evaluate(plan, Run(key, method, ipc, seed, tuned), where)


@app.command()
def privacy(
    config: ConfigPath,
    ipc: Ipc,
    method: Annotated[
        str | None, typer.Option(help="Ask its set; default: measure the real images first.")
    ] = None,
    seed: Seed = 0,
    dataset: Dataset = None,
    tuned: Tuned = False,
    device: Device = "auto",
) -> None:
    """Say what a distilled set gives away of real images.

    Which come nearest to its images, and membership inference.

    What sets are measured against comes first: iadd privacy CONFIG --ipc 1
    Then a set: iadd privacy CONFIG --ipc 1 --method mtt --seed 0
    """
    from iadd.pipeline import privacy, stages
    from iadd.pipeline.card_share import on_card
    from iadd.pipeline.plan import Run

    plan, key = stages.open_plan(config, dataset)
    with on_card(plan, device, f"privacy-{key}") as where:
        if method is None:
            privacy.yardstick(plan, key, ipc, where)
        else:
            privacy.report(plan, Run(key, method, ipc, seed, tuned), where)


@app.command()
def collect(config: ConfigPath) -> None:
    """Gather all results, rank the methods, write the leaderboard."""
    from iadd.pipeline import stages, tables

    gc.freeze()  # what is loaded stays: no collection of garbage looks through it again
    tables.collect(stages.open_plan(config)[0])


@app.command()
def site(config: ConfigPath) -> None:
    """Build the self-contained leaderboard page from the tables."""
    from iadd.pipeline import stages, tables

    tables.site(stages.open_plan(config)[0])


@app.command()
def show(
    config: ConfigPath,
    compare: Annotated[
        str | None, typer.Option(help="One method against each other one, instead.")
    ] = None,
    privacy: Annotated[
        bool, typer.Option("--privacy", help="What the sets give away of real images, instead.")
    ] = False,
) -> None:
    """Print the leaderboard, and where everything lies."""
    from iadd.pipeline import stages, tables

    tables.show(stages.open_plan(config)[0], compare, privacy)


@app.command()
def reproduce(config: ConfigPath) -> None:
    """Compare what was measured with what was published.

    What differs in the set-up is named.
    """
    from iadd.pipeline import stages
    from iadd.pipeline.reproduce import reproduce

    print(reproduce(stages.open_plan(config)[0]))


app.command()(before.plan)
app.command()(before.doctor)
app.command()(paper.table)
app.command()(paper.paper)
app.command("export")(exchange.export_set)
app.command("import")(exchange.import_set)
app.command()(watch.status)
app.add_typer(submit.app)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def run(
    context: typer.Context,
    config: ConfigPath,
    cores: Annotated[int, typer.Option(min=0, help="Jobs' cores in all; 0: what it may use.")] = 0,
) -> None:
    """Run a whole benchmark with Snakemake.

    Options that are not listed below are Snakemake's. Most useful: -n lists the jobs and runs none;
    --profile workflow/profiles/slurm submits them to a cluster, --default-resources gpu=1
    slurm_partition=gpu says what each asks for there.

    Jobs run where the environment's IADD_DEVICE says: cpu, cuda, cuda:<number>, or auto, the
    default: a card if there is any.
    """
    from iadd.pipeline.run import run

    sys.exit(run(config, cores, context.args, main))


PROGRAM = typer.main.get_command(app)  # built once for all jobs that a warm server forks


def main() -> None:
    """Entry point: bad input ends in one line on stderr and status 2."""
    try:
        PROGRAM(standalone_mode=True)
    except ValueError as error:
        print("iadd:", message(error), file=sys.stderr)
        sys.exit(2)
