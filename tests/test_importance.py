"""Statistics of importance weights: by hand, against scipy, and what each method's hook tells."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from made_up_tables import rank, runs, spread, table, trace
from method_cases import SEEDS, make, small_problem
from scipy.stats import spearmanr

from iadd import methods
from iadd.leaderboard.gathering import gather
from iadd.leaderboard.results import read_rows, table_of, write_table
from iadd.leaderboard.rows import TRACES, TraceRow
from iadd.leaderboard.text import remark
from iadd.leaderboard.weights import (
    TRACE_FILE,
    WEIGHTS,
    WeightRow,
    collect_traces,
    weights_of,
    with_collapses,
)
from iadd.methods._importance import EDGES, LOOKS, RANKED, describe, is_due, statistics
from iadd.methods._importance import rank_correlation as correlation
from iadd.methods._loop import _Loop
from iadd.pipeline import stages, tables


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return small_problem(tmp_path_factory.mktemp("experts"))


# The numbers.


def test_statistics_by_hand() -> None:
    w, residual = np.array([0.0, 0.05, 1.0, 2.95]), np.array([9.0, 4.0, 4.0, 1.0])
    found = statistics(w, residual, np.array([1.0, 2.0, 3.0, 4.0]))
    assert found["mean"] == pytest.approx(1.0)
    assert found["std"] == pytest.approx(math.sqrt((1 + 0.95**2 + 0 + 1.95**2) / 4))
    assert found["low_share"] == 0.5
    assert found["effective_share"] == pytest.approx(16 / (0.05**2 + 1 + 2.95**2) / 4)
    assert found["movement_correlation"] == pytest.approx(1.0)
    # Ranks 1 2 3 4 against 4 2.5 2.5 1: products of deviations -2.25 + 0 + 0 - 2.25.
    assert found["residual_correlation"] == pytest.approx(-4.5 / math.sqrt(5 * 4.5))
    places = [EDGES.index(edge) for edge in (0.0, 0.05, 0.99, 2.0)]
    assert [found["histogram"][place] for place in places] == [1, 1, 1, 1]
    assert sum(found["histogram"]) == 4 and len(found["histogram"]) == len(EDGES)


@pytest.mark.parametrize("size", [7, 1000, RANKED + 3])
def test_rank_correlation_is_scipy_s(size: int) -> None:
    generator = np.random.default_rng(size)
    a, b = generator.integers(0, 5, size).astype(float), generator.normal(size=size)
    seen = slice(None, None, -(-size // RANKED))
    assert correlation(a, b + a) == pytest.approx(spearmanr(a[seen], (b + a)[seen]).statistic)


@pytest.mark.parametrize(
    ("w", "known"),
    [
        ([1.0, 1.0, 1.0], {"mean": 1.0, "std": 0.0, "effective_share": 1.0, "low_share": 0.0}),
        ([0.0, 0.0, 0.0], {"mean": 0.0, "std": 0.0, "effective_share": 0.0, "low_share": 1.0}),
        ([1.0, math.nan, 2.0], {}),
        ([1.0, math.inf, 2.0], {}),
    ],
)
def test_what_cannot_be_told_is_none(w: list[float], known: dict[str, float]) -> None:
    found = statistics(np.array(w), np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0]))
    names = ("mean", "std", "low_share", "effective_share")
    assert {name: found[name] for name in names if found[name] is not None} == known
    assert found["residual_correlation"] is None and found["movement_correlation"] is None
    assert sum(found["histogram"]) == sum(map(math.isfinite, w))


def test_a_row_for_the_network_and_one_a_tensor(task: methods.Problem) -> None:
    network, generator = task.network, torch.Generator().manual_seed(0)
    w, r, m = torch.rand(3, network.num_parameters, generator=generator)
    rows = describe(-w, r, m, network)  # the losses have squares: the sign does not show
    assert [row["tensor"] for row in rows] == list(range(len(network.shapes) + 1))
    assert [row["parameters"] for row in rows[1:]] == network.sizes
    assert [row["name"] for row in rows] == ["all", *(name for name, _ in network.shapes)]
    parts = [x.double().numpy() for x in (w, r, m)]
    assert rows[0] | statistics(*parts) == rows[0] and not rows[0]["mask"]
    first = slice(0, network.sizes[0])
    assert rows[1] | statistics(*(x[first] for x in parts)) == rows[1]
    summed = np.sum([row["histogram"] for row in rows[1:]], axis=0)
    assert summed.tolist() == rows[0]["histogram"]


@pytest.mark.parametrize("updates", [1, 3, 20, 21, 39, 300, 5000])
def test_weights_are_described_at_evenly_spaced_looks(updates: int) -> None:
    due = [k for k in range(updates + 1) if is_due(k, updates)]
    assert due[0] == 0 and due[-1] == updates and len(due) <= LOOKS + 2
    assert len({b - a for a, b in pairwise(due[:-1])}) <= 1


# What methods tell.


def told(method: Any, tensor: int = 0) -> list[dict[str, Any]]:
    return [row for row in methods.distill(method, SEEDS).weights if row["tensor"] == tensor]


def test_iadd_tells_of_the_weights_that_the_images_feel(task: methods.Problem) -> None:
    result = methods.distill(make("iadd", task, lr_w=0.05), SEEDS)
    rows = [row for row in result.weights if row["tensor"] == 0]
    assert [row["iteration"] for row in rows] == list(range(7))
    for row, of in zip(rows, result.trace, strict=True):
        assert row["mean"] == pytest.approx(of["weight_mean"])
        assert row["std"] == pytest.approx(of["weight_std"])
        assert row["effective_share"] == pytest.approx(of["weight_effective"])
    assert rows[0]["residual_correlation"] is None  # all weights are 1
    # Joint descent takes weight from the parameters that are hard to match.
    assert rows[-1]["residual_correlation"] < -0.1
    shuffled = told(make("iadd", task, lr_w=0.05, weights="shuffled"))[-1]
    assert abs(shuffled["residual_correlation"]) < 0.1 and shuffled["std"] > 0.01


def test_one_weight_a_tensor_is_told_for_each_parameter(task: methods.Problem) -> None:
    method = make("iadd", task, lr_w=0.05, granularity="tensor")
    result = methods.distill(method, SEEDS)
    last = result.weights[-len(task.network.shapes) :]
    assert [row["std"] for row in last] == pytest.approx([0.0] * len(last), abs=1e-7)
    weights = method.weights({"weights": result.variables["weights"]})
    assert len(weights) == len(last) and result.iteration == 6
    assert [row["mean"] for row in last] == pytest.approx(weights.tolist())


def test_masks_are_told_as_such_and_plain_distances_of_none(task: methods.Problem) -> None:
    for name, share, changes in (
        *(("ddpp", 0.7, {"pruned": 0.3}), ("pad", 0.7, {"pruned": 0.3})),
        ("hoptm", 1.0, {"base": 1e10}),
    ):
        rows = told(make(name, task, **changes))
        assert all(row["mask"] for row in rows)
        assert rows[-1]["mean"] == pytest.approx(share, abs=0.001)
        assert rows[-1]["effective_share"] == pytest.approx(share, abs=0.001)
    assert told(make("ddpp", task))[-1]["residual_correlation"] < 0
    assert told(make("pad", task))[-1]["residual_correlation"] > 0
    assert not told(make("mtt", task)) and not told(make("iadd", task, update="off"))


def test_importance_of_another_shape_is_told_as_a_slip(task: methods.Problem) -> None:
    method = make("ddpp", task)
    method.importance = lambda variables: torch.ones(3)
    with pytest.raises(ValueError, match=r"method ddpp: importance gives shape \[3\], allowed"):
        methods.distill(method, SEEDS)


# The table.


def statistic(tensor: int = 0, **changes: Any) -> dict[str, Any]:
    row = {
        **{"tensor": tensor, "name": "all", "parameters": 4, "mask": False, "mean": 1.0},
        **{"std": 0.5, "low_share": 0.1, "effective_share": 0.8, "residual_correlation": -0.5},
        **{"movement_correlation": None, "histogram": [1, 3]},
    }
    return row | changes


def traced(iteration: int, *told: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return trace(iteration, **changes) | {"weights": list(told)}


def test_the_table_of_weights_is_flat_and_names_a_collapse(tmp_path: Path) -> None:
    cases = {
        "sound": (statistic(), False),
        "few count": (statistic(effective_share=0.09), True),
        "most are small": (statistic(low_share=0.51), True),
        "a mask is no collapse": (statistic(low_share=0.9, mask=True), False),
        "not known": (statistic(low_share=None, effective_share=None), False),
    }
    history = [traced(k, told, statistic(1)) for k, (told, _) in enumerate(cases.values())]
    history.insert(1, traced(9))  # no statistics there
    paths = {tmp_path / f"{k}.parquet": {} for k in range(2)}
    for seed, path in enumerate(paths):
        write_table([row | {"seed": seed} for row in history], path, TRACE_FILE, {})
    (traces,) = gather([paths], tmp_path / "out", TRACE_FILE)
    table = weights_of(traces)
    write_table(table, tmp_path / "weights.parquet", WEIGHTS, {})
    rows = read_rows(tmp_path / "weights.parquet", WeightRow)
    assert [(r.seed, r.iteration, r.tensor) for r in rows] == [
        (seed, k, tensor) for seed in (0, 1) for k in range(5) for tensor in (0, 1)
    ]
    assert [r.collapsed for r in rows if r.tensor == 0] == 2 * [end for _, end in cases.values()]
    assert rows[0].histogram == [1, 3] and rows[0].movement_correlation is None
    assert WEIGHTS.names == list(vars(rows[0]))


def test_a_file_without_weights_gives_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table([], path, TRACE_FILE, {})
    traces, weights = tmp_path / "traces.parquet", tmp_path / "weights.parquet"
    assert len(collect_traces([{path: {}}], traces, weights)) == 0
    assert read_rows(traces, TraceRow) == [] and read_rows(weights, WeightRow) == []


def test_traces_and_weights_are_gathered_together(tmp_path: Path) -> None:
    for seed in (0, 1):
        rows = [traced(k, statistic(), statistic(1)) for k in range(3)]
        rows = [row | {"seed": seed} for row in rows]
        write_table(rows, tmp_path / f"{seed}.parquet", TRACE_FILE, {"seed": seed})
    blocks = [{tmp_path / f"{seed}.parquet": {"seed": seed}} for seed in (0, 1)]
    traces, weights = tmp_path / "traces.parquet", tmp_path / "weights.parquet"
    whole = collect_traces(blocks, traces, weights)
    assert whole["seed"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert [r.iteration for r in read_rows(traces, TraceRow)] == [0, 1, 2, 0, 1, 2]
    assert len(read_rows(weights, WeightRow)) == 12


def test_files_of_runs_without_weights_need_no_column_for_them(tmp_path: Path) -> None:
    plain, weighing, older = (tmp_path / f"{k}.parquet" for k in range(3))
    write_table([trace(k) for k in range(2)], plain, TRACES, {})
    write_table([traced(k, statistic()) | {"seed": 1} for k in range(2)], weighing, TRACE_FILE, {})
    write_table([traced(0) | {"seed": 2}], older, TRACE_FILE, {})
    traces, weights = tmp_path / "traces.parquet", tmp_path / "weights.parquet"
    whole = collect_traces([{older: {}, weighing: {}, plain: {}}], traces, weights)
    assert whole["seed"].to_pylist() == [1, 1]
    assert [(r.seed, r.iteration) for r in read_rows(traces, TraceRow)] == [
        (seed, k) for seed, rows in enumerate((2, 2, 1)) for k in range(rows)
    ]
    fewer = pa.schema([f for f in TRACES if f.name != "extra"], TRACES.metadata)
    write_table([{n: v for n, v in trace(0).items() if n != "extra"}], plain, fewer, {})
    with pytest.raises(ValueError, match=r"0.parquet: holds columns .* expected .*extra:map"):
        collect_traces([{plain: {}}], traces, weights)


def test_the_leaderboard_names_runs_that_ended_collapsed() -> None:
    """By the last look of the whole network: one that recovered has not collapsed."""
    low = statistic(low_share=0.9)
    ends = {0: [low, low], 1: [low, statistic()], 2: [statistic(), low]}
    rows = [
        traced(k, told, statistic(1, low_share=1.0), seed=seed, method="iadd")
        for seed, looks in ends.items()
        for k, told in enumerate(looks)
    ]
    weights = weights_of(table_of(rows, TRACE_FILE))
    board = rank(table(runs("iadd", spread(0.9)) + runs("mtt", spread(0.8))))
    iadd, mtt = with_collapses(board, weights)
    assert (iadd.n_collapsed_runs, mtt.n_collapsed_runs) == (2, 0)
    assert remark(iadd, [iadd]) == "weights collapsed in 2 of 3 runs" and not remark(mtt, [mtt])


def test_statistics_survive_a_file(tmp_path: Path, task: methods.Problem) -> None:
    """What the run tells and what the table holds are the same numbers."""
    result = methods.distill(make("iadd", task, lr_w=0.05), SEEDS)
    told = [{k: v for k, v in row.items() if k != "iteration"} for row in result.weights]
    rows = [traced(0, *told, method="iadd")]
    write_table(rows, tmp_path / "t.parquet", TRACE_FILE, {})
    (traces,) = gather([{tmp_path / "t.parquet": {}}], tmp_path, TRACE_FILE)
    found = weights_of(traces)
    assert isinstance(found, pa.Table)
    for row, of in zip(found.to_pylist(), told, strict=True):
        assert row | of == row


class Killed(Exception):
    pass


def test_the_table_has_the_same_bytes_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the configuration to `weights.parquet`, once undisturbed and once killed and resumed."""
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((Path(__file__).parent.parent / "config" / "smoke.yaml").read_text())
    params = config["methods"]["mtt"]["params"] | {"iterations": 6, "validations": 3, "lr_w": 0.1}
    config |= {"methods": {"iadd": {"params": params}, "random": {}}, "seeds": 1}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    plan, key = stages.open_plan(tmp_path / "c.yaml")
    for shard in range(len(plan.shards(key))):
        stages.record(plan, key, shard)
    run, other = plan.runs()

    def made() -> bytes:
        stages.distill(plan, run)
        tables.collect(plan)
        return plan.table("weights").read_bytes()

    for one in (run, other):
        stages.distill(plan, one)
        stages.evaluate(plan, one)
    undisturbed = made()
    rows = read_rows(plan.table("weights"), WeightRow)
    assert [row.iteration for row in rows if row.tensor == 0] == list(range(7))
    assert {row.method for row in rows} == {"iadd"} and rows[-1].std

    save = _Loop._save_sometimes

    def dying(loop: Any, accuracy: float | None) -> None:
        save(loop, accuracy)
        if loop.iteration == 6:  # two looks after the last checkpoint
            raise Killed

    monkeypatch.setattr(_Loop, "_save_sometimes", dying)
    with pytest.raises(Killed):
        stages.distill(plan, run)
    assert plan.paths(run).checkpoint.exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert made() == undisturbed
