"""What strangers hand in: checked before anything is trained on it, then judged in one command.

A submission is a folder with `submission.yaml`, an entry of `submissions:` that says who made the
sets, and the `.safetensors` files that it names. Files are read as plain tensors; nothing in them
is executed, and what does not fit is refused in one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from iadd import exchange
from iadd.artifacts import TensorFile, atomic_write, counted, one_line, regular, size_of
from iadd.data import Dataset, Transform
from iadd.leaderboard.provenance import SubmissionRow
from iadd.pipeline.config.file import (
    allowed_keys,
    check_booleans,
    check_numbers,
    first_problem,
    read_yaml,
)
from iadd.pipeline.config.submission import SubmissionConfig
from iadd.pipeline.plan import Plan
from iadd.pipeline.stages import open_data
from iadd.synthetic import SyntheticSet

METADATA = "submission.yaml"
NEEDED = ("authors", "about", "labels")
"""Beside what every entry needs, and one of `paper` and `url`."""
LARGEST_TEXT = 1 << 16
"""Bytes of the metadata."""
HEAD = 1 << 20
"""Bytes of a file beside its tensors, at most."""
FURTHEST = 1000.0
"""A normalised pixel beyond which a state counts as diverged (SPEC, section 2)."""
MOST_PARTS = 16
"""Small images that a stored one may hold."""


def found_in(paths: Sequence[Path]) -> Iterator[Path]:
    """The metadata file of each submission: of a file, a folder, or a folder of folders.

    Of a folder that holds neither metadata nor folders with some, the file that is missing. A
    path that is not there is a ValueError.
    """
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        if not path.is_dir():
            yield path if path.name == METADATA else path.parent / METADATA
        elif (path / METADATA).exists():
            yield path / METADATA
        else:
            inside = sorted(child / METADATA for child in path.iterdir() if child.is_dir())
            yield from inside or [path / METADATA]


def read_submission(file: Path) -> SubmissionConfig:
    """A submission by its metadata, its files with their folder.

    Raises:
        ValueError: as `read_metadata`, or a set that is not in the metadata's own folder.
    """
    found = read_metadata(file)
    files = tuple(str(_beside(file, name)) for name in found.files)
    if len(set(files)) < len(files):
        raise ValueError(f"{file}: files: a file stands there twice")
    return found.model_copy(update={"files": files})


def read_metadata(file: Path) -> SubmissionConfig:
    """What a submission says of itself.

    Raises:
        ValueError: one line naming the file: unreadable, a key that is missing, unknown or wrong.
    """
    if file.is_symlink():
        raise ValueError(f"{file}: is a link; a submission holds its files itself")
    if (size := size_of(file)) > LARGEST_TEXT:
        raise ValueError(f"{file}: has {size:,} bytes; at most {LARGEST_TEXT:,} are allowed")
    raw = read_yaml(file)
    if not isinstance(raw, dict):
        raise ValueError(f"{file}: must be a mapping with keys like name, dataset, ipc, files")
    raw = {str(key): value for key, value in raw.items()}
    try:
        check_numbers(raw)
        found = SubmissionConfig(**raw)
        check_booleans(raw, found.model_dump())
    except ValidationError as error:
        told = first_problem(error) + allowed_keys(error, SubmissionConfig)
        raise ValueError(f"{file}: {told}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    for key in NEEDED:
        if not getattr(found, key):
            raise ValueError(f"{file}: {key}: is missing; needed: {', '.join(NEEDED)}")
    if not (found.paper or found.url):
        raise ValueError(f"{file}: paper: is missing; needed: paper or url")
    return found


def _beside(file: Path, name: str) -> Path:
    """A set in the metadata's own folder; no path leads out of it, and no link."""
    plain = name.isprintable() and Path(name).name == name and name.endswith(".safetensors")
    if not plain:
        allowed = "a .safetensors file in the same folder, by its bare name"
        raise ValueError(f"{file}: files: {name!r}: allowed is {allowed}")
    found = regular(file.parent / name)
    if found.is_symlink():
        raise ValueError(f"{found}: is a link; a submission holds its files itself")
    return found


def check(file: Path, plan: Plan) -> tuple[SubmissionConfig, str]:
    """A submission that fits the benchmark, and what it is in words.

    Raises:
        ValueError: one line naming the file and what is wrong with it.
    """
    found = read_submission(file)
    try:
        dataset = plan.config.dataset(found.dataset)
        if found.name in plan.config.methods:
            raise ValueError(f"name: {found.name} is a method of this benchmark; choose another")
        allowed = dataset.ipc or plan.config.ipc
        if found.ipc not in allowed:
            shown = ", ".join(map(str, allowed))
            raise ValueError(f"ipc: {found.ipc} is not in this benchmark: {shown}")
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    own = open_data(plan, found.dataset)
    sets = [check_set(Path(name), found, own) for name in found.files]
    size = sum(each.image_bytes + each.label_bytes for each in sets)
    words = f"{counted(len(sets), 'set{s}')} of {len(sets[0])} images, {found.labels} labels"
    words += f", {size:,} bytes"
    return found, f"{found.name} on {found.dataset}, ipc {found.ipc}: {words}"


def check_set(file: Path, told: SubmissionConfig, own: Dataset) -> SyntheticSet:
    """One set of a submission, within its budget of images and of bytes.

    The budget is float32 images and the labels that go with them: as many as `ipc` says, stored
    before any decoding. Whitening beyond the benchmark's own would bring more numbers than images.

    Raises:
        ValueError: one line naming the file and what is wrong with it.
    """
    values, count = own.channels * own.resolution**2, told.ipc * own.classes
    whitened = own.transform.kind == "zca"
    most = 4 * count * (values + 2 * own.classes) + 4 * values * (values + 1) * whitened + HEAD
    if (size := file.stat().st_size) > most:
        raise ValueError(f"{file}: has {size:,} bytes; {most:,} are the most for {count} images")
    stored = TensorFile(file)
    known = {"images", "labels", "transform.mean", "transform.std", "transform.matrix"}
    if extra := sorted(set(stored.names) - known):
        raise ValueError(f"{file}: holds {extra[0]!r}; allowed are {', '.join(sorted(known))}")
    found = exchange.read_set(file, own, exchange.Statement(step_size=told.step_size))
    _check_budget(file, found, told, own)
    if found.transform.kind == "zca" and not _near(found.transform, own.transform):
        raise ValueError(f"{file}: its whitening is not the benchmark's own; hand in pixels")
    if (far := float(found.images.abs().max())) > FURTHEST:
        raise ValueError(f"{file}: its images reach {far:.4g}; at most {FURTHEST:g} is allowed")
    return found


def _check_budget(file: Path, found: SyntheticSet, told: SubmissionConfig, own: Dataset) -> None:
    count = told.ipc * own.classes
    if len(found) != count:
        raise ValueError(f"{file}: holds {len(found)} images; {count} are {told.ipc} a class")
    if found.label_kind != told.labels:
        raise ValueError(f"{file}: its labels are {found.label_kind}, not {told.labels} as told")
    parts = int((found.decoding or {}).get("factor", 1)) ** 2
    if parts > MOST_PARTS:
        raise ValueError(f"{file}: an image holds {parts} small ones; at most {MOST_PARTS}")
    if found.status != "ok":
        raise ValueError(f"{file}: its status is {found.status!r}; a submission is a sound set")


def _near(one: Transform, other: Transform) -> bool:
    """Whether two transforms do the same, up to the rounding of another machine."""
    mine, others = one.tensors(), other.tensors()
    return one.kind == other.kind and all(
        mine[name].shape == tensor.shape and torch.allclose(mine[name], tensor, 1e-3, 1e-4)
        for name, tensor in others.items()
    )


def check_all(paths: Sequence[Path], plan: Plan) -> tuple[list[SubmissionConfig], list[str]]:
    """Check submissions, a line each on the terminal; those accepted, and why others are not."""
    accepted: list[SubmissionConfig] = []
    refused: list[str] = []
    for file in found_in(paths):
        try:
            found, words = check(file, plan)
            if found.name in {other.name for other in accepted}:
                raise ValueError(f"{file}: name: {found.name} is another submission's already")
        except ValueError as error:
            refused.append(one_line(str(error)))
            print(f"refused: {refused[-1]}")
        else:
            accepted.append(found)
            print(f"accepted: {words}")
    return accepted, refused


def board(paths: Sequence[Path], config: Path, plan: Plan) -> Path:
    """The configuration of a benchmark with what was accepted in it; refused ones are told.

    It is written beside the benchmark's results, so that `iadd run` does the rest.

    Raises:
        ValueError: nothing was accepted.
    """
    accepted, refused = check_all(paths, plan)
    if not accepted:
        raise ValueError(f"submissions: none of {len(refused)} was accepted")
    raw: Any = read_yaml(config)
    entries = [each.model_dump(mode="json", exclude_none=True) for each in accepted]
    names = {each.name for each in accepted}
    kept = [s for s in raw.get("submissions") or () if s.get("name") not in names]
    out = plan.root / "board.yaml"
    # JSON is YAML in which no word can be taken for a number.
    text = json.dumps(raw | {"submissions": [*kept, *entries]}, ensure_ascii=False, indent=1)
    atomic_write(out, text.encode())
    return out


def provenance(plan: Plan) -> list[SubmissionRow]:
    """What is known of each submitted set, sorted by the table's key."""
    rows = []
    for submission in plan.config.submissions:
        for run in submission.runs():
            held = SyntheticSet.load(plan.paths(run).distilled)
            rows.append(
                SubmissionRow(
                    dataset=run.dataset,
                    ipc=run.ipc,
                    method=run.method,
                    seed=run.seed,
                    file=Path(submission.files[run.seed]).name,
                    sha256=plan.job_spec(run)["sha256"],
                    images=len(held),
                    image_bytes=held.image_bytes,
                    label_bytes=held.label_bytes,
                    label_kind=held.label_kind,
                    transform=held.transform.kind,
                    step_size=held.step_size,
                    authors=", ".join(submission.authors),
                    paper=submission.paper,
                    url=submission.url,
                    about=submission.about,
                )
            )
    return sorted(rows, key=lambda row: (row.dataset, row.ipc, row.method, row.seed))
