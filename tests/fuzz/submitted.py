"""Submissions of strangers: their metadata, and their sets within a budget."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import yaml
from test_submit import BLOBS, METADATA, set_of

from fuzz import mutate
from fuzz.harness import Loader
from iadd.artifacts import canonical_json
from iadd.pipeline.config.submission import SubmissionConfig
from iadd.pipeline.submissions import _beside, check_set, read_metadata


def metadata(_: Path) -> Loader:
    """`submission.yaml`; the sets that it names are looked for in its folder, where there is no
    other file."""

    def load(path: Path) -> object:
        found = read_metadata(path)
        for name in found.files:
            with suppress(ValueError):
                _beside(path, name)
        return canonical_json(found.told)

    corpus = [yaml.safe_dump(METADATA).encode(), json.dumps(METADATA).encode()]
    return Loader("submission metadata", "submission.yaml", corpus, load, [mutate.yaml_file])


def submitted_set(folder: Path) -> Loader:
    """A set, checked as `iadd submit check` does and drawn as the page does."""
    told = SubmissionConfig(**METADATA)
    corpus = []
    decoded = {"kind": "partition", "factor": 2}
    for number, each in enumerate((set_of(step_size=0.1), set_of(decoding=decoded))):
        each.save(folder / f"{number}.safetensors")
        corpus.append((folder / f"{number}.safetensors").read_bytes())

    def load(path: Path) -> object:
        found = check_set(path, told, BLOBS)
        return found.pixels(), found.decoded().targets()

    return Loader("submitted set", "a.safetensors", corpus, load, [mutate.tensor_file])
