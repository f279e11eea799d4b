"""What experts reached is told before anything is distilled, beside the published value."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_plan import plan

from iadd.artifacts import save_tensors
from iadd.pipeline.expert_check import expert_line, expert_lines
from iadd.pipeline.plan import Plan

CIFAR = {"datasets": [{"name": "cifar10", "root": "x"}], "network": "convnet-d3-w128"}


def reaching(epochs: int) -> Plan:
    return plan(**CIFAR, methods={"mtt": {"params": {"max_start": epochs - 1}}})


def test_experts_near_the_published_value_and_far_from_it() -> None:
    said = expert_line(reaching(50), "cifar10", "standard", [0.84, 0.85])
    assert said == (
        "experts of cifar10 (convnet-d3-w128, recipe standard) reach 84.5 % on validation after "
        "50 epochs (84.0 to 85.0; 2 of them); near the published 84.8 %"
    )
    assert "near" in expert_line(reaching(50), "cifar10", "standard", [0.819])
    far = expert_line(reaching(50), "cifar10", "standard", [0.817])
    assert "WARNING: far below the published 84.8 %; check experts.recipe" in far
    short = expert_line(reaching(3), "cifar10", "standard", [0.6])
    assert "after 3 epochs" in short and "WARNING" not in short
    assert "far below the published 84.8 %, of 50 epochs: these go as far as" in short


def test_experts_of_other_sides_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for side, compared in ((32, True), (24, False)):
        p = reaching(50)
        monkeypatch.setattr(p, "known_about", lambda _, s=side: SimpleNamespace(resolution=s))
        assert ("published" in expert_line(p, "cifar10", "standard", [0.5])) == compared


def test_without_a_published_value_there_is_nothing_to_warn_of() -> None:
    assert expert_line(plan(), "blobs", "standard", [0.2]).endswith("(20.0 to 20.0; 1 of them)")


def test_what_is_recorded_so_far_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    p = plan(experts={"count": 4, "per_shard": 2})
    assert expert_lines(p, "blobs") == []
    first, second = p.shards("blobs")
    own = {"source": p.experts_source()}
    for path, spec, reached in (
        (first, own, [0.5, 0.7]),
        (second, {"source": "old"}, [0.1]),  # another program's: as if it was not there
    ):
        save_tensors(path, {"x": torch.zeros(1)}, spec, {"validation_accuracy": reached})
    assert "60.0 % on validation" in expert_lines(p, "blobs")[0]
    save_tensors(second, {"x": torch.zeros(1)}, own, {"validation_accuracy": [None, 0.9]})
    (line,) = expert_lines(p, "blobs")
    assert "70.0 % on validation" in line and "(50.0 to 90.0; 3 of them)" in line
