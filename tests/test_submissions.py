"""Files that somebody submitted: judged like the benchmark's own sets, known by their content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from iadd.data import Transform
from iadd.leaderboard.results import read_metadata, read_table
from iadd.leaderboard.rows import EVALUATIONS, LEADERBOARD
from iadd.pipeline.config import load_config
from iadd.pipeline.forecast import Forecast
from iadd.pipeline.plan import Plan, Run
from iadd.pipeline.workflow import Jobs
from iadd.synthetic import SyntheticSet

CONFIG: dict[str, Any] = {
    "benchmark": "b",
    "seeds": 3,
    "ipc": [1],
    "datasets": [{"name": "blobs"}],
    "network": "mlp-w8",
    "evaluations": [
        {"protocol": p, "networks": {"mlp-w8": 2}, "epochs": 5} for p in ("mtt-v1", "dc-v1")
    ],
    "methods": {"random": None},
}
ENTRY = {"name": "theirs", "file": "x.safetensors", "ipc": 1, "dataset": "blobs"}
Iadd = Callable[..., tuple[int, str, str]]


def write(**changes: Any) -> str:
    Path("c.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    return "c.yaml"


def plan(**changes: Any) -> Plan:
    return Plan(load_config(write(**changes)))


def judge_all(iadd: Iadd, config: str, name: str, seeds: int) -> None:
    for seed in range(seeds):
        where = ("--method", name, "--ipc", "1", "--seed", str(seed))
        for stage in ("distill", "evaluate"):
            assert iadd(stage, config, *where)[0] == 0


def copy_own_sets(iadd: Iadd) -> list[str]:
    """The benchmark's own sets of three seeds as somebody's files, with the step sizes they had."""
    judge_all(iadd, write(), "random", 3)
    files = []
    for seed in range(3):
        own = SyntheticSet.load(f"results/b/distilled/blobs/random/ipc1/seed{seed}.safetensors")
        files.append(f"their {seed}.safetensors")
        replace(own, spec={"by": "them"}).save(files[-1])
    return files


def test_a_submission_is_judged_on_the_same_networks_and_ranked_from_three_seeds_on(
    iadd: Iadd,
) -> None:
    files = copy_own_sets(iadd)
    several = {"name": "theirs", "files": files, "ipc": 1, "dataset": "blobs"}
    config = write(submissions=[several, ENTRY | {"file": files[0], "name": "one"}])
    judge_all(iadd, config, "theirs", 3)
    judge_all(iadd, config, "one", 1)
    status, out, _ = iadd("collect", config)
    assert status == 0 and "submitted" in out
    rows = read_table(Path("results/b/evaluations.parquet"), EVALUATIONS)
    assert dict(rows.groupby("method")["source"].first()) == {
        "random": "measured", "theirs": "submitted", "one": "submitted",
    }  # fmt: skip
    keys = ["protocol", "network_eval", "seed", "eval_seed"]
    by = {
        method: rows[rows["method"] == method].sort_values(keys) for method in set(rows["method"])
    }
    for column in ("accuracy", "train_accuracy"):  # the very same sets: the very same networks
        assert by["theirs"][column].tolist() == by["random"][column].tolist()
    assert set(by["one"]["seed"]) == {0}
    board = read_table(Path("results/b/leaderboard.parquet"), LEADERBOARD).set_index("method")
    assert board.loc["theirs", "rank_low"].notna().all()
    assert board.loc["one", "rank_low"].isna().all()
    assert iadd("site", config)[0] == 0
    assert "theirs" in Path("results/b/site/index.html").read_text()
    Path(files[0]).unlink()  # tables are enough to be shown
    status, out, error = iadd("show", config)
    assert status == 0 and "theirs" in out
    assert "these tables may be out of date: their 0.safetensors: no such file" in error
    status, _, error = iadd("site", config)
    assert status == 2 and "their 0.safetensors: no such file" in error


def test_its_spec_is_the_content_of_its_file_and_not_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.safetensors").write_bytes(b"one")
    run = Run("blobs", "theirs", 1, 0)
    spec = plan(submissions=[ENTRY]).job_spec(run)
    assert "x.safetensors" not in str(spec)
    Path("x.safetensors").rename("y")
    moved = plan(submissions=[ENTRY | {"file": "y"}])
    assert moved.job_spec(run) == spec and run in list(moved.runs())
    assert plan(submissions=[ENTRY | {"file": "y", "step_size": 0.1}]).job_spec(run) != spec
    Path("y").write_bytes(b"two")
    assert plan(submissions=[ENTRY | {"file": "y"}]).job_spec(run) != spec
    with pytest.raises(ValueError, match=r"x\.safetensors: no such file"):
        plan(submissions=[ENTRY]).job_spec(run)


def test_the_workflow_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        Jobs([write(submissions=[ENTRY])], {})
    assert capsys.readouterr().err == (
        "iadd: x.safetensors: no such file (submission 'theirs', seed 0)\n"
    )
    Path("x.safetensors").write_bytes(b"one")
    jobs = Jobs(["c.yaml"], {})
    wildcards = SimpleNamespace(dataset="blobs", method="theirs", ipc="1", seed="0", tuned="")
    assert jobs.distilled_from(wildcards) == [jobs.about(wildcards)]
    assert "sha256" in jobs.distill_spec(wildcards)
    assert jobs.plan.paths(Run("blobs", "theirs", 1, 0)).evaluation in jobs.evaluations(None)
    stages = {row.stage: row for row in Forecast(jobs.plan).rows}
    assert stages["distill theirs"].jobs == 1 and stages["distill theirs"].seconds == 0
    assert stages["evaluate theirs"].seconds > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mtt"}, "name 'mtt' is a method's"),
        ({"name": "a/b"}, "name"),
        ({"dataset": "digits"}, "data set 'digits' is not in this benchmark; it has blobs"),
        ({"ipc": 0}, "ipc"),
        ({"file": None, "files": []}, "files"),
        ({"path": "x"}, "unknown key 'submissions.0.path'; allowed: name, files"),
        ({"step_size": -1}, "step_size"),
    ],
)
def test_wrong_entries_are_refused(iadd: Iadd, changes: dict[str, Any], message: str) -> None:
    entry = {key: value for key, value in (ENTRY | changes).items() if value is not None}
    status, _, error = iadd("plan", write(submissions=[entry]))
    assert status == 2 and message in error and error.count("\n") == 1, error
    shared = {"methods": {"random": None, "theirs": {"method": "mtt", "params": {"momentum": 0}}}}
    assert "theirs is a name in methods" in iadd("plan", write(submissions=[ENTRY], **shared))[2]
    assert "x.safetensors" in iadd("plan", write(submissions=[ENTRY]))[2]  # which is not there
    twice = write(submissions=[ENTRY, ENTRY])
    assert "are not distinct" in iadd("plan", twice)[2]


def set_of(count: int, side: int = 8, **changes: Any) -> SyntheticSet:
    names = ("blob0", "blob1", "blob2", "blob3")
    labels = torch.arange(count) % 4
    values: dict[str, Any] = {"transform": Transform(), "class_names": names} | changes
    return SyntheticSet(torch.rand(count, 1, side, side), labels, **values)


def test_a_file_that_does_not_fit_is_refused_and_leaves_nothing(iadd: Iadd) -> None:
    config = write(submissions=[ENTRY])
    where = ("distill", config, "--method", "theirs", "--ipc", "1")
    iadd("data", config)
    names = load_config(config) and Plan(load_config(config)).about("blobs").class_names
    for distilled, message in (
        (set_of(8, class_names=names), "holds 2 images a class, submission 'theirs' says 1"),
        (set_of(6, class_names=names), "holds 6 images for 4 classes; must be a multiple"),
        (set_of(4, side=9, class_names=names), "images are 1x9x9, those of blobs 1x8x8"),
        (set_of(4, class_names=("a", "b", "c", "d")), "classes a, b, c, d are not those of blobs"),
    ):
        distilled.save("x.safetensors")
        status, _, error = iadd(*where)
        assert status == 2 and message in error and error.count("\n") == 1, error
    assert not Path("results/b/distilled").exists()
    for wrong in (("--ipc", "2"), ("--ipc", "1", "--seed", "1")):
        status, _, error = iadd("distill", config, "--method", "theirs", *wrong)
        assert (
            status == 2 and "is not in this benchmark: data set blobs, ipc 1, seeds 0..0" in error
        )


def test_a_file_is_judged_by_hand(iadd: Iadd) -> None:
    file = copy_own_sets(iadd)[0]
    told = ("evaluate", file, "--config", "c.yaml", "--name", "them")
    status, out, _ = iadd(*told, "--protocol", "dc-v1", "--out", "rows.parquet")
    assert status == 0 and "protocol dc-v1" in out and "mtt-v1" not in out
    assert "them" in out and "submitted, few seeds" in out
    rows = read_table(Path("rows.parquet"), EVALUATIONS)
    own = read_table(Path("results/b/evaluations/blobs/random/ipc1/seed0.parquet"), EVALUATIONS)
    own = own[own["protocol"] == "dc-v1"]
    spent = ["expert_seconds", "distill_seconds", "validation_seconds", "distill_gpu_seconds"]
    assert own["distill_seconds"].notna().all() and rows[spent].isna().all(axis=None)
    assert rows["accuracy"].tolist() == own["accuracy"].tolist() and len(rows) == 2
    assert "sha256" in read_metadata(Path("rows.parquet"))["spec"]
    assert iadd(*told, "--step-size", "0.5")[1].count("seeds x nets") == 2
    assert iadd("export", file, "folder")[0] == 0
    for words, message in (
        (("evaluate", file, "--config", "c.yaml", "--protocol", "x"), "it has mtt-v1, dc-v1"),
        (("evaluate", "none.npz", "--config", "c.yaml"), "none.npz"),
        (("evaluate", "folder", "--config", "c.yaml"), "folder: is a folder; iadd import makes"),
        (("evaluate", file, "--config", "c.yaml", "--name", "mtt"), "'mtt' is a method's"),
        (("evaluate", "c.yaml"), "--method and --ipc are needed, or --config"),
        ((*told, "--out", "rows.csv"), "rows.csv: what is written here must end in .parquet"),
        (("import", file, "x.pt", "--config", "c.yaml"), "x.pt: what is written here must end in"),
    ):
        status, _, error = iadd(*words)
        assert status == 2 and message in error and error.count("\n") == 1, error


def test_sets_are_brought_in_and_out_by_hand(iadd: Iadd) -> None:
    file = copy_own_sets(iadd)[0]
    own = SyntheticSet.load(file)
    assert iadd("export", file, "theirs", "--form", "mtt")[0] == 0
    images = torch.load("theirs/images_best.pt", weights_only=True)
    torch.save(own.transform.invert(images), "images_zca_9.pt")
    torch.save(own.labels, "labels_9.pt")
    torch.save(0.02, "lr_best.pt")
    told = ("import", "images_zca_9.pt", "in.safetensors", "--config", "c.yaml")
    status, _, error = iadd(*told, "--classes", "same")
    assert (
        status == 2 and "give iadd import --pixels" in error and not Path("in.safetensors").exists()
    )
    status, out, _ = iadd(*told, "--pixels", "--classes", "same", "--step-size", "lr_best.pt")
    assert status == 0 and "4 images (in tables 1 a class), hard labels, step size 0.02" in out
    found = SyntheticSet.load("in.safetensors")
    assert torch.allclose(found.images, own.images, atol=1e-5)
    assert found.labels.tolist() == own.labels.tolist()
