"""A distilled set travels with all that is needed to use it, and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from iadd.artifacts import save_tensors
from iadd.data import Dataset, Transform, load_dataset
from iadd.synthetic import SyntheticSet

SPEC = {"dataset": "blobs", "method": "mtt", "ipc": 2, "source_hash": "abc", "params": {"lr": 30.0}}


def first_of_each_class(dataset: Dataset, ipc: int, **changes: Any) -> SyntheticSet:
    rows = torch.cat([rows[:ipc] for rows in dataset.class_rows])
    values: dict[str, Any] = {
        "images": dataset.train.images[rows],
        "labels": dataset.train.labels[rows],
        "transform": dataset.transform,
        "class_names": dataset.class_names,
        "step_size": 0.1 + 0.2,  # No short decimal: it must come back exactly.
        "spec": SPEC,
    }
    return SyntheticSet(**(values | changes))


@pytest.fixture
def hard() -> SyntheticSet:
    return first_of_each_class(load_dataset("blobs"), 2)


def soft_labels(count: int, classes: int) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(1))


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("zca", [False, True])
def test_a_set_comes_back_whole_and_alone(tmp_path: Path, zca: bool, soft: bool) -> None:
    """The reader has only the file: no dataset, no configuration."""
    dataset = load_dataset("blobs", zca=zca)
    changes = {"labels": soft_labels(8, 4)} if soft else {}
    saved = first_of_each_class(dataset, 2, status="diverged", **changes)
    saved.save(tmp_path / "set.safetensors")
    loaded = SyntheticSet.load(tmp_path / "set.safetensors", SPEC)
    for name in ("images", "labels"):
        assert torch.equal(getattr(loaded, name), getattr(saved, name))
    assert loaded.labels.dtype == saved.labels.dtype
    for name in ("step_size", "class_names", "spec", "status", "label_kind"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert loaded.transform.kind == ("zca" if zca else "standard")
    rows = torch.cat([rows[:2] for rows in dataset.class_rows])
    true = dataset.transform.invert(dataset.train.images[rows]).clamp(0, 1)
    assert torch.equal(loaded.pixels(), true)
    assert (255 * loaded.pixels() - (255 * true).round()).abs().max() < 2e-3  # They were bytes.


def test_no_step_size_comes_back_as_none(tmp_path: Path, hard: SyntheticSet) -> None:
    dataclasses.replace(hard, step_size=None).save(tmp_path / "set")
    assert SyntheticSet.load(tmp_path / "set").step_size is None


def test_strangers_can_read_the_spec_without_us(tmp_path: Path, hard: SyntheticSet) -> None:
    hard.save(tmp_path / "set")
    with safe_open(str(tmp_path / "set"), framework="np") as file:
        metadata = file.metadata()
        assert set(file.keys()) == {"images", "labels", "transform.mean", "transform.std"}
    assert json.loads(metadata["spec"]) == SPEC
    assert metadata["spec"] == json.dumps(SPEC, sort_keys=True, separators=(",", ":"))
    assert metadata["spec_version"] == "2.2"


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({"ipc": 10}, "ipc is 2 in the file, 10 expected"),
        ({"params": {"lr": 3.0}}, "params.lr is 30.0 in the file, 3.0 expected"),
        ({"source_hash": "abd"}, 'source_hash is "abc" in the file, "abd" expected'),
    ],
)
def test_another_spec_is_refused(
    tmp_path: Path, hard: SyntheticSet, expect: dict[str, Any], message: str
) -> None:
    hard.save(tmp_path / "set")
    assert SyntheticSet.load(tmp_path / "set", {"ipc": 2}).spec == SPEC
    with pytest.raises(ValueError) as error:
        SyntheticSet.load(tmp_path / "set", expect)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_foreign_and_nan_files_are_refused(tmp_path: Path, hard: SyntheticSet) -> None:
    path = tmp_path / "set"
    hard.save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="is no readable safetensors file"):
        SyntheticSet.load(path)
    save_tensors(path, {"parameters": torch.zeros(2)}, {"network": "mlp"})
    with pytest.raises(ValueError, match=r"distilled set \(class_names: Field required"):
        SyntheticSet.load(path)
    attributes = {"class_names": ["a", "b"], "status": "ok", "step_size": 1, "transform": "none"}
    tensors = {"images": torch.full((2, 1, 8, 8), torch.nan), "labels": torch.tensor([0, 1])}
    save_tensors(path, tensors, {}, attributes)
    with pytest.raises(ValueError, match="images has NaN"):
        SyntheticSet.load(path)


TOLD = {"class_names": ["a", "b"], "status": "ok", "step_size": 0.1, "transform": "none", "run": {}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step_size": -0.1}, "step_size: Input should be greater than 0"),
        ({"step_size": 0}, "step_size: Input should be greater than 0"),
        ({"step_size": "fast"}, "step_size: Input should be a valid number"),
        ({"class_names": "ab"}, "class_names: Input should be a valid tuple"),
        ({"class_names": [["a"], "b"]}, "class_names.0: Input should be a valid string"),
        ({"run": {"host_peak_bytes": []}}, "run.host_peak_bytes"),
        ({"transform": "pca"}, "transform: unknown kind 'pca'"),
        ({"decoding": {"kind": "partition", "factor": 0}}, "decoding"),
        ({"states": [0.1]}, "it lacks 'state0.images'"),
    ],
)
def test_what_a_file_tells_is_checked(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    path = tmp_path / "s.safetensors"
    tensors = {"images": torch.zeros(2, 1, 8, 8), "labels": torch.tensor([0, 1])}
    save_tensors(path, tensors, {}, TOLD)
    assert len(SyntheticSet.load(path)) == 2
    save_tensors(path, tensors, {}, TOLD | changes)
    with pytest.raises(ValueError, match=rf"s\.safetensors: .*{said}"):
        SyntheticSet.load(path)


def test_a_set_without_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    tensors = {"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)}
    save_tensors(path, tensors, {}, TOLD)
    with pytest.raises(ValueError, match=r"s\.safetensors: .*holds no images"):
        SyntheticSet.load(path)


def test_rows_beyond_the_data_are_refused() -> None:
    data = load_dataset("blobs")
    common = {"transform": data.transform, "class_names": data.class_names}
    rows, empty = torch.tensor([0, 10**9]), data.train.images[:0]
    found = SyntheticSet(empty, rows % 2, **common, rows=rows, fingerprint=data.fingerprint)
    with pytest.raises(ValueError, match=r"^x: its rows go beyond those of blobs"):
        found.images_of(data, "x")


@pytest.mark.parametrize("name", ["images", "labels"])
def test_nan_is_not_written(tmp_path: Path, hard: SyntheticSet, name: str) -> None:
    values = {"images": hard.images.clone(), "labels": soft_labels(8, 4)}
    values[name].view(-1)[3] = float("inf")
    with pytest.raises(ValueError, match=f"not written, {name} have NaN or infinite values"):
        dataclasses.replace(hard, **values).save(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_set(tmp_path: Path, hard: SyntheticSet) -> None:
    path = tmp_path / "set"
    hard.save(path)
    before = path.read_bytes()
    big = dataclasses.replace(hard, images=torch.zeros(8, 1, 128, 128))
    soft, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, most))
        with pytest.raises(ValueError, match="cannot be written") as error:
            big.save(path)
        assert "\n" not in str(error.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, most))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- the values -----------------------------------------------------------------------------------


def test_hard_targets_are_one_hot(hard: SyntheticSet) -> None:
    assert hard.label_kind == "hard"
    assert torch.equal(hard.targets(), torch.eye(4).repeat_interleave(2, 0))


def test_soft_targets_are_probabilities_of_the_logits(hard: SyntheticSet) -> None:
    logits = soft_labels(8, 4)
    soft = dataclasses.replace(hard, labels=logits)
    exponent = logits.double().exp()
    expected = exponent / exponent.sum(1, keepdim=True)
    assert soft.label_kind == "soft"
    assert (soft.targets().double() - expected).abs().max() < 1e-6
    assert torch.equal(soft.classes, logits.argmax(1))


def test_bytes_are_counted(hard: SyntheticSet) -> None:
    assert (hard.image_bytes, hard.label_bytes) == (8 * 64 * 4, 8 * 8)
    assert dataclasses.replace(hard, labels=soft_labels(8, 4)).label_bytes == 8 * 4 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(8, 8, 8)}, "synthetic images: must be float32"),
        ({"images": torch.zeros(8, 1, 8, 8).double()}, "synthetic images: must be float32"),
        ({"labels": torch.zeros(7, dtype=torch.int64)}, "synthetic labels: must be int64"),
        ({"labels": torch.zeros(8)}, "synthetic labels: must be int64"),
        ({"labels": torch.zeros(8, 3)}, "synthetic labels: must be int64"),
        ({"labels": torch.full((8,), 4)}, "a label is outside 0..3"),
        ({"labels": torch.full((8,), -1)}, "a label is outside 0..3"),
        ({"status": "fine"}, "synthetic status: 'fine'"),
    ],
)
def test_what_does_not_fit_is_refused(
    hard: SyntheticSet, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(hard, **changes)


# --- to look at -----------------------------------------------------------------------------------


def test_the_picture_shows_every_image_as_pixels(tmp_path: Path) -> None:
    """Tiles are found by their own colours: each image has one grey value of its own."""
    values = torch.arange(1, 25) / 25
    transform = Transform("standard", mean=torch.tensor([0.4]), std=torch.tensor([0.2]))
    pixels = values[:, None, None, None].expand(24, 1, 8, 8)
    distilled = SyntheticSet(
        transform.apply(pixels), torch.arange(24) % 2, transform, ("zero", "one")
    )
    distilled.picture(tmp_path / "set.png")
    image = np.asarray(Image.open(tmp_path / "set.png"))
    tops = {}
    for row in range(20):
        grey = round(255 * values[row].item())
        where = np.argwhere((image == grey).all(2))
        inside = [y for y, x in where if (image[y : y + 64, x : x + 64] == grey).all()]
        assert len(where) >= 64 * 64
        tops[row] = min(inside)
    assert len({tops[row] for row in range(0, 20, 2)}) == 1  # a row a class
    assert tops[0] < tops[1] == tops[19]
    for row in range(20, 24):  # ten a class at most
        grey = round(255 * values[row].item())
        assert len(np.argwhere((image == grey).all(2))) < 64 * 64


def test_the_picture_clamps_and_takes_soft_labels_and_colours(tmp_path: Path) -> None:
    wild = torch.full((4, 3, 16, 16), 7.0)
    names = ("a rather long name of a class", "b", "c")  # Class c has no image.
    logits = torch.eye(3)[[0, 0, 1, 1]]
    SyntheticSet(wild, logits, Transform(), names).picture(tmp_path / "x.png", columns=1)
    image = np.asarray(Image.open(tmp_path / "x.png"))
    assert image.max() == 255
    assert image.shape[0] == 3 * 68 + 4


def test_the_same_set_gives_the_same_picture(tmp_path: Path, hard: SyntheticSet) -> None:
    for name in ("a.png", "b.png"):
        hard.picture(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_images_that_a_set_was_made_from_stand_to_the_right(tmp_path: Path) -> None:
    made = torch.tensor([0.2, 0.4])[:, None, None, None].expand(2, 1, 8, 8)
    start = torch.tensor([0.6, 0.8])[:, None, None, None].expand(2, 1, 8, 8)
    distilled = SyntheticSet(made, torch.arange(2), Transform(), ("zero", "one"))
    distilled.picture(tmp_path / "set.png", start=start)
    image = np.asarray(Image.open(tmp_path / "set.png"))
    assert (image[:, -4:] == 255).all()  # the headings end within
    corner = {}
    for value in (0.2, 0.4, 0.6, 0.8):
        where = np.argwhere((image == round(255 * value)).all(2))
        corner[value] = next(
            (y, x) for y, x in where if (image[y : y + 64, x : x + 64] == image[y, x]).all()
        )
    assert corner[0.2][0] == corner[0.6][0] < corner[0.4][0] == corner[0.8][0]
    assert corner[0.2][1] == corner[0.4][1] < corner[0.6][1] - 64 == corner[0.8][1] - 64


def test_a_picture_of_many_large_images_stays_small(tmp_path: Path) -> None:
    """Noise does not compress: what bounds the file is the number of images that are shown."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(400, 3, 64, 64, generator=generator)
    labels = torch.arange(200).repeat_interleave(2)
    names = tuple(f"class {k}" for k in range(200))
    distilled = SyntheticSet(images, labels, Transform(), names)
    distilled.picture(tmp_path / "many.png", start=images)
    assert 5e5 < (tmp_path / "many.png").stat().st_size < 1.8e6


def test_what_a_run_cost_comes_back_with_its_types(tmp_path: Path) -> None:
    """Bytes stay whole numbers: the tables take nothing else."""
    cost = {"host_peak_bytes": 1 << 40, "distill_seconds": 1.5, "device": "cpu", "unknown": None}
    images, labels = torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])
    SyntheticSet(images, labels, Transform(), ("a", "b"), run=cost).save(tmp_path / "x")
    found = SyntheticSet.load(tmp_path / "x").run
    assert found == cost and type(found["host_peak_bytes"]) is int
