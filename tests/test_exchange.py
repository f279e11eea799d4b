"""Other people's distilled sets come in exactly as they say they are, and nothing is executed."""

from __future__ import annotations

import json
import re
import resource
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from iadd.augment import Augmentation
from iadd.commands.exchange import export_set
from iadd.data import Dataset, Split, Transform
from iadd.data.transform import fit
from iadd.exchange import ENDINGS, FORMS, Statement, read_set, state, write_set
from iadd.exchange.torch_files import step_size
from iadd.synthetic import TENSORS, SyntheticSet

NAMES = ("ant", "bee", "cat")
STANDARD = Transform("standard", mean=torch.tensor([0.4, 0.5, 0.6]), std=torch.full((3,), 0.2))
SIZE = (3, 4, 4)
IMAGES = torch.randn(6, *SIZE, generator=torch.Generator().manual_seed(0))
PIXELS = IMAGES.sigmoid()
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
SAID = Statement(STANDARD, NAMES)


def whitening() -> Transform:
    pixels = torch.rand(200, *SIZE, generator=torch.Generator().manual_seed(2))
    return fit("zca", pixels)


def data(
    transform: Transform = STANDARD, names: tuple[str, ...] = NAMES, size: Sequence[int] = SIZE
) -> Dataset:
    """What a set has to fit: classes, channels, side."""
    split = Split(torch.zeros(1, *size), torch.zeros(1, dtype=torch.int64))
    held_out: Callable[[Transform], Split] = lambda _: split  # noqa: E731
    return Dataset("zoo", names, split, split, transform, Augmentation(()), "f" * 64, held_out)


def kept(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def one_line(error: pytest.ExceptionInfo[ValueError]) -> None:
    assert "\n" not in str(error.value)


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
    for name, message in (("trap.pt", "more than plain tensors"), ("trap.npz", "no archive of")):
        with pytest.raises(ValueError, match=f"{name}: .*{message}") as error:
            read_set(tmp_path / name, data(), SAID)
        one_line(error)
    assert not (tmp_path / "ran").exists()


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


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds no images"),
        ({"weights": IMAGES}, "its `data` is no list of experiments"),
        ({"data": [[IMAGES, [0, 1]]]}, "experiment 0 is no pair of images and labels"),
        ({"data": [[IMAGES, LABELS]], "about": {"labels": 3}}, "is no description .* lacks"),
        ({"data": [[IMAGES, LABELS]], "about": 7}, "is no description of a distilled set"),
    ],
)
def test_other_torch_files_are_one_line(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_set(kept(tmp_path / "x.pt", value), data(), SAID)
    one_line(error)


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
        ({"transform.mean": torch.zeros(2)}, "its transform does not fit its images"),
        ({"transform.mean": torch.full((3,), torch.nan)}, "its transform has NaN"),
        ({"step_size": -0.1}, "its step size is -0.1; allowed is a positive number"),
        ({"step_size": "fast"}, "is no description of a distilled set: could not convert"),
        ({"transform": "pca"}, "is no description of a distilled set: transform: unknown kind"),
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


@pytest.mark.parametrize("classes", [2, 10, 11, 101])
def test_exported_folders_sort_like_classes(tmp_path: Path, classes: int) -> None:
    names = tuple(f"class {label}" for label in range(classes))
    images = torch.zeros(classes, 1, 2, 2)
    write_set(SyntheticSet(images, torch.arange(classes), Transform(), names), tmp_path / "out")
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert [name.split("_", 1)[1] for name in folders] == [name.replace(" ", "_") for name in names]
