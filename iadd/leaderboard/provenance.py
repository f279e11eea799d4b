"""Where submitted sets come from: what their makers say, and what was found in their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iadd.leaderboard.rows import Row, schema_of


@dataclass(frozen=True, kw_only=True)
class SubmissionRow(Row):
    """One submitted set: a distillation seed of its method."""

    table = "submissions"
    key = ("dataset", "ipc", "method", "seed")

    dataset: str
    ipc: int
    method: str
    seed: int
    file: str  # its bare name
    sha256: str  # of its content
    images: int  # as they are stored
    image_bytes: int
    label_bytes: int
    label_kind: Literal["hard", "soft"]
    transform: str
    step_size: float | None
    authors: str  # as the submission says, like the rest
    paper: str | None
    url: str | None
    about: str | None


SUBMISSIONS = schema_of(SubmissionRow)
