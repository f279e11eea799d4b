"""Jobs ask for the memory that jobs of their kind took, and the first one for a whole card."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from test_plan import plan

from iadd import devices
from iadd.pipeline.card_share import CONTEXT, SPARE, on_card


def test_a_kind_of_job_is_measured_and_then_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[int | None] = []
    monkeypatch.setattr(
        devices, "choose", lambda name, need: asked.append(need) or SimpleNamespace(type="cuda")
    )
    p, peaks = plan(), [1000, 400, 3000]
    for peak in peaks:
        monkeypatch.setattr(devices, "peak_bytes", lambda device, peak=peak: peak)
        with on_card(p, "auto", "distill-mtt"):
            pass
    assert asked == [None, *2 * [int(SPARE * 1000) + CONTEXT]]
    with pytest.raises(RuntimeError, match="no memory left"), on_card(p, "auto", "distill-mtt"):
        raise RuntimeError("no memory left")
    assert asked[-1] == int(SPARE * 3000) + CONTEXT
    with on_card(p, "auto", "distill-mtt"):  # after a failure it is careful again
        pass
    assert asked[-1] is None


def test_a_cpu_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with on_card(plan(), "cpu", "experts") as where:
        assert where.type == "cpu"
    assert not list(tmp_path.iterdir())
