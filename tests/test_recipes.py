"""Every shipped benchmark: its graph resolves, and at a tiny budget it makes its tables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from image_files import tree
from test_arrays import medmnist
from test_image_sets import covid, imagenet, tiny
from test_torchvision_sets import write_cifar

from iadd.data.catalog import IMAGENET, MEDMNIST
from iadd.leaderboard.results import read_rows
from iadd.leaderboard.rows import LeaderboardRow
from iadd.pipeline import stages
from iadd.pipeline.config import load_config
from iadd.pipeline.plan import Plan

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "config").glob("*.yaml"))
pytestmark = pytest.mark.recipe
by_name = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)

# No number of a recipe is larger than this in a tiny run.
TINY = {
    **{"iterations": 2, "unrolled_steps": 2, "expert_epochs": 1, "max_start": 2, "validations": 1},
    **{"outer_steps": 1, "inner_epochs": 1, "batch_real": 4, "batch_syn": 2, "trials": 2},
    **{"epochs": 2, "whole_epochs": 1, "count": 2, "per_shard": 1, "seeds": 1, "resolution": 32},
    **{"expert_epoch": 1, "label_epoch": 2, "min_start": 0, "first_max_start": 1},
}


def cut_down(given: Any, key: str = "") -> Any:
    """A recipe's content with every budget cut down; what it compares stays."""
    if isinstance(given, dict):
        return {k: cut_down(v, str(k)) for k, v in given.items()}
    if isinstance(given, list):
        return [cut_down(v) for v in given]
    if key in TINY and isinstance(given, int) and not isinstance(given, bool):
        return min(given, TINY[key])
    return given


def shrink(path: Path, folder: Path) -> Path:
    """The recipe at a tiny budget, as a file of its own; its data sets are read from `folder`."""
    config = cut_down(yaml.safe_load(path.read_text()))
    config["network"] = re.sub(r"-w\d+", "-w4", config["network"])
    config["ipc"] = sorted(config["ipc"])[:1]
    for dataset in config["datasets"]:
        if "root" in dataset:
            dataset["root"] = str(folder / dataset["name"])
        if kept := [ipc for ipc in dataset.get("ipc", ()) if ipc in config["ipc"]]:
            dataset["ipc"] = kept
    config["datasets"] = [
        d for d in config["datasets"] if {*d.get("ipc", config["ipc"])} <= {*config["ipc"]}
    ]
    config["validation"] = config.get("validation", {}) | {"networks": 1, "epochs": 2}
    for evaluation in config["evaluations"]:
        evaluation |= {"networks": {config["network"]: 1}, "epochs": 2, "whole_epochs": 1}
    out = folder / path.name
    out.write_text(yaml.safe_dump(config, sort_keys=False))
    return out


def write_files(dataset: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Few random images in the format of a data set, where its recipe looks for them."""
    name, root = dataset["name"], Path(dataset.get("root", "."))
    if root.exists():
        return
    if name in ("cifar10", "cifar100"):
        write_cifar(root, name == "cifar100", monkeypatch, each=8)
    elif name == "tinyimagenet":
        tiny(root, each=16)
    elif name in IMAGENET:
        imagenet(root, name, each=8)
    elif name == "covid19":
        covid(root)
    elif name in MEDMNIST:
        root.mkdir()
        for file, side in ((f"{name}.npz", 28), (f"{name}_64.npz", 64)):
            medmnist(root, file, side, classes=9)


def run(config: Path, folder: Path, *options: str) -> str:
    """`iadd run` in a folder; what it said."""
    command = [sys.executable, "-m", "iadd", "run", str(config), "--cores", "2", *options]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@by_name
def test_a_recipe_asks_for_its_runs_before_its_data_are_there(path: Path, tmp_path: Path) -> None:
    plan = Plan(load_config(path))
    said = run(path, tmp_path, "--dry-run", "--quiet", "host")
    count = re.search(r"^distill +(\d+)$", said, re.MULTILINE)
    assert count and int(count[1]) == len(list(plan.runs()))


@by_name
def test_a_recipe_runs_from_files_to_tables(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: at a tiny budget, on files in the format that the recipe reads."""
    monkeypatch.chdir(tmp_path)
    small = shrink(path, tmp_path)
    plan = Plan(load_config(small))
    for dataset in yaml.safe_load(small.read_text())["datasets"]:
        write_files(dataset, monkeypatch)
    for dataset in plan.config.datasets:  # here, where torchvision knows the files' checksums
        stages.prepare(plan, dataset.key)
    run(small, tmp_path)
    rows = read_rows(plan.table("leaderboard"), LeaderboardRow)
    measured = {(r.dataset, r.method, r.ipc) for r in rows if r.source == "measured"}
    assert measured == {
        (r.dataset, r.method, r.ipc) for r in plan.runs() if r.method != "whole"
    } | {
        (d.key, "whole", ipc)
        for d in plan.config.datasets
        for ipc in plan.ipcs(d.key, "random")
        if "whole" in plan.config.methods
    }


def test_the_table_for_one_card_rehearses_on_a_cpu(tmp_path: Path) -> None:
    """Rule: from image files to the verdict beside the published value, without Snakemake."""
    for part, each in (("train", 24), ("test", 4)):
        tree(tmp_path / "images" / part, {f"class{k}": each for k in range(10)}, seed=each)
    script = [str(ROOT / "benchmarks" / "gpu_table.py"), "images", "--experts", "2", "--dry"]
    command = [sys.executable, *script]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("data", "experts", "distill", "evaluate", "tables", "verdict"):
        assert f'"stage": "{stage}"' in done.stdout
    assert "undecided beside published 46.3" in done.stdout


def test_what_a_card_is_measured_by_rehearses_on_a_cpu() -> None:
    """Rule: each task validates and tells a line a setting: a card's time is not lost by it."""
    tasks = "kernels,outer,memory,experts,judges,precision"
    script = [str(ROOT / "benchmarks" / "gpu.py"), "--dry", "--rounds", "1", "--tasks", tasks]
    done = subprocess.run([sys.executable, *script], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {row["setting"]: row for row in map(json.loads, done.stdout.splitlines())}
    expected = ["kernels", "a", "cifar10-ipc10", "cifar100-ipc10", "c", "cifar100-ipc50"]
    expected += [f"experts-{k}-at-once" for k in (1, 2, 4)] + ["judges-ipc1", "judges-ipc10"]
    assert [*found] == [*expected, "a-float32", "a-tf32", "a-bf16"]
    assert found["a"]["same_bits_twice"] and found["a"]["float64_error"] < 1e-9
