"""What jobs ask of a cluster: memory, time, cards and groups, by the forecast."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_plan import plan

from iadd.networks import build_network
from iadd.pipeline import demands, stages
from iadd.pipeline.demands import Demands, job_bytes

snakemake = pytest.importorskip("snakemake")
RUN = {"benchmark": "b", "dataset": "blobs", "method": "mtt", "ipc": "1", "seed": "0", "tuned": ""}


class Wildcards(dict[str, str]):
    __getattr__ = dict.__getitem__


def workflow(main: bool = True, local: bool = False, **asked: Any) -> Any:
    """Stands for Snakemake's: where jobs run, and the resources that options gave each rule."""
    from snakemake.resources import Resource, Resources

    rule = SimpleNamespace(resources={k: Resource(k, v) for k, v in asked.items()})
    words = [f"{name}={value}" for name, value in asked.items()]
    given = Resources.parse(words, allow_expressions=True)
    return SimpleNamespace(
        is_main_process=main, remote_exec=not main, local_exec=local,
        get_rule=lambda name: rule, group_settings=SimpleNamespace(group_components={}),
        resource_settings=SimpleNamespace(default_resources=given, overwrite_resources={}),
        global_resources={},
    )  # fmt: skip


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    made = plan(search={"methods": ["mtt"], "workers": 3})
    stages.prepare(made, "blobs")
    return made


def test_time_follows_the_forecast_and_grows_on_retry(prepared: Any) -> None:
    asks, wildcards = Demands(prepared, workflow()), Wildcards(RUN)
    assert asks.forecast is not None
    for seconds, minutes in ((0.0, 1), (100.0, 8), (3600.0, 256)):  # 1 + 3 * seconds / 60, upwards
        asks.forecast.distill_seconds = lambda *_, s=seconds: s  # type: ignore[method-assign]
        assert asks.minutes(wildcards, 1, "distill") == minutes
        assert asks.minutes(wildcards, 3, "distill") == 4 * minutes
    assert asks.minutes(Wildcards(benchmark="b"), 1, "collect") == 16
    asks.forecast.search_seconds = lambda *_: 400.0  # type: ignore[method-assign]
    assert asks.minutes(wildcards, 1, "search") == 8  # three trials side by side


def test_nothing_is_forecast_where_nothing_is_submitted(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: a run on this machine, a dry run and a job on a node do not time gradients."""
    monkeypatch.setattr(demands, "Forecast", lambda _: pytest.fail("a forecast"))
    for kind in (workflow(local=True), workflow(main=False)):
        asks = Demands(prepared, kind)
        assert asks.minutes(Wildcards(RUN), 1, "distill") is None
        assert asks.run_group(Wildcards(RUN)) == ("runs" if kind.remote_exec else None)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    inside = Demands(prepared, workflow(main=False))
    inside.expert_group(Wildcards(folder="x", shard="0"))
    assert inside.workflow.group_settings.group_components["runs"] > 10**6
    assert inside.workflow.global_resources == {"slots": 3}  # what the submission has


def test_data_that_are_not_prepared_have_no_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asks = Demands(plan(), workflow())
    assert asks.forecast is None and asks.run_group(Wildcards(RUN)) is None
    assert asks.minutes(Wildcards(RUN), 1, "distill") == 2048
    assert asks.memory(Wildcards(RUN), 1, "distill") == demands.READING


def test_short_jobs_are_grouped_and_long_ones_are_not(prepared: Any) -> None:
    asks, shard = Demands(prepared, workflow()), Wildcards(folder="x", shard="0")
    asks.forecast.seconds_of = lambda rule, _: {"evaluate": 61.0}.get(rule, 1.0)  # type: ignore[union-attr,method-assign]
    assert asks.run_group(Wildcards(RUN)) is None and asks.expert_group(shard) == "experts"
    asks.forecast.seconds_of = lambda rule, _: 59.0  # type: ignore[union-attr,method-assign]
    assert asks.run_group(Wildcards(RUN)) == "runs"
    assert asks.workflow.group_settings.group_components == dict.fromkeys(
        ("runs", "experts", "yardsticks"), 128
    )
    given = workflow()
    given.group_settings.group_components = {"runs": 3}  # by the user
    asks = Demands(prepared, given)
    asks.run_group(Wildcards(RUN))
    assert given.group_settings.group_components == {"runs": 3}


@pytest.mark.parametrize(
    ("nodes", "slots"),
    [("2\n4+\n", 4), ("16\n", 8), ("", 8), ("exit 1", 8)],
)
def test_a_submission_fits_a_node(
    nodes: str, slots: int, prepared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: 8 cores of a node that has 4 would be waited for for ever."""
    from snakemake.resources import Resource

    program = tmp_path / "bin" / "sinfo"
    program.parent.mkdir()
    answer = (
        nodes if nodes.startswith("exit") else f"echo \"$@\" > {tmp_path}/asked\nprintf '{nodes}'"
    )
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    given = workflow(slurm_partition="cpu")
    given.global_resources["slots"] = Resource("slots", 8)
    Demands(prepared, given).run_group(Wildcards(RUN))
    found = given.global_resources["slots"]
    assert getattr(found, "value", found) == slots
    if not nodes.startswith("exit"):
        assert (tmp_path / "asked").read_text().split()[-1] == "--partition=cpu"


def test_a_promised_card_is_insisted_on(prepared: Any) -> None:
    for asked in ({"gpu": 1}, {"gres": "gpu:a100:1"}):
        asks = Demands(prepared, workflow(**asked))
        assert asks.device("distill")(Wildcards(RUN), input=[]) == "--device cuda"
        assert asks.slots("distill") == demands.SLOTS
        assert not asks.has_card("collect")  # unless it is named
        asks.workflow.resource_settings.overwrite_resources["collect"] = {"gpu": 1}
        assert asks.has_card("collect")
    for asked in ({}, {"gpu": 0}, {"gres": "scratch:1"}):  # type: ignore[assignment]
        asks = Demands(prepared, workflow(**asked))
        assert asks.device("distill")(Wildcards(RUN), input=[]) == ""
        assert asks.slots("distill") == 1


def test_an_expression_decides_for_each_job(prepared: Any) -> None:
    asks = Demands(prepared, workflow(gpu="1 if attempt > 1 else 0"))
    assert asks.slots("distill") == demands.SLOTS
    for count, option in ((1, "--device cuda"), (0, "")):
        assert asks.device("distill")(Wildcards(RUN), resources={"gpu": count}) == option


def test_where_a_job_runs_is_no_part_of_what_its_result_is() -> None:
    """Rule: Snakemake makes nothing anew for a parameter that was made from a job's inputs."""
    from snakemake.rules import Rule

    for name in ("own_device", "promised_device", "any_device"):
        assert Rule._is_deriving_function(getattr(Demands, name))


def test_memory_grows_with_data_network_and_retries(prepared: Any) -> None:
    asks = Demands(prepared, workflow())
    first = asks.memory(Wildcards(RUN), 1, "distill")
    assert first % 500 == 0 and 1500 < first <= 2500
    assert asks.memory(Wildcards(RUN), 3, "distill") == 4 * first
    assert asks.memory(Wildcards(RUN), 1, "search") >= 3 * 1500  # three trials at once
    folder = prepared.experts_folder("blobs").name
    assert asks.memory(Wildcards(folder=folder, shard="0"), 1, "experts") == first
    small, large = (build_network(f"convnet-d2-w{w}", 3, 32, 10) for w in (16, 64))
    assert job_bytes(0, large) > job_bytes(0, small) > job_bytes(0, small, card=True)
    assert job_bytes(10**9, small) - job_bytes(0, small) == 2 * 10**9


def test_what_autograd_keeps_is_counted() -> None:
    """An MLP of two hidden layers keeps its input and each layer's output, 4 bytes each."""
    network = build_network("mlp", 1, 8, 10)
    kept = demands._saved_bytes(network)
    assert 4 * 2 * 128 <= kept <= 4 * (64 + 4 * 128 + 10)


def test_a_search_over_several_nodes(prepared: Any) -> None:
    plain, spread = (Demands(prepared, workflow(**n)) for n in ({}, {"nodes": 2}))
    w = Wildcards(RUN)
    assert plain.search_launcher(w) is None and plain.search_tasks(w) is None
    assert plain.search_cores(w) == 3 and plain.search_cards(w) is None
    assert spread.search_launcher(w) == "srun" and spread.search_tasks(w) == 2
    assert spread.search_cores(w) == 2 and spread.search_tasks_per_card(w) == 0
    assert plain.search_launch(w, {}) == ""
    shell, script, *sizes = spread.search_launch(w, {}).split()
    assert shell == "sh" and Path(script).exists() and sizes == ["2", "2"]
    assert spread.workers(w, threads=1) == 1  # of the machine that draws the graph
    inside = Demands(prepared, workflow(main=False, nodes=2))
    assert inside.workers(w, threads=1) == 3
    assert inside.search_tasks(w) == 2
