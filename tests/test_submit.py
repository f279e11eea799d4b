"""What strangers hand in: checked, told in one line, judged by one command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_submissions import write

from iadd.artifacts import save_tensors
from iadd.data import Transform, load_dataset
from iadd.leaderboard.provenance import SubmissionRow
from iadd.leaderboard.results import read_rows, read_table
from iadd.leaderboard.rows import EVALUATIONS
from iadd.pipeline import run as workflow
from iadd.pipeline.config import load_config
from iadd.synthetic import SyntheticSet

Iadd = Callable[..., tuple[int, str, str]]
METADATA: dict[str, Any] = {
    "name": "theirs",
    "dataset": "blobs",
    "ipc": 1,
    "files": ["a.safetensors", "b.safetensors", "c.safetensors"],
    "authors": ["A. Stranger", "B. <script>alert(1)</script>"],
    "paper": "arXiv 2400.00001",
    "url": "https://example.org/code?a=1&b=2",
    "about": "Means of <b>classes</b> & more.",
    "labels": "hard",
}
BLOBS = load_dataset("blobs")


def set_of(**changes: Any) -> SyntheticSet:
    images = BLOBS.train.images[[int(rows[0]) for rows in BLOBS.class_rows]].clone()
    values: dict[str, Any] = {
        "images": images,
        "labels": torch.arange(4),
        "transform": BLOBS.transform,
        "class_names": BLOBS.class_names,
    }
    return SyntheticSet(**values | changes)


def hand_in(place: str = "inbox/one", metadata: Any = None, **sets: SyntheticSet) -> Path:
    """A submission's folder: three sets, of which some are others; changes of its metadata."""
    folder = Path(place)
    folder.mkdir(parents=True)
    told = {k: v for k, v in (METADATA | (metadata or {})).items() if v is not None}
    (folder / "submission.yaml").write_text(json.dumps(told))
    for name in ("a", "b", "c"):
        sets.get(name, set_of()).save(folder / f"{name}.safetensors")
    return folder


def test_what_fits_is_accepted_in_one_line(iadd: Iadd) -> None:
    config, folder = write(), hand_in()
    line = "accepted: theirs on blobs, ipc 1: 3 sets of 4 images, hard labels, 3,168 bytes"
    for path in (folder, folder.parent, folder / "submission.yaml", folder / "a.safetensors"):
        status, out, error = iadd("submit", "check", str(path), "--config", config)
        assert status == 0 and out.splitlines()[-2:] == [line, "1 accepted, 0 refused"], error
    status, out, _ = iadd("submit", "check", str(folder), str(folder), "--config", config)
    assert status == 2 and "theirs is another submission's already" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"authors": None}, "authors: is missing; needed: authors, about, labels"),
        ({"paper": None, "url": None}, "paper: is missing; needed: paper or url"),
        ({"labels": "firm"}, "labels: must be 'hard' or 'soft'"),
        ({"labels": "soft"}, "a.safetensors: its labels are hard, not soft as told"),
        ({"name": "../../x"}, "name: must be letters"),
        ({"name": "<b>x</b>"}, "name: must be letters"),
        ({"name": "mtt"}, "name 'mtt' is a method's"),
        ({"about": "two\nlines"}, "holds characters that cannot be printed"),
        ({"authors": ["\x1b[2J"]}, "holds characters that cannot be printed"),
        ({"authors": ["a\u202eb"]}, "holds characters that cannot be printed"),
        ({"about": "x" * 301}, "about: must have at most 300 characters"),
        ({"url": "javascript:alert(1)"}, "url: must be"),
        ({"url": 'https://a.b/"onclick='}, "url: must be"),
        ({"dataset": "digits"}, "data set 'digits' is not in this benchmark; it has blobs"),
        ({"ipc": 7}, "ipc: 7 is not in this benchmark: 1"),
        ({"files": []}, "files"),
        ({"files": ["../one/a.safetensors"]}, "allowed is a .safetensors file in the same folder"),
        ({"files": ["/etc/passwd"]}, "allowed is a .safetensors file in the same folder"),
        ({"files": ["a.pt"]}, "allowed is a .safetensors file in the same folder"),
        ({"files": ["x\x00.safetensors"]}, "submission.yaml: "),
        ({"files": ["none.safetensors"]}, "none.safetensors: cannot be read (no such file)"),
        (
            {"files": ["x" * 300 + ".safetensors"]},
            "x.safetensors: cannot be read (File name too lo",
        ),
        ({"files": ["a.safetensors", "a.safetensors"]}, "a file stands there twice"),
        ({"step_size": float("nan")}, "step_size"),
        ({"weights": "x"}, "unknown key 'weights'; allowed: name, files"),
    ],
)
def test_metadata_are_held_against_the_schema(iadd: Iadd, changes: Any, message: str) -> None:
    config, folder = write(), hand_in(metadata=changes)
    status, out, error = iadd("submit", "check", str(folder), "--config", config)
    refusals = [line for line in out.splitlines() if line.startswith("refused: inbox/one/")]
    assert status == 2 and len(refusals) == 1 and message in refusals[0], (out, error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": set_of().images.repeat(2, 1, 1, 1), "labels": torch.arange(8) % 4}, "8 images"),
        ({"images": torch.zeros(4, 1, 9, 9)}, "its images are 1x9x9, those of blobs 1x8x8"),
        ({"class_names": ("a", "b", "c", "d")}, "classes a, b, c, d are not those of blobs"),
        ({"images": set_of().images * 1e6}, "at most 1000 is allowed"),
        ({"decoding": {"kind": "partition", "factor": 8}}, "64 small ones; at most 16"),
        ({"status": "diverged"}, "a submission is a sound set"),
        ({"states": (set_of(), set_of())}, "holds 'state0.images'; allowed are images, labels"),
        (
            {"images": set_of().images[:0], "rows": torch.arange(4), "fingerprint": "x"},
            "holds 'rows'; allowed are images, labels",
        ),
        (
            {"transform": Transform("zca", torch.zeros(64), matrix=torch.eye(64))},
            "its whitening is not the benchmark's own",
        ),
    ],
)
def test_a_set_has_a_budget_and_fits_the_data(
    iadd: Iadd, changes: dict[str, Any], message: str
) -> None:
    config, folder = write(), hand_in(b=replace(set_of(), **changes))
    status, out, _ = iadd("submit", "check", str(folder), "--config", config)
    refusals = [line for line in out.splitlines() if line.startswith("refused: inbox/one/b.")]
    assert status == 2 and len(refusals) == 1 and message in refusals[0], out


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("touched",)


def test_nothing_in_a_hostile_file_is_executed_or_believed(iadd: Iadd) -> None:
    config = write()
    torch.save({"images": Evil()}, "evil.pt")
    giant = b'{"images":{"dtype":"F32","shape":[1099511627776,64],"data_offsets":[0,8]}}'
    hostile = {
        "pickle": Path("evil.pt").read_bytes(),
        "giant": len(giant).to_bytes(8, "little") + giant + bytes(8),
        "long": (2**62).to_bytes(8, "little") + b"{}",
        "empty": b"",
        "big": bytes(2**21),
    }
    for name, content in hostile.items():
        (hand_in(f"inbox/{name}") / "a.safetensors").write_bytes(content)
    nan = set_of().images.clone()
    nan[0, 0, 0, 0] = torch.nan
    tensors = {"images": nan, "labels": torch.arange(4), **BLOBS.transform.tensors()}
    told = {"class_names": list(BLOBS.class_names), "status": "ok", "step_size": None}
    told |= {"transform": BLOBS.transform.kind, "run": {}}
    save_tensors(hand_in("inbox/nan") / "a.safetensors", tensors, {}, told)
    link = hand_in("inbox/link")
    (link / "a.safetensors").unlink()
    (link / "a.safetensors").symlink_to(Path("inbox/nan/b.safetensors").absolute())
    (hand_in("inbox/text") / "submission.yaml").write_bytes(b"!!python/object:os.system [x]")
    (hand_in("inbox/large") / "submission.yaml").write_bytes(b"#" * 70_000)
    os.mkfifo(hand_in("inbox/pipe") / "d.safetensors")
    Path("inbox/pipe/submission.yaml").write_text(
        yaml.safe_dump(METADATA | {"files": ["d.safetensors"]})
    )
    hand_in("inbox/escape", {"name": "\x1b[2J"})
    Path("inbox/empty-folder").mkdir()
    status, out, error = iadd("submit", "check", "inbox", "--config", config)
    assert status == 2 and not error
    lines = [line for line in out.splitlines() if line.startswith("refused: ")]
    assert len(lines) == 12 and "0 accepted, 12 refused" in out, out
    for missing in ("nothing", "inbox/nothing"):
        _, _, error = iadd("submit", "check", missing, "--config", config)
        assert error == f"iadd: {missing}: no such file or folder\n"
    assert not Path("touched").exists() and out.replace("\n", "").isprintable()


def test_a_folder_of_submissions_becomes_a_leaderboard(
    iadd: Iadd, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write()
    hand_in("inbox/one")
    hand_in("inbox/two", {"name": "1e3", "files": ["a.safetensors"], "step_size": 0.5})
    hand_in("inbox/bad", {"name": "bad", "ipc": 9})
    boards: list[Path] = []

    def kept(board: Path, *_: Any) -> int:
        boards.append(board)
        return 0

    monkeypatch.setattr(workflow, "run", kept)
    status, out, error = iadd("submit", "run", "inbox", "--config", config)
    assert status == 0 and out.count("accepted: ") == 2 and out.count("refused: ") == 1, error
    board = str(boards[0])
    found = load_config(board)
    assert [s.name for s in found.submissions] == ["theirs", "1e3"]
    assert found.submissions[0].files[0] == "inbox/one/a.safetensors"
    runs = [("theirs", s) for s in range(3)] + [("1e3", 0)] + [("random", s) for s in range(3)]
    for name, seed in runs:
        where = ("--method", name, "--ipc", "1", "--seed", str(seed))
        assert iadd("distill", board, *where)[0] == iadd("evaluate", board, *where)[0] == 0
    assert iadd("collect", board)[0] == 0
    table = read_table(Path("results/b/evaluations.parquet"), EVALUATIONS)
    assert set(table[table["method"] == "theirs"]["source"]) == {"submitted"}
    rows = read_rows(Path("results/b/submissions.parquet"), SubmissionRow)
    assert [(row.method, row.seed) for row in rows] == [("1e3", 0)] + [
        ("theirs", k) for k in range(3)
    ]
    assert rows[1].authors == "A. Stranger, B. <script>alert(1)</script>"
    assert rows[1].file == "a.safetensors" and len(rows[1].sha256) == 64
    assert (rows[0].step_size, rows[1].step_size) == (0.5, None)
    hand_in("other/bad", {"ipc": 9})
    status, _, error = iadd("submit", "run", "other", "--config", config)
    assert status == 2 and "submissions: none of 1 was accepted" in error
