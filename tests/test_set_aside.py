"""Results that cannot be read are set aside; files of others are not touched."""

from pathlib import Path

import pytest

from iadd.pipeline.set_aside import ASIDE, set_aside


def test_only_a_benchmarks_own_files_that_cannot_be_read_are_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path("results/b")
    for path in ("results/b/a.safetensors", "results/b/x: y.parquet", "theirs.safetensors"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(path)
    again = "delete it and run again"
    reasons = [
        "b: 4 jobs failed",
        "distill mtt blobs ipc1 seed0 (results/b/logs/x.log):",
        f"  iadd: results/b/a.safetensors: images is damaged (checksum); {again}",
        f"  iadd: results/b/none.safetensors: truncated; {again}",
        f"  iadd: theirs.safetensors: truncated; {again}",
        f"  iadd: results/b/../../theirs.safetensors: truncated; {again}",
        "  iadd: results/b/x: y.parquet: has other columns",
        f"  iadd: results/b: is a folder; {again}",
    ]
    assert set_aside(root, reasons) == [root / "a.safetensors"]
    left = sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
    names = [f"results/b/a.safetensors{ASIDE}", "results/b/x: y.parquet", "theirs.safetensors"]
    assert left == [str(tmp_path / name) for name in names]
    assert set_aside(root, reasons) == []
