"""torchvision's file formats, and their download."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import random_bytes
from numpy.typing import NDArray

from iadd.data import Dataset, Source, Split, load_dataset, open_test
from iadd.data.raw import Raw
from iadd.data.sources import read


def same(raw: Raw, dataset: Dataset, split: Split) -> bool:
    """Whether a split holds the images that were read, each with its label."""
    pixels = (255 * dataset.transform.invert(split.images)).round().to(torch.uint8).numpy()
    pairs = zip(pixels, split.labels.tolist(), strict=True)
    read_pairs = zip(raw.images, raw.labels.tolist(), strict=True)
    return sorted((i.tobytes(), k) for i, k in pairs) == sorted(
        (i.tobytes(), k) for i, k in read_pairs
    )


def write_idx(path: Path, values: NDArray[np.uint8], packed: bool) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(header + values.tobytes()))
    path.write_bytes(header + values.tobytes())


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashionmnist", "FashionMNIST")])
def test_mnist_files(tmp_path: Path, name: str, kind: str) -> None:
    labels = np.arange(40, dtype=np.uint8) % 10
    for part, seed in (("train", 1), ("t10k", 2)):
        raw = tmp_path / kind / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte", random_bytes(40, 28, 28, seed=seed), False)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels, True)
    loaded = load_dataset(name, root=tmp_path, validation_fraction=0)
    assert loaded.train.images.shape == (40, 1, 28, 28)
    for part, seed, split in (("train", 1, loaded.train), ("test", 2, open_test(loaded))):
        raw = read(Source(name, tmp_path), part)
        assert raw.labels.tolist() == labels.tolist()
        assert np.array_equal(raw.images, random_bytes(40, 1, 28, 28, seed=seed))
        assert same(raw, loaded, split)
    assert len(loaded.class_names) == 10
    assert load_dataset(name, root=tmp_path, resolution=32, validation_fraction=0).resolution == 32


def write_cifar(root: Path, hundred: bool, monkeypatch: pytest.MonkeyPatch, each: int = 1) -> Any:
    """CIFAR's files with `each` random images a class and file; torchvision learns their sums."""
    from torchvision import datasets

    kind = datasets.CIFAR100 if hundred else datasets.CIFAR10
    base, classes = root / kind.base_folder, 100 if hundred else 10
    base.mkdir(parents=True)
    key = "fine_labels" if hundred else "labels"

    def written(listed: list[list[str]], seed: int) -> list[list[str]]:
        sums = []
        for number, (name, _) in enumerate(listed):
            labels = [row % classes for row in range(each * classes)]
            batch = {"data": random_bytes(len(labels), 3072, seed=seed + number), key: labels}
            (base / name).write_bytes(pickle.dumps(batch))
            sums.append([name, hashlib.md5((base / name).read_bytes()).hexdigest()])
        return sums

    monkeypatch.setattr(kind, "train_list", written(kind.train_list, 0))
    monkeypatch.setattr(kind, "test_list", written(kind.test_list, 50))
    meta = dict(kind.meta)
    names = [f"thing {label}" for label in range(classes)]
    (base / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: names}))
    meta["md5"] = hashlib.md5((base / meta["filename"]).read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "meta", meta)
    return kind


@pytest.mark.parametrize("hundred", [False, True])
def test_cifar_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hundred: bool) -> None:
    kind = write_cifar(tmp_path, hundred, monkeypatch)
    base, classes = tmp_path / kind.base_folder, 100 if hundred else 10
    names = [f"thing {label}" for label in range(classes)]
    name = "cifar100" if hundred else "cifar10"
    loaded = load_dataset(name, root=tmp_path, validation_fraction=0)
    count = classes * len(kind.train_list)
    assert loaded.train.images.shape == (count, 3, 32, 32)
    assert loaded.class_names == tuple(names)
    raw = read(Source(name, tmp_path), "train")
    first = random_bytes(classes, 3, 32, 32, seed=0)  # planes R, G, B
    assert np.array_equal(raw.images[:classes], first)
    assert same(raw, loaded, loaded.train)
    assert len(open_test(loaded)) == classes
    (base / kind.train_list[0][0]).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=f"{name}: files under .* cannot be read"):
        load_dataset(name, root=tmp_path)


def test_svhn_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision import datasets

    sums = {}
    for part, seed in (("train", 3), ("test", 4)):
        path = tmp_path / f"{part}_32x32.mat"
        labels = (np.arange(20) % 10 + 1).astype(np.uint8)[:, None]  # SVHN writes 10 for zero.
        images = random_bytes(20, 3, 32, 32, seed=seed).transpose(2, 3, 1, 0)
        savemat(path, {"X": images, "y": labels})
        sums[part] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", sums)
    loaded = load_dataset("svhn", root=tmp_path, validation_fraction=0)
    raw = read(Source("svhn", tmp_path), "train")
    assert raw.labels.tolist() == [(row + 1) % 10 for row in range(20)]
    assert np.array_equal(raw.images, random_bytes(20, 3, 32, 32, seed=3))
    assert same(raw, loaded, loaded.train)
    assert open_test(loaded).images.shape == (20, 3, 32, 32)


@pytest.mark.parametrize("name", ["mnist", "fashionmnist", "svhn", "cifar10", "cifar100"])
def test_missing_files_are_one_line_with_the_folder_and_the_cure(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        load_dataset(name, root=tmp_path)
    text = str(error.value)
    assert str(tmp_path) in text
    assert "set download: true" in text
    assert "\n" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_does_not_say_set_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ValueError) as error:
        load_dataset("mnist", root=tmp_path, download=True)
    assert "set download" not in str(error.value)
    assert "cannot be read or downloaded" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_process_downloads_and_the_others_wait(tmp_path: Path) -> None:
    """Four readers at once of a set that somebody downloads slowly, piece by piece."""
    code = (
        "import sys, time, pathlib, types\n"
        "import numpy as np\n"
        "from torchvision import datasets\n"
        "class Slow:\n"
        "    classes = tuple('ab')\n"
        "    def __init__(self, root, train, download):\n"
        "        path = pathlib.Path(root, 'images')\n"
        "        if not path.exists():\n"
        "            with path.open('ab') as file:\n"
        "                for k in range(20):\n"
        "                    file.write(bytes((3 * k, k, 7)) * 256); file.flush()\n"
        "                    time.sleep(0.02)\n"
        "        found = np.frombuffer(path.read_bytes(), dtype=np.uint8)\n"
        "        self.data = found.reshape(-1, 16, 16)\n"
        "        self.targets = [0, 1] * (len(self.data) // 2)\n"
        "datasets.MNIST = Slow\n"
        "from iadd.data import load_dataset\n"
        "print(len(load_dataset('mnist', root=sys.argv[1], download=True).class_names))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "new")]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [job.communicate()[0].strip() for job in jobs] == ["2"] * 3
    assert (tmp_path / "new" / "images").stat().st_size == 20 * 768


def test_a_folder_that_nobody_can_write_is_read_with_download_set(tmp_path: Path) -> None:
    labels = np.arange(40, dtype=np.uint8) % 10
    for part, seed in (("train", 1), ("t10k", 2)):
        raw = tmp_path / "MNIST" / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte", random_bytes(40, 28, 28, seed=seed), False)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels, False)
    tmp_path.chmod(0o555)
    try:
        assert len(load_dataset("mnist", root=tmp_path, download=True).class_names) == 10
    finally:
        tmp_path.chmod(0o755)
