"""Which states an unroll keeps."""

import pytest

from iadd.engine.checkpoints import KEPT_BYTES, CheckpointPlan, plan_checkpoints


@pytest.mark.parametrize(
    ("mode", "steps", "state_bytes", "stride"),
    [
        ("replay", 50, KEPT_BYTES, 1),
        ("checkpoint", 50, 4, 8),
        ("checkpoint", 49, 4, 7),
        ("checkpoint", 1, 4, 1),
        ("auto", 49, KEPT_BYTES // 50, 1),
        ("auto", 49, KEPT_BYTES // 50 + 1, 7),
    ],
)
def test_all_states_or_every_root_of_j(
    mode: str, steps: int, state_bytes: int, stride: int
) -> None:
    assert plan_checkpoints(mode, steps, state_bytes) == CheckpointPlan(stride)


def test_segments_cover_every_step_once() -> None:
    for stride in (1, 3, 7, 9):
        segments = CheckpointPlan(stride).segments(7)
        assert [t for segment in segments for t in segment] == list(range(7))
        assert all(segment.start % stride == 0 for segment in segments)


def test_plans_are_named_in_the_trace() -> None:
    assert str(CheckpointPlan(1)) == "replay" and str(CheckpointPlan(7)) == "replay/7"
