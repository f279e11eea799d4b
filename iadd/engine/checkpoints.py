"""Which of a student's states the unroll keeps for its backward pass."""

from __future__ import annotations

import math
from typing import NamedTuple

KEPT_BYTES = 2 << 30
"""Of states, up to which mode `auto` keeps all of them."""


class CheckpointPlan(NamedTuple):
    """Keep the parameters before every `stride`-th step; the steps between are recomputed."""

    stride: int

    def __str__(self) -> str:
        return "replay" if self.stride == 1 else f"replay/{self.stride}"

    def segments(self, steps: int) -> list[range]:
        """The steps 0..steps-1 in runs of `stride`, each beginning at a kept state."""
        return [range(t, min(t + self.stride, steps)) for t in range(0, steps, self.stride)]


def plan_checkpoints(mode: str, steps: int, state_bytes: int) -> CheckpointPlan:
    """Keep every state (`replay`), every sqrt(J)-th (`checkpoint`), or what fits (`auto`).

    Args:
        mode: one of these three.
        steps: J, the number of student steps.
        state_bytes: what one state, a parameter vector, takes.
    """
    fits = (steps + 1) * state_bytes <= KEPT_BYTES
    if mode == "replay" or (mode == "auto" and fits):
        return CheckpointPlan(1)
    return CheckpointPlan(math.isqrt(steps - 1) + 1)
