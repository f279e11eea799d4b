"""A method with several settings: entries under names of their own, from the config to the rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from iadd.leaderboard.results import read_table
from iadd.leaderboard.rows import EVALUATIONS, TRACES
from iadd.leaderboard.weights import TRACE_FILE
from iadd.pipeline import stages
from iadd.synthetic import SyntheticSet

SMOKE = Path(__file__).parent.parent / "config" / "smoke.yaml"


def place(folder: Path, **changes: Any) -> Path:
    """A configuration with IADD, frozen and as it is, beside MTT."""
    config = yaml.safe_load(SMOKE.read_text())
    params = config["methods"]["mtt"]["params"] | {"iterations": 6}
    config["methods"] = {
        "mtt": {"params": params},
        "iadd-off": {"method": "iadd", "params": params | {"update": "off"}},
        "iadd.2": {"method": "iadd", "params": params | {"lr_w": 0.1}},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config | changes))
    return folder / "c.yaml"


def test_variants_are_rows_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: they are told by the entry's name, and are what their method declares."""
    monkeypatch.chdir(tmp_path)
    plan, key = stages.open_plan(place(tmp_path))
    for shard in range(len(plan.shards(key))):
        stages.record(plan, key, shard)
    images, told = {}, {}
    for run in plan.runs():
        if run.seed:
            continue
        stages.distill(plan, run)
        stages.evaluate(plan, run)
        paths = plan.paths(run)
        images[run.method] = SyntheticSet.load(paths.distilled, plan.spec(run)).images
        rows = read_table(paths.evaluation, EVALUATIONS)
        assert set(rows["method"]) == {run.method} and set(rows["label_regime"]) == {"hard"}
        trace = read_table(paths.trace, TRACE_FILE if run.method == "iadd.2" else TRACES)
        assert set(trace["method"]) == {run.method}
        told[run.method] = set(rows["reconstruction"]), list(rows["accuracy"])
    assert torch.equal(images["iadd-off"], images["mtt"])
    assert not torch.equal(images["iadd.2"], images["mtt"])
    assert told["iadd-off"] == ({True}, told["mtt"][1]) and told["mtt"][0] == {False}


def test_a_variant_that_the_benchmark_does_not_have(tmp_path: Path) -> None:
    plan, key = stages.open_plan(place(tmp_path))
    with pytest.raises(ValueError, match=r"'iadd' is not in this benchmark: iadd-off"):
        stages.check_run(plan.config, stages.Run(key, "iadd", 1, 0))
