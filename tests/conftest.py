"""What tests of several packages use."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from iadd.extension import has_kernels


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, by its marks; load the kernels for what calls them."""
    marks = {mark.name for mark in item.iter_markers()}
    if "gpu" in marks and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    built = not marks & {"gpu", "kernels"} or has_kernels(torch.device("cpu"))
    if "kernels" in marks and not built:
        pytest.skip("the extension is not built")


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """Lets a test set the number of threads."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the experts of the searches' tiny benchmark."""
    from search_case import plan_of

    from iadd.pipeline import stages

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    stages.record(plan_of(), "blobs", 0)
    return tmp_path


@pytest.fixture
def iadd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in an empty folder: (status, stdout, stderr)."""
    from iadd.commands import main

    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["iadd", *argv])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(autouse=True, scope="session")
def no_environment_left_behind() -> Iterator[None]:
    """What a run sets for its own jobs must not reach the commands of later tests."""
    before = {name for name in os.environ if name.startswith("IADD_")}
    yield
    assert {name for name in os.environ if name.startswith("IADD_")} <= before
