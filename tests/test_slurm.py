"""What `iadd run` adds on a SLURM cluster, under stand-ins for SLURM's commands."""

import os
from pathlib import Path

import pytest
from test_plan import plan

from iadd.pipeline import slurm
from iadd.pipeline.run import WORKFLOW, _with_profile

SHIPPED = str(WORKFLOW / "profiles" / "slurm")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands, which is all of PATH; scontrol tells of the age in a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    for name, does in {
        "scontrol": "echo 'MinJobAge = '$(cat age)' sec'",
        "sacct": "exit $(cat accounting)",
        "squeue": "cat queue",
        "scancel": 'echo "$@" > cancelled',
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "age").write_text("300")
    (tmp_path / "accounting").write_text("1")
    return tmp_path


def test_the_executor_is_found_in_options_and_profiles(commands: Path) -> None:
    (commands / "mine").mkdir()
    (commands / "mine" / "config.yaml").write_text("executor: kubernetes\n")
    for options, expected in (
        (["--executor", "slurm"], "slurm"),
        (["--executor=local", "--profile", SHIPPED], None),
        (["--profile", SHIPPED], "slurm"),
        (["--profile=mine"], "kubernetes"),
        ([], None),
    ):
        assert slurm.executor_of(_with_profile(options)) == expected


def test_a_shipped_profile_is_found_in_an_empty_folder(commands: Path) -> None:
    for option in (["--profile", "workflow/profiles/slurm"], ["--profile=workflow/profiles/slurm"]):
        assert any(SHIPPED in word for word in _with_profile([*option, "-n"]))
    assert _with_profile(["--profile", "/elsewhere"]) == ["--profile", "/elsewhere"]


def test_with_and_without_accounting(commands: Path) -> None:
    """Rule: squeue by the profile; where it forgets too soon, sacct or one line."""
    assert slurm.arguments(plan(), [])[:1] == ["--slurm-jobname-prefix"]
    assert "sacct" not in slurm.arguments(plan(), [])
    (commands / "age").write_text("30")
    with pytest.raises(ValueError, match=r"after 30 s \(MinJobAge"):
        slurm.arguments(plan(), [])
    (commands / "accounting").write_text("0")
    assert slurm.arguments(plan(), [])[-2:] == ["--slurm-status-command", "sacct"]
    assert "sacct" not in slurm.arguments(plan(), ["--slurm-status-command", "squeue"])


def test_the_jobs_of_a_killed_run_are_cancelled_and_no_others(commands: Path) -> None:
    name = slurm._prefix(plan())
    assert len(name) <= 50
    other = name[:-1] + ("0" if name[-1] != "0" else "1")
    (commands / "queue").write_text(f"7 {name}_a-b\n8 {other}_c\n9 mine\n")
    assert slurm.cancel_leftovers(plan()) == 1
    assert (commands / "cancelled").read_text() == "7\n"
    (commands / "queue").write_text("")
    assert slurm.cancel_leftovers(plan()) == 0


def test_a_machine_without_slurm_is_told(commands: Path) -> None:
    os.environ["PATH"] = str(commands)
    with pytest.raises(ValueError, match="scontrol is not installed here: is this a SLURM cluster"):
        slurm.arguments(plan(), [])
