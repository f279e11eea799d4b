"""An entry of `submissions`: files that somebody distilled elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from iadd import methods
from iadd.exchange.statement import checksum
from iadd.pipeline.config.file import NAME, Section
from iadd.pipeline.paths import Run
from iadd.pipeline.source import source_of


def _plain(text: str) -> str:
    """Refuses what would move a terminal's cursor or turn the direction of writing."""
    if not text.isprintable():
        raise ValueError(f"{text!r} holds characters that cannot be printed")
    return text


Line = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_plain)]
"""A line of a stranger's words; pages escape what looks like HTML in it."""
ADDRESS = r"^https?://[A-Za-z0-9.-]{1,100}(:[0-9]{1,5})?(/[A-Za-z0-9._~%!$&()*+,;=:@/?#-]*)?$"


class SubmissionConfig(Section):
    """Distilled sets that somebody submitted, judged like the benchmark's own."""

    name: str = Field(pattern=NAME, description="Name in tables and paths; not a method's.")
    files: tuple[str, ...] = Field(
        min_length=1,
        description="The sets of the distillation seeds 0, 1, ...; `file: x` for a single one. "
        "They say themselves what their numbers are, as `iadd import` writes them.",
    )
    ipc: int = Field(ge=1, description="Images per class.")
    dataset: str = Field(description="The data set that they stand for, by its name here.")
    step_size: float | None = Field(
        None, gt=0, description="Learning rate to train with; default: the set's own."
    )
    authors: tuple[Line, ...] = Field((), max_length=50, description="Who made them.")
    paper: Line | None = Field(None, description="Title, arXiv number or DOI.")
    url: str | None = Field(
        None, pattern=ADDRESS, max_length=300, description="Where code or paper are, https://..."
    )
    about: Line | None = Field(None, description="What the method does, in a sentence.")
    labels: Literal["hard", "soft"] | None = Field(
        None, description="Whether the sets' labels are classes or logits; checked."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_file(cls, given: Any) -> Any:
        if isinstance(given, dict) and "file" in given and "files" not in given:
            rest = {key: value for key, value in given.items() if key != "file"}
            return rest | {"files": [given["file"]]}
        return given

    @model_validator(mode="after")
    def _no_method(self) -> SubmissionConfig:
        if self.name in methods.names():
            raise ValueError(f"name {self.name!r} is a method's; give the submission another")
        return self

    @property
    def told(self) -> dict[str, Any]:
        """What tables tell of where it comes from; no result depends on it."""
        return self.model_dump(mode="json", exclude={"files"}) | {
            "files": [Path(file).name for file in self.files]
        }

    def runs(self) -> Iterator[Run]:
        """One a file."""
        return (Run(self.dataset, self.name, self.ipc, k) for k in range(len(self.files)))

    def spec(self, seed: int) -> dict[str, Any]:
        """What the set of one seed is: the content of its file, wherever that lies.

        Raises:
            ValueError: the file is not there.
        """
        file = Path(self.files[seed])
        if not file.is_file():
            folder = "is a folder; iadd import makes a file of it"
            reason = folder if file.is_dir() else "no such file"
            raise ValueError(f"{file}: {reason} (submission {self.name!r}, seed {seed})")
        return {
            "kind": "submitted",
            "sha256": checksum(file),
            "ipc": self.ipc,
            "params": {"step_size": self.step_size},
            "source": source_of("submit"),
            "seed": seed,
        }
