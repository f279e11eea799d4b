"""Sets as folders of pictures, in and out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from exchange_case import (
    IMAGES,
    LABELS,
    NAMES,
    PIXELS,
    SIZE,
    STANDARD,
    data,
)
from PIL import Image

from iadd.data import Transform
from iadd.exchange import Statement, read_set, write_set
from iadd.synthetic import TENSORS, SyntheticSet


def test_folders_are_matched_by_their_names(tmp_path: Path) -> None:
    """An exported folder whose exact set is gone; its folders sort otherwise than the classes."""
    names = ("cat", "ant/queen", "bee")
    distilled = SyntheticSet(STANDARD.apply(PIXELS), LABELS, STANDARD, names)
    write_set(distilled, tmp_path / "out")
    (tmp_path / "out" / TENSORS).unlink()
    found = read_set(tmp_path / "out", data(names=("ant/queen", "bee", "cat")))
    assert found.labels.tolist() == [2, 2, 0, 0, 1, 1]
    assert (found.pixels() - PIXELS).abs().max() < 0.51 / 255
    (tmp_path / "out" / "set.json").unlink()
    with pytest.raises(ValueError, match="classes 0_cat, 1_ant_queen, 2_bee are not those of zoo"):
        read_set(tmp_path / "out", data())
    for old, new in (("0_cat", "cat"), ("1_ant_queen", "ant"), ("2_bee", "bee")):
        (tmp_path / "out" / old).rename(tmp_path / "out" / new)
    found = read_set(tmp_path / "out", data(names=("cat", "bee", "ant")))
    assert found.labels.tolist() == [2, 2, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="says itself how its images are normalised; leave"):
        read_set(tmp_path / "out", data(), Statement("pixels"))


def test_grey_pictures_of_coloured_data_are_coloured(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 4), 51, np.uint8)).save(tmp_path / name / "x.png")
    found = read_set(tmp_path, data())
    assert torch.allclose(found.pixels(), torch.full((3, *SIZE), 0.2))


def test_an_exported_folder_has_pixels_facts_and_the_exact_set(tmp_path: Path) -> None:
    names = ("T-shirt/top", "../up", "c")
    distilled = SyntheticSet(IMAGES, LABELS, STANDARD, names, spec={"ipc": 2})
    write_set(distilled, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    about = json.loads((tmp_path / "out" / "set.json").read_text())
    assert about["folders"] == ["0_T-shirt_top", "1_.._up", "2_c"]
    assert (about["labels"], about["spec"]) == (LABELS.tolist(), {"ipc": 2})
    for label, name in enumerate(about["folders"]):
        rows = (label == LABELS).nonzero()[:, 0].tolist()
        files = sorted((tmp_path / "out" / name).iterdir())
        assert [path.name for path in files] == [f"{row:05d}.png" for row in rows]
        for row, path in zip(rows, files, strict=True):
            found = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1).float()
            assert (found - 255 * distilled.pixels()[row]).abs().max() <= 0.501
    assert torch.equal(SyntheticSet.load(tmp_path / "out" / TENSORS).images, IMAGES)


@pytest.mark.parametrize("classes", [2, 10, 11, 101])
def test_exported_folders_sort_like_classes(tmp_path: Path, classes: int) -> None:
    names = tuple(f"class {label}" for label in range(classes))
    images = torch.zeros(classes, 1, 2, 2)
    write_set(SyntheticSet(images, torch.arange(classes), Transform(), names), tmp_path / "out")
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert [name.split("_", 1)[1] for name in folders] == [name.replace(" ", "_") for name in names]
