"""The Python surface as the README shows it, and a test run of what is left as a file."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import iadd
from iadd import api
from iadd.synthetic import SyntheticSet

README = Path(__file__).parent.parent / "README.md"


def test_the_readmes_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found and len(found[1].strip().splitlines()) <= 11
    monkeypatch.chdir(tmp_path)
    exec(found[1], {})  # the page's own lines, nothing else
    accuracies = re.findall(r"'convnet-d2-w32', (0\.\d+)", capsys.readouterr().out)
    assert len(accuracies) == 5 and sum(map(float, accuracies)) / 5 > 0.88
    kept = SyntheticSet.load("iadd-ipc1.safetensors")
    assert kept.images.shape == (10, 1, 8, 8) and kept.step_size and kept.spec["method"] == "iadd"


def test_experts_are_opened_again_and_other_ones_refused(tmp_path: Path) -> None:
    blobs = iadd.load_dataset("blobs")
    path = tmp_path / "e.safetensors"
    first = iadd.record_experts(blobs, "mlp-w8", path, count=1, epochs=2, step_size=0.05)
    again = iadd.record_experts(blobs, "mlp-w8", path, count=1, epochs=2, step_size=0.05)
    assert bool((first.snapshot(0, 2) == again.snapshot(0, 2)).all())
    with pytest.raises(ValueError, match="another spec"):
        iadd.record_experts(blobs, "mlp-w8", path, count=1, epochs=2, step_size=0.06)
    with pytest.raises(ValueError, match=r"e\.safetensors: holds 1 expert, count is 2"):
        iadd.record_experts(blobs, "mlp-w8", path, count=2, epochs=2, step_size=0.05)


def test_a_checkpoint_of_other_code_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: the Python surface, too, goes on only with the code that began."""
    blobs, path = iadd.load_dataset("blobs"), tmp_path / "c.safetensors"
    quick: dict[str, Any] = {"iterations": 6, "validations": 3, "batch_real": 8}
    probe = api.Validation(networks=1, epochs=1)

    def beginning(code: str) -> int:
        monkeypatch.setattr(api, "source_hash", lambda paths: code)
        heard: list[int] = []

        def stop(done: int, total: int, note: str) -> None:
            heard.append(done)
            if done == 6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            iadd.distill(
                "dm", blobs, "mlp-w8", 1, validation=probe, checkpoint=path, progress=stop, **quick
            )
        return heard[0]

    assert beginning("old") == 1
    assert beginning("old") == 6
    assert beginning("new") == 1


def test_long_work_shows_itself_on_a_terminal_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blobs = iadd.load_dataset("blobs")

    def everything(**told: Any) -> None:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        iadd.record_experts(blobs, "mlp-w8", path, count=1, epochs=1, **told)
        probe = api.Validation(networks=1, epochs=1)
        found = iadd.distill(
            "dm", blobs, "mlp-w8", 1, validation=probe, iterations=2, batch_real=4, **told
        )
        iadd.evaluate(found, blobs, {"mlp-w8": 1}, epochs=1, **told)

    everything()
    assert capsys.readouterr().err == ""  # no terminal, and it was short
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    everything()
    shown = capsys.readouterr().err
    assert all(title in shown for title in ("experts blobs", "distill dm blobs", "evaluate blobs"))
    everything(progress=False)
    assert capsys.readouterr().err == ""
    heard: list[tuple[int, int]] = []
    everything(progress=lambda done, total, note: heard.append((done, total)))
    assert heard[0] == (1, 1) and (2, 2) in heard and heard[-1] == (1, 1)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = iadd.distil


def test_calls_compute_with_one_thread_as_jobs_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    blobs, before, seen = iadd.load_dataset("blobs"), torch.get_num_threads(), []
    path = tmp_path / "experts.safetensors"
    torch.set_num_threads(2)
    try:
        hear = lambda *_: seen.append(torch.get_num_threads())  # noqa: E731
        iadd.record_experts(blobs, "mlp-w8", path, count=1, epochs=1, progress=hear)
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
