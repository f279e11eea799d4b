"""Sets in the torch files of MTT, DATM, TESLA and DC, in and out."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exchange_case import (
    IMAGES,
    LABELS,
    LOGITS,
    NAMES,
    SAID,
    SIZE,
    STANDARD,
    data,
    kept,
    one_line,
)

from iadd.exchange import Statement, read_set, write_set
from iadd.synthetic import SyntheticSet


def test_the_fields_own_code_finds_what_it_looks_for(tmp_path: Path) -> None:
    """Names and shapes as MTT, DATM, TESLA and DC load them."""
    distilled = SyntheticSet(IMAGES, LOGITS, STANDARD, NAMES, 0.02)
    for form in ("mtt", "tesla"):
        write_set(distilled, tmp_path / form, form)
        assert torch.equal(
            torch.load(tmp_path / form / "images_best.pt", weights_only=True), IMAGES
        )
        assert torch.load(tmp_path / form / "lr_best.pt", weights_only=True) == 0.02
    soft = {
        f: torch.load(tmp_path / f / "labels_best.pt", weights_only=True) for f in ("mtt", "tesla")
    }
    assert torch.equal(soft["mtt"], LOGITS)
    assert torch.allclose(soft["tesla"], LOGITS.softmax(1))
    write_set(replace(distilled, labels=LABELS), tmp_path / "res.pt", "dc")
    images, labels = torch.load(tmp_path / "res.pt", weights_only=True)["data"][0]
    assert torch.equal(images, IMAGES) and torch.equal(labels, LABELS)
    with pytest.raises(ValueError, match="unknown form 'zip'; known: folder, mtt, tesla, dc, npz"):
        write_set(distilled, tmp_path / "x", "zip")


def test_an_mtt_file_finds_its_labels_and_says_nothing_of_its_numbers(tmp_path: Path) -> None:
    kept(tmp_path / "labels_5000.pt", LABELS.int())
    path = kept(tmp_path / "images_5000.pt", IMAGES.double().requires_grad_())
    found = read_set(path, data(), Statement(STANDARD, NAMES, step_size=0.5))
    assert torch.equal(found.images, IMAGES) and not found.images.requires_grad
    assert torch.equal(found.labels, LABELS) and found.labels.dtype == torch.int64
    assert found.transform is STANDARD and found.step_size == 0.5
    for said, message in (
        (
            Statement(None, NAMES),
            "how its images are normalised; give iadd import --pixels, --mean and --std",
        ),
        (Statement(STANDARD, None), "which classes its labels are; give iadd import --classes"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read_set(path, data(), said)
        one_line(error)
    alone = kept(tmp_path / "images_7.pt", IMAGES)
    with pytest.raises(ValueError, match="has no labels beside it; give --labels"):
        read_set(alone, data(), SAID)
    assert torch.equal(read_set(alone, data(), SAID, labels="sorted").labels, LABELS)
    other = str(kept(tmp_path / "y.pt", LABELS.flip(0)))
    assert torch.equal(read_set(alone, data(), SAID, labels=other).labels, LABELS.flip(0))


def test_experiments_are_chosen_by_number(tmp_path: Path) -> None:
    held = {
        "data": [[torch.zeros(6, *SIZE), LABELS], [IMAGES, LABELS]],
        "accs_all_exps": {"ConvNet": [np.float64(0.3), np.mean([0.1, 0.2])]},
    }
    path = kept(tmp_path / "res_DM_CIFAR10_ConvNet_2ipc.pt", held)
    assert torch.equal(read_set(path, data(), SAID, experiment=1).images, IMAGES)
    assert not read_set(path, data(), SAID, experiment=0).images.any()
    for words, message in (
        ({}, "holds 2 experiments; give --experiment 0..1"),
        ({"experiment": 2}, r"has no experiment 2; it holds 2, 0\.\.1"),
        ({"experiment": 0, "labels": "sorted"}, "brings its own labels"),
    ):
        with pytest.raises(ValueError, match=message):
            read_set(path, data(), SAID, **words)  # type: ignore[arg-type]
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(tmp_path / "numpy1.pt", "w") as old:
        for name in new.namelist():  # as numpy 1 named its numbers, when such files were written
            content = new.read(name)
            old.writestr(name, content.replace(b"numpy._core.multi", b"numpy.core.multi"))
    assert b"numpy.core.multi" in (tmp_path / "numpy1.pt").read_bytes()
    assert torch.equal(read_set(tmp_path / "numpy1.pt", data(), SAID, experiment=1).images, IMAGES)
    alone = kept(tmp_path / "one.pt", {"data": [(IMAGES, LABELS)]})
    assert torch.equal(read_set(alone, data(), SAID).labels, LABELS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds no images"),
        ({"weights": IMAGES}, "its `data` is no list of experiments"),
        ({"data": [[IMAGES, [0, 1]]]}, "experiment 0 is no pair of images and labels"),
        (
            {"data": [[IMAGES, LABELS]], "about": {"labels": 3}},
            "description .* lacks",
        ),
        ({"data": [[IMAGES, LABELS]], "about": 7}, "is no readable description of a distilled set"),
    ],
)
def test_other_torch_files_are_one_line(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_set(kept(tmp_path / "x.pt", value), data(), SAID)
    one_line(error)
