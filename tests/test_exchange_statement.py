"""What is said of a set's numbers is what they are taken for; what does not fit is refused."""

from __future__ import annotations

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
    PIXELS,
    SAID,
    STANDARD,
    data,
    kept,
    one_line,
    whitening,
)

from iadd.data import Transform
from iadd.exchange import Statement, read_set, state, write_set
from iadd.exchange.torch_files import step_size
from iadd.synthetic import SyntheticSet


def test_pixels_are_normalised_as_the_data_are(tmp_path: Path) -> None:
    """MTT's `images_zca_*.pt` are pixels, and may leave [0, 1]."""
    zca, wild = whitening(), PIXELS * 1.5 - 0.2
    path = kept(tmp_path / "images_zca_10.pt", wild)
    kept(tmp_path / "labels_10.pt", LABELS)
    found = read_set(path, data(zca), Statement("pixels", NAMES))
    assert torch.allclose(zca.invert(found.images), wild, atol=1e-5)
    assert found.transform is zca
    np.savez(tmp_path / "x.npz", images=(255 * PIXELS).byte().numpy(), labels=LABELS.numpy())
    bytes8 = read_set(tmp_path / "x.npz", data(), Statement("pixels", NAMES))
    assert (bytes8.pixels() - PIXELS).abs().max() < 1.01 / 255
    with pytest.raises(ValueError, match="whole numbers of 8 bits, which are --pixels"):
        read_set(tmp_path / "x.npz", data(), SAID)
    big = kept(tmp_path / "images_1.pt", PIXELS * 255)
    with pytest.raises(ValueError, match=r"the mean of its images is 1\d\d.*; pixels are in"):
        read_set(big, data(), Statement("pixels", NAMES), labels="sorted")


def test_labels_are_whole_or_real_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for labels in (LABELS.numpy() + 0j, LABELS.numpy() > 0):
        np.savez(path, images=IMAGES.numpy(), labels=labels)
        with pytest.raises(ValueError, match=r"x\.npz: its labels are torch\.(complex128|bool)"):
            read_set(path, data(), SAID)


def test_soft_labels_are_what_is_said_and_move_with_their_classes(tmp_path: Path) -> None:
    path, theirs = kept(tmp_path / "images_best.pt", IMAGES), ("cat", "ant", "bee")
    kept(tmp_path / "labels_best.pt", LOGITS)
    with pytest.raises(
        ValueError, match="what its soft labels are; give iadd import --probabilities or"
    ):
        read_set(path, data(), SAID)
    found = read_set(path, data(), Statement(STANDARD, theirs, False))
    assert torch.equal(found.labels, LOGITS[:, [1, 2, 0]])
    with pytest.raises(ValueError, match="are no probabilities: they add up to between"):
        read_set(path, data(), Statement(STANDARD, theirs, True))
    certain = torch.eye(3)[LABELS]
    kept(tmp_path / "labels_best.pt", certain)
    found = read_set(path, data(), Statement(STANDARD, NAMES, True))
    assert torch.allclose(found.targets(), certain, rtol=0, atol=1e-20)
    assert bool(found.labels.isfinite().all())


def test_hard_labels_move_with_their_classes(tmp_path: Path) -> None:
    """By number, a set whose classes are in another order would be learned wrongly: 10 % right."""
    path = kept(tmp_path / "images_best.pt", IMAGES)
    kept(tmp_path / "labels_best.pt", LABELS)
    found = read_set(path, data(), Statement(STANDARD, ("cat", "ant", "bee")))
    assert found.labels.tolist() == [2, 2, 0, 0, 1, 1] and found.class_names == NAMES
    with pytest.raises(
        ValueError, match="classes cat, dog, bee are not those of zoo: ant, bee, cat"
    ):
        read_set(path, data(), Statement(STANDARD, ("cat", "dog", "bee")))


def test_our_own_files_fit_or_are_refused_with_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    SyntheticSet(IMAGES, LABELS, STANDARD, NAMES[::-1], spec={"ipc": 2}).save(path)
    found = read_set(path, data(), Statement(step_size=0.3))
    assert found.labels.tolist() == [2, 2, 1, 1, 0, 0]
    assert (found.spec, found.step_size) == ({"ipc": 2}, 0.3)
    state = SyntheticSet(IMAGES, LABELS, STANDARD, NAMES[::-1])
    replace(state, states=(state,)).save(path)
    assert torch.equal(read_set(path, data()).states[0].labels, found.labels)
    with pytest.raises(ValueError, match="says itself what its numbers are"):
        read_set(path, data(), Statement("pixels"))
    rows = SyntheticSet(IMAGES[:0], LABELS, STANDARD, NAMES, rows=LABELS, fingerprint="0" * 64)
    rows.save(path)
    with pytest.raises(ValueError, match=f"rows are of data with fingerprint {'0' * 64}, those of"):
        read_set(path, data())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transform.mean": torch.zeros(2)}, r"transform: its std is torch.float32 \(3,\)"),
        ({"transform.mean": torch.full((3,), torch.nan)}, "its transform has NaN"),
        ({"step_size": -0.1}, "its step size is -0.1; allowed is a positive number"),
        ({"step_size": "fast"}, "is no readable .*could not convert"),
        (
            {"transform": "pca"},
            "is no readable .*transform: unknown kind",
        ),
    ],
)
def test_wrong_descriptions_are_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "x.pt"
    write_set(SyntheticSet(IMAGES, LABELS, STANDARD, NAMES, 0.1), path, "dc")
    held = torch.load(path, weights_only=True)
    held |= {key: value for key, value in changes.items() if "." in key}
    held["about"] |= {key: value for key, value in changes.items() if "." not in key}
    with pytest.raises(ValueError, match=message) as error:
        read_set(kept(path, held), data())
    one_line(error)


def test_what_is_said_to_no_avail_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=IMAGES.numpy(), labels=LABELS.numpy())
    for words in ({"labels": "sorted"}, {"experiment": 0}):
        with pytest.raises(ValueError, match="brings its own labels; leave --labels and"):
            read_set(tmp_path / "x.npz", data(), SAID, **words)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="its labels are classes; leave --probabilities or"):
        read_set(tmp_path / "x.npz", data(), Statement(STANDARD, NAMES, True))


def test_words_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\nant\n bee\n\n")
    said = state(data(), mean="0.5", std="0.1,0.2,0.3", classes=str(tmp_path / "names.txt"))
    assert isinstance(said.transform, Transform)
    assert said.transform.tensors()["transform.mean"].tolist() == [0.5] * 3
    assert said.class_names == ("cat", "ant", "bee")
    assert state(data(), classes="same").class_names == NAMES
    assert state(data(), classes="cat, bee").class_names == ("cat", "bee")
    zca = whitening()
    assert state(data(zca), zca=True).transform is zca
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"pixels": True, "zca": True}, "--pixels and --zca: only one of them"),
        ({"zca": True}, "zoo is not whitened here"),
        ({"mean": "0.5"}, "--mean and --std: give both"),
        ({"std": "0.5"}, "--mean and --std: give both"),
        ({"classes": "nams.txt"}, "--classes nams.txt: no such file; allowed are names with"),
        ({"mean": "0.5", "std": "0"}, "--std 0: allowed is a positive number"),
        ({"mean": "a,b,c", "std": "1"}, "--mean a,b,c: allowed is a number"),
        ({"mean": "1,2", "std": "1"}, "--mean 1,2: allowed is a number for each of 3 channels"),
    ]
    for words, message in wrong:
        with pytest.raises(ValueError, match=message):
            state(data(), **words)
    assert step_size("0.25") == 0.25
    assert step_size(str(kept(tmp_path / "lr_best.pt", 0.03))) == 0.03
    assert step_size(str(kept(tmp_path / "lr.pt", torch.tensor(0.5)))) == 0.5
    for bad in ("-1", "nan", str(kept(tmp_path / "no.pt", [1]))):
        with pytest.raises(ValueError, match=r"--step-size .*; allowed is a positive number"):
            step_size(bad)
    with pytest.raises(ValueError, match="--step-size lots: is no number, and no such file"):
        step_size("lots")
