"""Prepared data are the loaded ones, in files that belong together, and take few bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import random_bytes, save, tree

from iadd.artifacts import TensorFile
from iadd.data import (
    Source,
    Transform,
    load_dataset,
    open_dataset,
    open_test,
    prepare,
    read_about,
)
from iadd.data.image_rows import ByteImages
from iadd.networks import build_network
from iadd.seeds import generator_for
from iadd.train import TrainingPlan, train


@pytest.mark.parametrize("zca", [False, True])
def test_prepared_data_are_the_loaded_ones_bit_for_bit(tmp_path: Path, zca: bool) -> None:
    loaded = load_dataset("digits", zca=zca)
    about = prepare(Source("digits", zca=zca), tmp_path)
    opened = open_dataset(tmp_path)
    assert about == read_about(tmp_path)
    assert opened.fingerprint == loaded.fingerprint == about.fingerprint
    assert opened.class_names == loaded.class_names
    assert opened.augmentation == loaded.augmentation
    assert opened.transform.same(loaded.transform)
    for part in ("train", "validation"):
        mine, other = getattr(opened, part), getattr(loaded, part)
        assert isinstance(mine.images, torch.Tensor if zca else ByteImages)
        rows = torch.tensor([[5, 2, 5], [0, 1, 7]])
        for index in (slice(None), 3, slice(2, 9), rows[0], rows):  # by operations of its own
            assert torch.equal(mine.images[index], other.images[index])
        assert torch.equal(torch.cat([*mine.images.split(50)]), other.images)
        assert mine.images.dtype == other.images.dtype and mine.images.shape == other.images.shape
        assert torch.equal(mine.labels, other.labels)
    for transform in (None, Transform()):
        mine, other = open_test(opened, transform), open_test(loaded, transform)
        assert torch.allclose(mine.images[:], other.images, atol=1e-5)
        assert torch.equal(mine.labels, other.labels)
    assert torch.equal(open_test(opened).images[:], open_test(loaded).images)


def test_a_stated_normalisation_is_that_of_the_tensors_and_part_of_what_the_data_are(
    tmp_path: Path,
) -> None:
    fitted, stated = load_dataset("blobs"), load_dataset("blobs", mean=(0.5,), std=(0.2,))
    pixels = fitted.transform.invert(fitted.train.images)
    assert torch.allclose(stated.train.images, (pixels - 0.5) / 0.2, atol=1e-5)
    assert stated.fingerprint != fitted.fingerprint
    prepare(Source("blobs", mean=(0.5,), std=(0.2,)), tmp_path)
    assert torch.equal(open_dataset(tmp_path).train.images[:], stated.train.images)
    for words, message in (
        ({"mean": (0.5,)}, "mean and std go together"),
        ({"mean": (0.5,), "std": (0.2,), "zca": True}, "and not with zca"),
        ({"mean": (0.5,), "std": (0.0,)}, "std above 0"),
        ({"mean": (0.5,) * 3, "std": (0.2,) * 3}, "have 3 numbers, the images 1 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            load_dataset("blobs", **words)  # type: ignore[arg-type]


def test_bytes_are_kept_where_they_were_read_and_floats_where_they_were_made(
    tmp_path: Path,
) -> None:
    """A network trained on either ends with the same bits."""
    trained = {}
    for name, source in (
        ("bytes", Source("digits")),
        ("whitened", Source("digits", zca=True)),
        ("enlarged", Source("digits", resolution=10)),
    ):
        prepare(source, tmp_path / name)
        file = TensorFile(tmp_path / name / "train.safetensors")
        kept = torch.uint8 if name == "bytes" else torch.float32
        assert file.view("train.images").dtype == kept
        opened = open_dataset(tmp_path / name)
        fields = {"zca": source.zca, "resolution": source.resolution}
        network = build_network("mlp-w8", 1, opened.resolution, 10)
        for found in (opened, load_dataset("digits", **fields)):
            targets = torch.nn.functional.one_hot(found.train.labels, 10).float()
            plan = TrainingPlan(1, 64, 0.1)
            params, order = network.init(generator_for("start")), generator_for("order")
            images, families = found.train.images, found.augmentation
            trained[name] = train(network, params, images, targets, plan, families, order)
            trained.setdefault(f"{name} before", trained[name])
        assert torch.equal(trained[name], trained[f"{name} before"])


def test_test_tensors_are_in_their_own_file_alone(tmp_path: Path) -> None:
    from safetensors import safe_open

    prepare(Source("blobs"), tmp_path)
    with safe_open(tmp_path / "train.safetensors", "pt") as file:
        names = set(file.keys())
        assert {name.split(".")[0] for name in names} == {"train", "validation", "transform"}
    with safe_open(tmp_path / "test.safetensors", "pt") as file:
        assert set(file.keys()) == {"test.images", "test.labels"}
    (tmp_path / "test.safetensors").unlink()
    opened = open_dataset(tmp_path)  # Nothing but the evaluation needs the test.
    with pytest.raises(ValueError, match=r"test\.safetensors: cannot be read \(no such file\)"):
        open_test(opened)


def test_equal_data_give_equal_bytes_of_about(tmp_path: Path) -> None:
    root = tree(tmp_path / "first", {"a": 20, "b": 20})
    shutil.copytree(root, tmp_path / "moved")
    (tmp_path / "moved" / "a" / "notes.txt").write_text("no image")
    prepare(Source("folder", root), tmp_path / "1")
    prepare(Source("folder", tmp_path / "moved", download=True), tmp_path / "2")
    first, second = (tmp_path / k / "about.json" for k in "12")
    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path) not in first.read_text()
    assert read_about(tmp_path / "2").left_out == ("train: 1 .txt file",)
    save(root / "a" / "new.png", random_bytes(10, 10, seed=77))
    prepare(Source("folder", root), tmp_path / "1")
    assert first.read_bytes() != second.read_bytes()


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    prepare(Source("blobs"), tmp_path / "a")
    prepare(Source("blobs", seed=1), tmp_path / "b")
    for name in ("train.safetensors", "test.safetensors"):
        shutil.copy(tmp_path / "b" / name, tmp_path / "a" / name)
    with pytest.raises(ValueError, match="is from another spec: fingerprint"):
        open_dataset(tmp_path / "a")


def test_opened_data_are_mapped_not_read(tmp_path: Path) -> None:
    prepare(Source("digits"), tmp_path)
    code = (
        "import sys; from iadd.data import open_dataset; d = open_dataset(sys.argv[1])\n"
        "maps = open('/proc/self/maps').read().splitlines()\n"
        "line = next(line for line in maps if 'train.safetensors' in line)\n"
        "low, high = line.split()[0].split('-')\n"
        "print(int(low, 16) <= d.train.images.values.data_ptr() < int(high, 16))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"[" * 100_000, b"\xff", b'{"a":1}', None])
def test_a_damaged_about_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "about.json").write_bytes(content)
    with pytest.raises(ValueError) as error:
        open_dataset(tmp_path)
    assert str(tmp_path / "about.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_stopped_preparation_leaves_no_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(Source("blobs"), tmp_path)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(Source("blobs", seed=1), tmp_path, stopped)
    assert not (tmp_path / "about.json").exists()


def test_large_data_are_prepared_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peak memory beyond what was read stays below that of the float32 images."""
    import resource

    from iadd.data import sources
    from iadd.data.cuts import digests_of
    from iadd.data.raw import Raw

    images = np.random.default_rng(0).integers(0, 255, (40_000, 3, 32, 32), dtype=np.uint8)
    raw = Raw(images, np.arange(40_000) % 10, digests_of(images), tuple("0123456789"))
    readers = {"folder": lambda source, part, **_: raw if part == "train" else None}
    monkeypatch.setattr(sources, "READERS", readers)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepare(Source("folder"), tmp_path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < 0.8 * 4 * images.nbytes
