"""Other people's distilled sets come in exactly as they say they are, and nothing is executed."""

from __future__ import annotations

import re
import resource
import tempfile
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
    STANDARD,
    data,
    kept,
    one_line,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iadd.commands.exchange import export_set
from iadd.data import Transform
from iadd.data.transform import fit
from iadd.exchange import ENDINGS, FORMS, Statement, read_set, write_set
from iadd.synthetic import TENSORS, SyntheticSet

names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)


@st.composite
def sets(draw: st.DrawFn) -> SyntheticSet:
    """Any distilled set: classes of any name and number of images, labels, transform, size."""
    called = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    count, channels, side = draw(st.integers(2, 7)), draw(st.sampled_from([1, 3])), 3
    images = torch.randn(count, channels, side, side, generator=g)
    labels = torch.randint(len(called), (count,), generator=g)
    soft = torch.randn(count, len(called), generator=g)
    mean = torch.rand(channels, generator=g)
    transform = draw(
        st.sampled_from(
            [
                Transform(),
                Transform("standard", mean=mean, std=mean + 0.1),
                fit("zca", torch.rand(9, channels, side, side, generator=g)),
            ]
        )
    )
    rate = draw(st.none() | st.floats(1e-6, 10))
    given_labels = soft if draw(st.booleans()) else labels
    return SyntheticSet(images, given_labels, transform, tuple(called), rate)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None)
@given(distilled=sets(), turn=st.integers(0, 3))
def test_what_is_written_comes_back(form: str, distilled: SyntheticSet, turn: int) -> None:
    """Whatever the set, and in whatever order the data have its classes."""
    called = distilled.class_names
    own = data(distilled.transform, (*called[turn:], *called[:turn]), distilled.images.shape[1:])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"out{ENDINGS.get(form, '')}"
        write_set(distilled, out, form)
        found = read_set(out, own)
        assert [path.name for path in Path(folder).iterdir()] == [out.name]
    assert torch.equal(found.images, distilled.images)
    assert found.transform.same(distilled.transform)
    assert (found.class_names, found.step_size) == (own.class_names, distilled.step_size)
    place = torch.tensor([own.class_names.index(name) for name in called])
    if distilled.label_kind == "hard":
        assert torch.equal(found.labels, place[distilled.labels])
    elif form == "tesla":
        assert torch.allclose(found.targets()[:, place], distilled.targets(), atol=1e-6)
    else:
        assert torch.equal(found.labels[:, place], distilled.labels)


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_what_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "ran")
    kept(tmp_path / "trap.pt", {"data": [[IMAGES, LABELS]], "x": trap})
    np.savez(tmp_path / "trap.npz", images=np.array([trap], object), labels=LABELS.numpy())
    for name, message in (("trap.pt", "more than plain tensors"), ("trap.npz", "pickled objects")):
        with pytest.raises(ValueError, match=f"{name}: .*{message}") as error:
            read_set(tmp_path / name, data(), SAID)
        one_line(error)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_set_of_somebody_else_is_not_to_be_deleted(tmp_path: Path) -> None:
    """Rule: what a run makes again may be deleted, a stranger's file is his."""
    path = tmp_path / "theirs.safetensors"
    SyntheticSet(IMAGES, LABELS, STANDARD, NAMES).save(path)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"theirs.safetensors: .* is damaged \(checksum\)$"):
        read_set(path, data())
    path.write_bytes(whole[:-40])
    with pytest.raises(ValueError, match=r"theirs\.safetensors: ") as error:
        read_set(path, data())
    assert "delete" not in str(error.value)


NAN = IMAGES.clone().index_fill_(0, torch.tensor([3]), torch.nan)
Pair = tuple[Tensor, Tensor]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((IMAGES[0], LABELS), r"its images are torch.float32 \(3, 4, 4\); allowed are numbers \(N"),
        ((IMAGES.long(), LABELS), "its images are torch.int64"),
        ((IMAGES[:, :1], LABELS), "its images are 1x4x4, those of zoo 3x4x4"),
        ((IMAGES[..., :3], LABELS), "its images are 3x4x3, those of zoo 3x4x4"),
        ((NAN, LABELS), "its images have NaN"),
        ((IMAGES[:0], LABELS[:0]), "or there are none"),
        (
            (IMAGES, LABELS[:5]),
            r"its labels are torch.int64 \(5,\); allowed are whole numbers \(6,",
        ),
        ((IMAGES, LABELS + 1), r"labels go from 1 to 3; allowed are 0\.\.2"),
        ((IMAGES, LABELS - 1), r"labels go from -1 to 1"),
        ((IMAGES, LABELS.float()), r"its labels are torch.float32 \(6,\)"),
        ((IMAGES, LOGITS[:, :2]), r"its labels are torch.float32 \(6, 2\)"),
        ((IMAGES, LOGITS / 0), "its labels have NaN or infinite"),
    ],
)
def test_what_is_no_set_is_one_line_in_every_form(tmp_path: Path, pair: Pair, message: str) -> None:
    images, labels = pair
    said = False if labels.ndim == 2 else None
    kept(tmp_path / "images_x.pt", images), kept(tmp_path / "labels_x.pt", labels)
    kept(tmp_path / "res.pt", {"data": [list(pair)]})
    np.savez(tmp_path / "x.npz", images=images.numpy(), labels=labels.numpy())
    for name in ("images_x.pt", "res.pt", "x.npz"):
        with pytest.raises(ValueError, match=message) as error:
            read_set(tmp_path / name, data(), Statement(STANDARD, NAMES, said))
        one_line(error)


@pytest.mark.parametrize("form", FORMS)
def test_truncated_files_are_one_line(tmp_path: Path, form: str) -> None:
    out = tmp_path / f"out{ENDINGS.get(form, '')}"
    write_set(SyntheticSet(IMAGES, LABELS, STANDARD, NAMES), out, form)
    for path in [out] if out.is_file() else sorted(out.rglob("*")):
        unread = path.name == "lr_best.pt" or (form == "folder" and path.name != TENSORS)
        if path.is_dir() or unread:
            continue
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=re.escape(path.name)) as error:
            read_set(out, data())
        one_line(error)
        path.write_bytes(content)
    assert torch.equal(read_set(out, data()).images, IMAGES)


def test_missing_and_unknown_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    np.savez(tmp_path / "x.npz", images=IMAGES.numpy())
    for name, message in (
        ("none.pt", "no such file"),
        ("none", "no such file"),
        ("x.csv", "known are a folder, .safetensors"),
        ("x.npz", "lacks labels; it holds images"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read_set(tmp_path / name, data(), SAID)
        one_line(error)


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_leaves_nothing(tmp_path: Path, form: str) -> None:
    big = SyntheticSet(torch.rand(300, 3, 16, 16), torch.zeros(300).long(), Transform(), NAMES)
    soft, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, most))
        with pytest.raises(ValueError, match="cannot be written") as error:
            write_set(big, tmp_path / f"out{ENDINGS.get(form, '')}", form)
        one_line(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, most))
    assert not list(tmp_path.iterdir())


def test_decoded_images_are_what_others_get(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = {"kind": "partition", "factor": 2}
    distilled = SyntheticSet(IMAGES, LABELS, STANDARD, NAMES, decoding=several)
    write_set(distilled, tmp_path / "x.npz", "npz")
    write_set(distilled, tmp_path / "folder")
    assert torch.equal(read_set(tmp_path / "x.npz", data()).images, distilled.decoded().images)
    assert read_set(tmp_path / "folder", data()).decoding == several
    distilled.save(tmp_path / "x.safetensors")
    export_set(tmp_path / "x.safetensors", tmp_path / "x.pt", "dc")
    assert capsys.readouterr().out.endswith("written; 6 stored images are decoded into 24\n")


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    distilled = SyntheticSet(IMAGES, LABELS, STANDARD, NAMES)
    for name, form in (("x", "dc"), ("x.npz", "dc"), ("x.pt", "npz")):
        with pytest.raises(ValueError, match=f"{name}: a file of form {form} must end in "):
            write_set(distilled, tmp_path / name, form)
    rows = SyntheticSet(IMAGES[:0], LABELS, STANDARD, NAMES, rows=LABELS, fingerprint="0" * 64)
    for name, form in (("folder", "folder"), ("mtt", "mtt"), ("x.pt", "dc"), ("x.npz", "npz")):
        with pytest.raises(ValueError, match="the set is real images, kept as rows of the data"):
            write_set(rows, tmp_path / name, form)
    assert not list(tmp_path.iterdir())


def test_an_export_does_not_overwrite(tmp_path: Path) -> None:
    distilled = SyntheticSet(IMAGES, LABELS, STANDARD, NAMES)
    (tmp_path / "out").mkdir()
    write_set(distilled, tmp_path / "out")  # An empty folder is welcome.
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        write_set(distilled, tmp_path / "out")
    (tmp_path / "x.npz").write_text("")
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        write_set(distilled, tmp_path / "x.npz", "npz")
