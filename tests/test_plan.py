"""The plan: its runs, their files, and specs that say what and never where or how."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_config import plain

from iadd import methods
from iadd.artifacts import canonical_json
from iadd.data import About
from iadd.pipeline.config import parse_config
from iadd.pipeline.paths import File, RunPaths
from iadd.pipeline.plan import Plan, Run, source_of
from iadd.pipeline.source import git_commit


def plan(**changes: Any) -> Plan:
    return Plan(parse_config(plain(**changes), "x"))


def test_expert_epochs_are_those_that_can_be_reached() -> None:
    assert plan().expert_epochs("standard") == 7 - 1 + 2
    assert plan(methods={"random": None}).recipes == []
    labelled = plan(methods={"random": None, "softlabel": {"params": {"expert_epoch": 5}}})
    assert labelled.expert_epochs("standard") == 5 and labelled.recipes == ["standard"]


def test_a_benchmark_chooses_which_experts_a_method_uses() -> None:
    """Rule: each recipe's experts are trained as far as its own methods need."""
    slow = {"params": {"expert_epoch": 20}, "experts": "slow"}
    p = plan(methods={"softlabel": slow, "mtt": {"params": {"max_start": 7}}})
    assert p.recipes == ["slow", "standard"]
    assert (p.expert_epochs("slow"), p.expert_epochs("standard")) == (20, 7 - 1 + 2)
    assert "-slow-" in str(p.needs("blobs", "softlabel")[0])
    assert p.job_spec(Run("blobs", "softlabel", 2, 0))["experts"]["recipe"]["step_size"] == 5e-4
    with pytest.raises(ValueError, match=r"methods.random.experts: slow: it needs no experts"):
        plan(methods={"random": {"experts": "slow"}})
    with pytest.raises(ValueError, match="recipe 'slw'; known: standard, flat, slow, waypoints"):
        plan(methods={"mtt": {"experts": "slw"}})


def test_shards_share_the_experts_out() -> None:
    p = plan(experts={"count": 7, "per_shard": 3})
    assert len(p.shards("blobs")) == 3
    assert [list(p.shard_experts(k)) for k in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_only_what_depends_on_a_change_changes() -> None:
    before = plan()
    after = plan(methods={"random": None, "mtt": {"params": {"max_start": 7, "lr_img": 5}}})
    run = Run("blobs", "mtt", 2, 0)
    assert before.job_spec(run) != after.job_spec(run)
    other = Run("blobs", "random", 2, 0)
    assert before.job_spec(other) == after.job_spec(other)
    assert before.experts_folder("blobs") == after.experts_folder("blobs")
    judged = plan(evaluations=[{"networks": {"mlp": 2}}])
    assert before.job_spec(run) == judged.job_spec(run)
    assert before.evaluation_job_spec() != judged.evaluation_job_spec()


def test_source_of_a_method_covers_its_own_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from iadd.pipeline import source as room

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
        "iadd.pipeline.source.PACKAGE", tmp_path / "iadd"
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
    names = [name for name, kind in vars(RunPaths).items() if isinstance(kind, File)]
    files = [{getattr(p.paths(run), name) for name in names} for run in (default, tuned)]
    assert len(files[0]) == len(files[1]) == len(names) == 7 and not files[0] & files[1]


def test_specs_say_what_not_where() -> None:
    here = plan(datasets=[{"name": "folder", "root": "a", "label": "pics"}])
    other = {"root": "b", "download": True, "positive": "ill", "groups": "patients.csv"}
    there = plan(datasets=[{"name": "folder", "label": "pics", **other}])
    assert there.source("pics").groups == Path("patients.csv").absolute()
    assert here.data_spec("pics") != there.data_spec("pics")
    run = Run("pics", "mtt", 1, 0)
    assert here.tables_spec() != there.tables_spec()  # they tell the positive class
    assert here.job_spec(run) == there.job_spec(run)
    assert here.experts_folder("pics") == there.experts_folder("pics")
    assert here.evaluation_job_spec() == there.evaluation_job_spec()


def test_a_variant_is_its_method_under_a_name_of_its_own() -> None:
    """Rule: a result is what it was made from; what an entry is called is in no spec."""
    same = {"params": {"max_start": 3}, "ipc": {2: {"max_start": 7}}}
    entries = {"mtt": same, "again": {"method": "mtt"} | same, "mtt-30": {"method": "mtt"}}
    p = plan(methods=entries, search={"methods": ["mtt-30"]})
    mtt, again, other = (Run("blobs", name, 2, 0) for name in entries)
    assert p.job_spec(mtt) == p.job_spec(again) != p.job_spec(other)
    assert p.paths(mtt).distilled != p.paths(again).distilled
    assert p.needs("blobs", "again") == p.needs("blobs", "mtt")
    assert list(p.searches()) == [("blobs", "mtt-30", 1), ("blobs", "mtt-30", 2)]
    assert Run("blobs", "mtt-30", 1, 2, tuned=True) in set(p.runs())


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


def prepared(folder: Path, **changes: Any) -> Plan:
    """A plan of a folder benchmark whose facts are there: classes a (7 images) and b (60)."""
    p = plan(datasets=[{"name": "folder", "root": "x", "label": "pics"}], **changes)
    counts = {"train": (5, 44), "validation": (1, 5), "test": (1, 11)}
    facts = ("standard", ("crop",), (0.0, 255.0))
    About("folder", "f" * 64, ("a", "b"), counts, 1, 8, *facts).write(p.data("pics").folder)
    return p


def test_specs_hold_what_the_data_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    p, run = prepared(tmp_path), Run("pics", "mtt", 1, 0)
    assert p.spec(run) == p.job_spec(run) | {"data": "f" * 64, "augmentation": ["crop"]}
    assert p.evaluation_spec("pics")["data"] == "f" * 64
    with pytest.raises(ValueError, match=r"about\.json: no such file; run: iadd run CONFIG"):
        plan().spec(Run("blobs", "mtt", 1, 0))


def test_stale_data_can_be_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: what is made from them is then asked for by what they will be."""
    monkeypatch.chdir(tmp_path)
    p, run = prepared(tmp_path), Run("pics", "mtt", 1, 0)
    p.foresee("pics", replace(p.about("pics"), fingerprint="e" * 64))
    assert p.spec(run)["data"] == p.evaluation_spec("pics")["data"] == "e" * 64


def test_an_ipc_larger_than_the_rarest_class_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    p = prepared(tmp_path, ipc=[5, 6])
    assert {run.ipc for run in p.runs()} == {5}
    assert p.left_out() == [
        "data set pics: ipc 6 is larger than class 'a', which has 5 training images "
        "(held out besides: 1 for validation and 1 for test)"
    ]


def test_a_data_set_may_run_at_some_ipc_only() -> None:
    datasets = [{"name": "blobs", "ipc": [2]}, {"name": "digits"}]
    p = plan(datasets=datasets, ipc=[1, 2], methods={"random": None, "whole": None}, seeds=1)
    found = [(run.dataset, run.method, run.ipc) for run in p.runs()]
    assert found == [
        *(("blobs", "random", 2), ("blobs", "whole", 0)),
        *(("digits", "random", 1), ("digits", "random", 2), ("digits", "whole", 0)),
    ]
    assert "ipc" not in p.data_spec("blobs")["dataset"]
    with pytest.raises(ValueError, match="data set blobs: ipc 3 is none of ipc: 1, 2"):
        plan(datasets=[{"name": "blobs", "ipc": [3]}], ipc=[1, 2])


def test_data_are_stale_until_made_from_what_lies_there_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x/a").mkdir(parents=True)
    p = prepared(tmp_path)
    paths = p.data("pics")
    for path in (paths.train, paths.test):
        path.touch()
    assert p.stale_data() == ["pics"]
    paths.made.write_text(canonical_json(p.data_spec("pics")))
    assert p.stale_data() == []
    Path("x/a/new.png").touch()
    assert p.stale_data() == ["pics"]


def test_methods_that_ask_for_other_experts_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    p = plan(experts={"recipe": {"batch": 32}, "recipes": {"flat": {"rho": 0.5}}})
    named = p.config.experts.named
    assert named("flat").batch == named("standard").batch == 32
    assert named("flat").rho == 0.5 and named("standard").rho != 0.5
    monkeypatch.setattr(methods.find("mtt"), "experts", "flat")
    assert p.recipes == ["flat"]
    assert "-flat-" in str(p.needs("blobs", "mtt")[0])
    for bad, message in (({"flab": {}}, "unknown expert recipe 'flab'"), ({"flat": {"x": 1}}, "x")):
        with pytest.raises(ValueError, match=message):
            plan(experts={"recipes": bad})


def commit(folder: Path) -> None:
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "m"],
    ):
        subprocess.run(["git", "-C", str(folder), *words], check=True)


def test_the_commit_is_that_of_the_packages_own_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "outer" / "checkout" / "iadd"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1")
    monkeypatch.setattr("iadd.pipeline.source.PACKAGE", package)
    assert git_commit() is None
    commit(tmp_path / "outer")
    assert git_commit() is None  # another repository's
    commit(package.parent)
    clean = git_commit()
    assert clean and len(clean) == 40
    (package / "a.py").write_text("2")
    assert git_commit() == f"{clean}-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
