"""What Snakemake would inspect for every job is known beforehand, and costs follow the length."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from snakemake.common import get_function_params

from iadd.pipeline.demands import Demands
from iadd.pipeline.workflow import Jobs

WORKFLOW = Path(__file__).parent.parent / "workflow"


@pytest.mark.parametrize("kind", [Jobs, Demands])
def test_snakemake_finds_the_parameters_without_looking(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kind.__new__(kind)
    bound = [
        getattr(one, n) for n, f in vars(kind).items() if inspect.isfunction(f) and n[0] != "_"
    ]
    expected = [dict(inspect.signature(function).parameters) for function in bound]
    assert len(bound) > 5 and any("wildcards" in names for names in expected)
    monkeypatch.setattr(inspect, "signature", None)
    assert [get_function_params(function) for function in bound] == expected


def test_no_job_of_all_inputs_is_in_a_group() -> None:
    """Whenever an input of one is made, Snakemake asks the whole group of all of its inputs."""
    for rule in ("collect", "site"):
        assert "group:" not in (WORKFLOW / "rules" / f"{rule}.smk").read_text()
    for profile in ("default", "slurm"):
        text = (WORKFLOW / "profiles" / profile / "profile.yaml").read_text()
        assert "scheduler: greedy" in text and "scheduler-subsample: " in text
