"""A run's trace in TensorBoard's files, while it is made."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
import yaml

from iadd.leaderboard.results import read_table
from iadd.leaderboard.rows import TRACES
from iadd.pipeline import stages
from iadd.pipeline.tensorboard import VARIABLE, observing

pytest.importorskip("tensorboardX")
SMOKE = Path(__file__).parent.parent / "config" / "smoke.yaml"


def told(folder: Path) -> dict[str, dict[int, float]]:
    """What event files hold: tag -> step -> value. Records: length, its CRC, content, its CRC."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_nothing_is_written_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (None, "", "0"):
        if value is not None:
            monkeypatch.setenv(VARIABLE, value)
        with observing(tmp_path / "t") as observe:
            assert observe is None
    assert not (tmp_path / "t").exists()


def test_curves_are_the_trace_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "1")
    config = yaml.safe_load(SMOKE.read_text())
    params = config["methods"]["mtt"]["params"] | {"iterations": 4, "validations": 2}
    config |= {"methods": {"mtt": {"params": params}}, "seeds": 1}
    Path("c.yaml").write_text(yaml.safe_dump(config))
    plan, key = stages.open_plan(Path("c.yaml"))
    for shard in range(len(plan.shards(key))):
        stages.record(plan, key, shard)
    (run,) = plan.runs()
    stages.distill(plan, run)
    found = told(plan.root / "tensorboard" / run.place)
    trace = read_table(plan.paths(run).trace, TRACES)
    assert list(found["loss"]) == trace["iteration"].tolist()
    assert list(found["loss"].values()) == pytest.approx(trace["loss"].tolist(), rel=1e-6)
    assert set(found["validation_accuracy"]) == {2, 4}
    assert "seconds" not in found and "path" not in found


def test_rollbacks_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    with observing(tmp_path) as observe:
        assert observe is not None
        for k, event in enumerate(("", "rollback", "rollback", "")):
            observe({"iteration": k, "event": event, "loss": None, "path": "x"})
    assert told(tmp_path) == {"events/rollback": {1: 1.0, 2: 2.0}}


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match="needs tensorboardX"), observing(tmp_path):
        pass
