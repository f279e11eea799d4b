"""The plan: its runs, their files, and specs that say what and never where or how."""

import time
from pathlib import Path
from typing import Any

import pytest

from iadd.pipeline.config import parse_config
from iadd.pipeline.plan import Plan, Run, source_of


def plain(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "benchmark": "b",
        "ipc": [1, 2],
        "datasets": [{"name": "blobs"}],
        "network": "mlp",
        "evaluations": [{"networks": {"mlp": 1}}],
        "methods": {
            "random": None,
            "mtt": {"params": {"max_start": 3}, "ipc": {2: {"max_start": 7}}},
        },
    }
    return base | changes


def plan(**changes: Any) -> Plan:
    return Plan(parse_config(plain(**changes), "x"))


def test_expert_epochs_are_those_that_can_be_reached() -> None:
    assert plan().expert_epochs == 7 - 1 + 2
    assert plan(methods={"random": None}).expert_epochs == 0


def test_shards_share_the_experts_out() -> None:
    p = plan(experts={"count": 7, "per_shard": 3})
    assert len(p.shards("blobs")) == 3
    assert [list(p.shard_experts(k)) for k in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_only_what_depends_on_a_change_changes() -> None:
    before = plan()
    after = plan(methods={"random": None, "mtt": {"params": {"max_start": 7, "lr_img": 5}}})
    run = Run("blobs", "mtt", 2, 0)
    assert before.spec(run) != after.spec(run)
    other = Run("blobs", "random", 2, 0)
    assert before.spec(other) == after.spec(other)
    assert before.experts_spec("blobs") == after.experts_spec("blobs")
    judged = plan(evaluations=[{"networks": {"mlp": 2}}])
    assert before.spec(run) == judged.spec(run)
    assert before.evaluation_spec("blobs") != judged.evaluation_spec("blobs")


def test_source_of_a_method_covers_its_own_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from iadd.pipeline import plan as room

    copy = tmp_path / "iadd"
    shutil.copytree(room.PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    monkeypatch.setattr(room, "PACKAGE", copy)
    before = {m: source_of("methods", m) for m in ("mtt", "random")}
    with (copy / "methods" / "mtt.py").open("a") as file:
        file.write("# edited\n")
    assert source_of("methods", "mtt") != before["mtt"]
    assert source_of("methods", "random") == before["random"]
    with (copy / "train.py").open("a") as file:
        file.write("# edited\n")
    assert source_of("methods", "random") != before["random"]


def test_source_of_what_is_computed_covers_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "iadd.pipeline.plan.PACKAGE", tmp_path / "iadd"
    )  # installed: no kernels beside it
    kernel = tmp_path / "csrc" / "kernel.h"
    stages = ("experts", "methods", "evaluate", "tables")
    found = [[source_of(stage) for stage in stages]]
    kernel.parent.mkdir()
    for text in ("first", "second"):
        kernel.write_text(text)
        found.append([source_of(stage) for stage in stages])
    *computed, tables = zip(*found, strict=True)
    assert all(len(set(hashes)) == 3 for hashes in computed)
    assert len(set(tables)) == 1


def test_a_tuned_run_is_a_run_of_its_own_with_files_of_its_own() -> None:
    p = plan(search={"methods": ["mtt"]})
    runs = list(p.runs())
    assert len(set(runs)) == len(runs) == (2 + 1) * 2 * 3
    default, tuned = Run("blobs", "mtt", 1, 0), Run("blobs", "mtt", 1, 0, tuned=True)
    assert default in runs and tuned in runs
    assert (
        str(p.paths(tuned).distilled)
        == "results/b/distilled/blobs/mtt/ipc1-tuned/seed0.safetensors"
    )
    assert not set(vars(p.paths(default)).values()) & set(vars(p.paths(tuned)).values())


def test_specs_say_what_not_where() -> None:
    here = plan(datasets=[{"name": "folder", "root": "a", "label": "pics"}])
    there = plan(datasets=[{"name": "folder", "root": "b", "label": "pics", "download": True}])
    run = Run("pics", "mtt", 1, 0)
    assert here.job_spec(run) == there.job_spec(run)
    assert here.experts_folder("pics") == there.experts_folder("pics")
    assert here.evaluation_spec("pics") == there.evaluation_spec("pics")
    assert not {"root", "label", "download"} & set(here.job_spec(run)["dataset"])


def test_the_order_of_the_evaluations_changes_no_distillation() -> None:
    a, b = ({"protocol": p, "networks": {"mlp": 1}} for p in ("mtt-v1", "dc-v1"))
    run = Run("blobs", "mtt", 1, 0)
    assert plan(evaluations=[a, b]).job_spec(run) == plan(evaluations=[b, a]).job_spec(run)
    other = plan(validation={"protocol": "dc-v1"})
    assert other.job_spec(run) != plan().job_spec(run)
    assert plan().job_spec(run)["validation"]["protocol"] == "mtt-v1"


def test_a_plan_costs_no_more_than_its_length() -> None:
    p = plan(seeds=2500, ipc=[1, 2, 3, 4])
    began = time.process_time()
    for run in p.runs():  # 20,000
        p.paths(run)
        p.job_spec(run)
        p.needs(run.dataset, run.method)
    p.tables_spec()
    assert time.process_time() - began < 5
