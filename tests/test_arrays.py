"""Arrays: `.npz` and safetensors of the user's own, and MedMNIST's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import random_bytes, save
from numpy.typing import NDArray
from safetensors.numpy import save_file

from iadd.data import Source, inspect, load_dataset, open_test, stamp
from iadd.data.catalog import MEDMNIST
from iadd.data.medmnist import CLASSES
from iadd.data.sources import read

LABELS = np.arange(40) % 4


def held(shape: tuple[int, ...] = (40, 10, 10, 3), **changes: Any) -> dict[str, Any]:
    """The arrays of a file: 40 training and 12 test images of 4 classes."""
    found = {
        "train_images": random_bytes(*shape),
        "train_labels": LABELS,
        "test_images": random_bytes(12, *shape[1:], seed=1),
        "test_labels": LABELS[:12],
    } | changes
    return {name: array for name, array in found.items() if array is not None}


def npz(root: Path, **changes: Any) -> Path:
    root.mkdir(exist_ok=True)
    np.savez(root / "set.npz", **held(**changes))
    return root


def test_both_file_formats_and_a_folder_of_images_give_the_same_data(tmp_path: Path) -> None:
    arrays = held()
    names = ["ant", "bee", "cat", "dog"]
    npz(tmp_path / "npz", class_names=np.array(names))
    (tmp_path / "st").mkdir()
    metadata = {"class_names": json.dumps(names)}
    save_file(arrays, tmp_path / "st" / "set.safetensors", metadata)
    for part in ("train", "test"):
        for k, (image, label) in enumerate(
            zip(arrays[f"{part}_images"], arrays[f"{part}_labels"], strict=True)
        ):
            save(tmp_path / "files" / part / names[label] / f"{k}.png", image)
    prints = {
        load_dataset(name, root=tmp_path / folder).fingerprint
        for name, folder in (("arrays", "npz"), ("arrays", "st"), ("folder", "files"))
    }
    assert len(prints) == 1
    loaded = load_dataset("arrays", root=tmp_path / "npz" / "set.npz")  # The file itself.
    assert loaded.class_names == tuple(names)
    assert len(open_test(loaded)) == 12
    file = Source("arrays", tmp_path / "npz" / "set.npz")
    before = stamp(file)
    np.savez(file.folder, **arrays)  # without the names
    assert stamp(file) != before


@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "i8", "f2", "f4", "f8"])
def test_both_byte_orders_give_the_same_data(tmp_path: Path, kind: str) -> None:
    images = random_bytes(40, 9, 9)
    values = images / 255 if kind[0] == "f" else images.astype(kind)
    found = {}
    for order in "<>":
        stored = {"train_images": values.astype(order + kind), "train_labels": LABELS.astype(">i2")}
        root = npz(tmp_path / order, test_images=None, test_labels=None, **stored)
        loaded = load_dataset("arrays", root=root)
        found[order] = loaded.fingerprint, loaded.train.images
    assert found["<"][0] == found[">"][0]
    assert torch.equal(found["<"][1], found[">"][1])
    pixels = loaded.transform.invert(loaded.train.images)
    assert pixels.max() <= 1 + 1e-6
    assert pixels.max() > 0.9


@pytest.mark.parametrize("shape", [(40, 10, 10), (40, 10, 10, 1), (40, 1, 10, 10)])
def test_layouts_of_the_same_images_are_the_same_data(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    about = inspect(Source("arrays", npz(tmp_path / "a", shape=shape)))
    plain = inspect(Source("arrays", npz(tmp_path / "b", shape=(40, 10, 10))))
    assert about.fingerprint == plain.fingerprint
    assert about.channels == 1


def test_channels_first_and_last_are_the_same_data(tmp_path: Path) -> None:
    first = npz(tmp_path / "a")
    moved = {k: np.moveaxis(v, 3, 1) for k, v in held().items() if k.endswith("images")}
    second = npz(tmp_path / "b", **moved)
    prints = {inspect(Source("arrays", root)).fingerprint for root in (first, second)}
    assert len(prints) == 1


def test_a_test_part_is_cut_where_there_is_none_and_validation_is_kept(tmp_path: Path) -> None:
    root = npz(tmp_path / "a", test_images=None, test_labels=None)
    assert min(inspect(Source("arrays", root)).counts["test"]) >= 1
    own = {"val_images": random_bytes(8, 10, 10, 3, seed=5), "val_labels": LABELS[:8]}
    source = Source("arrays", npz(tmp_path / "b", **own))
    assert inspect(source).counts["validation"] == (2, 2, 2, 2)
    raw = read(source, "train")
    assert raw is not None and raw.validation is not None
    assert np.array_equal(raw.images[raw.validation], np.moveaxis(own["val_images"], 3, 1))
    with pytest.raises(ValueError, match=r"validation_fraction is 0\.1, but the set has valid"):
        inspect(Source("arrays", tmp_path / "b", validation_fraction=0.1))
    root = npz(tmp_path / "c", test_images=None, **own)
    with pytest.raises(ValueError, match="has val_images and no test_images; call them test"):
        inspect(Source("arrays", root))


def test_images_that_are_no_squares_are_cropped_about_their_centre(tmp_path: Path) -> None:
    images = np.zeros((40, 10, 20), dtype=np.uint8)
    images[:, :, 5:15] = random_bytes(40, 10, 10) | 1
    root = npz(tmp_path, train_images=images, test_images=None, test_labels=None)
    raw = read(Source("arrays", root, resolution=10), "train")
    assert raw is not None
    assert raw.images.shape == (40, 1, 10, 10)
    assert raw.images.min() > 0
    with pytest.raises(ValueError, match="arrays: images are 20x10; give a resolution"):
        inspect(Source("arrays", root))


def test_deep_integers_have_the_range_of_their_bits(tmp_path: Path) -> None:
    deep = 16 * random_bytes(40, 10, 10).astype(np.uint16)
    root = npz(tmp_path, train_images=deep, test_images=None, test_labels=None)
    assert inspect(Source("arrays", root)).values == (0, 4095)


FLOATS: NDArray[np.float32] = random_bytes(40, 10, 10).astype(np.float32) / 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": random_bytes(40, 10, 10, 5)}, r"train_images are \(40, 10, 10, 5\); all"),
        ({"train_images": random_bytes(40, 100)}, r"train_images are \(40, 100\); allowed are"),
        ({"train_images": random_bytes(0, 10, 10)}, "train_images are 0 of uint8; needed are"),
        ({"train_images": np.ones((40, 9, 9), bool)}, "train_images are 40 of bool; needed are"),
        ({"train_images": None}, "has no array train_images, only test_images, test_labels"),
        ({"train_labels": None}, "has no array train_labels"),
        ({"train_labels": LABELS[:39]}, r"train_labels are int64 \(39,\); needed are integers"),
        ({"train_labels": LABELS / 1.0}, r"train_labels are float64 \(40,\); needed are integers"),
        ({"train_labels": LABELS - 1}, "train_labels: row 0 is -1; allowed are 0 to 9999"),
        ({"train_labels": np.eye(4)[LABELS]}, r"train_labels are \(40, 4\): several labels an im"),
        ({"test_labels": LABELS[:12] + 1}, "test_labels: row 3 is 4; allowed are 0 to 3"),
        ({"class_names": np.array(["a", "b"])}, "train_labels: row 2 is 2; allowed are 0 to 1"),
        ({"train_images": FLOATS * 3}, "train_images have values from 0 to 3; floats must lie in"),
        ({"train_images": np.where(FLOATS > 0.9, np.nan, FLOATS)}, "values from nan to nan"),
        ({"test_images": random_bytes(12, 11, 11, 3)}, r"test_images are \(3, 11, 11\), train_im"),
        ({"test_images": random_bytes(12, 10, 10)}, r"test_images are \(1, 10, 10\), train_images"),
        ({"test_images": random_bytes(12, 10, 10, 3) / 255}, "test_images are float64, train_im"),
        ({"train_images": np.array([{}, "x"] * 20)}, "train_images.npy holds pickled objects"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        inspect(Source("arrays", npz(tmp_path, **changes)))
    assert "\n" not in str(error.value)
    assert "set.npz" in str(error.value)


@pytest.mark.parametrize("name", ["set.npz", "set.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no arrays", b"\x93NUMPY", b"PK\x03\x04damaged"])
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: is no readable") as error:
        inspect(Source("arrays", tmp_path))
    assert "\n" not in str(error.value)


def test_a_truncated_array_is_one_line(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", **held())
    content = bytearray((tmp_path / "set.npz").read_bytes())
    content[200:400] = bytes(200)
    (tmp_path / "set.npz").write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"set\.npz: "):
        inspect(Source("arrays", tmp_path))


def test_two_files_are_one_too_many(tmp_path: Path) -> None:
    npz(tmp_path)
    np.savez(tmp_path / "other.npz", **held())
    with pytest.raises(ValueError, match=r"must hold one .*found: other\.npz, set\.npz"):
        inspect(Source("arrays", tmp_path))


def test_channels_are_those_of_the_arrays(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="channels 1: train_images have 3"):
        inspect(Source("arrays", npz(tmp_path), channels=1))


# --- MedMNIST -------------------------------------------------------------------------------------


def medmnist(root: Path, file: str, side: int, classes: int, grey: bool = False) -> None:
    shape = (side, side) if grey else (side, side, 3)
    labels = (np.arange(6 * classes) % classes).astype(np.uint8)[:, None]  # (N, 1), as published.
    arrays = {}
    for seed, part in enumerate(("train", "val", "test")):
        arrays[f"{part}_images"] = random_bytes(len(labels), *shape, seed=seed)
        arrays[f"{part}_labels"] = labels
    np.savez_compressed(root / file, **arrays)


def test_medmnist_has_its_own_parts_and_class_names(tmp_path: Path) -> None:
    assert set(CLASSES) == set(MEDMNIST)
    medmnist(tmp_path, "pathmnist.npz", 28, 9)
    about = inspect(Source("pathmnist", tmp_path))
    assert about.class_names[8] == "colorectal adenocarcinoma epithelium"
    assert (about.channels, about.resolution) == (3, 28)
    assert about.counts == dict.fromkeys(("train", "validation", "test"), (6,) * 9)


def test_the_file_of_medmnist_is_the_one_for_the_resolution(tmp_path: Path) -> None:
    medmnist(tmp_path, "pneumoniamnist.npz", 28, 2, grey=True)
    medmnist(tmp_path, "pneumoniamnist_64.npz", 64, 2, grey=True)
    for resolution, stored in ((None, 28), (16, 28), (32, 28), (64, 64), (127, 64)):
        source = Source("pneumoniamnist", tmp_path, resolution=resolution, positive="pneumonia")
        raw = read(source, "train")
        assert raw is not None and raw.images.shape == (24, 1, stored, stored)
        assert inspect(source).resolution == (resolution or stored)
    with pytest.raises(ValueError, match=r"pneumoniamnist_128\.npz: no such file"):
        inspect(Source("pneumoniamnist", tmp_path, resolution=130))


def test_several_labels_an_image_are_refused(tmp_path: Path) -> None:
    labels = np.zeros((10, 14), dtype=np.uint8)
    arrays = {f"{part}_images": random_bytes(10, 28, 28) for part in ("train", "val", "test")}
    np.savez(tmp_path / "chestmnist.npz", **arrays, train_labels=labels, val_labels=labels)
    with pytest.raises(ValueError, match=r"train_labels are \(10, 14\): several labels an image"):
        inspect(Source("chestmnist", tmp_path))
