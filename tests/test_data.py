"""Splits are honest, transforms fitted on train and invertible, files that do not fit named."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from iadd import data
from iadd.data import Transform, folder, load_dataset, open_test
from iadd.data.sources import stratified
from iadd.data.transform import fit

Tree = Callable[[dict[str, int]], Path]


def pixels_of(dataset: data.Dataset, split: data.Split) -> torch.Tensor:
    return dataset.transform.invert(split.images)


# --- splits ---------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=80), st.floats(0, 0.5), st.integers(0, 9))
def test_a_cut_is_disjoint_complete_stratified_and_repeatable(
    drawn: list[int], share: float, seed: int
) -> None:
    labels = np.array([0, 1, 2, 3, 4, *drawn])
    size = round(share * len(labels))
    rest, cut = stratified(labels, size, seed)
    assert sorted([*rest, *cut]) == list(range(len(labels)))
    counts, taken = np.bincount(labels), np.bincount(labels[cut], minlength=5)
    assert len(cut) <= size
    assert ((counts - taken) >= 1).all()
    assert (np.abs(taken - counts * size / len(labels)) < 1).all() or (taken == counts - 1).any()
    again = stratified(labels, size, seed)
    assert np.array_equal(rest, again[0])
    assert np.array_equal(cut, again[1])


def test_a_cut_has_the_size_asked_for_and_moves_with_the_seed() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 21])
    cuts = [stratified(labels, 17, seed)[1] for seed in range(3)]
    assert {len(cut) for cut in cuts} == {17}
    assert not np.array_equal(cuts[0], cuts[1])


def test_the_cut_takes_every_row_about_equally_often() -> None:
    labels = np.repeat([0, 1], [10, 20])
    times = np.zeros(30)
    for seed in range(600):
        times[stratified(labels, 15, seed)[1]] += 1
    assert times.min() > 240
    assert times.max() < 360


def test_digits_are_the_real_ones_in_three_fixed_parts() -> None:
    from sklearn.datasets import load_digits

    digits = load_dataset("digits")
    test = open_test(digits)
    assert (len(digits.train), len(digits.validation), len(test)) == (1147, 200, 450)
    assert (digits.classes, digits.channels, digits.resolution) == (10, 1, 8)
    for split in (digits.train, digits.validation, test):
        share = split.labels.bincount() / len(split)
        assert ((share - 0.1).abs() < 0.005).all()
        assert split.images.dtype == torch.float32
        assert split.labels.dtype == torch.int64
    splits = (digits.train, digits.validation, test)
    found = torch.cat([16 * pixels_of(digits, split) for split in splits]).round()
    rows = torch.cat([found.flatten(1), torch.cat([s.labels for s in splits])[:, None].float()], 1)
    images, labels = load_digits(return_X_y=True)
    truth = np.concatenate([images, labels[:, None]], 1)
    # The multiset of (image, label) is scikit-learn's: nothing lost, twice, or under another label.
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, truth.tolist()))


def test_the_fixed_split_of_digits_is_the_one_of_every_other_run() -> None:
    """These values change only with a new SPEC version: published results depend on them."""
    digits = load_dataset("digits")
    assert digits.fingerprint == DIGITS
    test = (16 * pixels_of(digits, open_test(digits))).round().to(torch.uint8).numpy()
    assert hashlib.sha256(test.tobytes()).hexdigest() == DIGITS_TEST


def test_digits_do_not_depend_on_the_library_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert load_dataset("digits").fingerprint == DIGITS


def test_seeds_move_validation_but_never_test() -> None:
    first, again, other = (load_dataset("digits", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.images, again.train.images)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert not torch.equal(first.validation.images, other.validation.images)
    tests = [open_test(dataset, Transform()).images for dataset in (first, other)]
    assert torch.equal(*tests)


def test_no_global_generator_is_read_or_touched() -> None:
    prints = set()
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is what is under test
        torch.manual_seed(seed)
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
        for name in ("digits", "blobs"):
            dataset = load_dataset(name, zca=name == "blobs")
            prints.add((name, dataset.fingerprint, open_test(dataset).images.sum().item()))
        after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
        assert before[:2] == after[:2]
        assert torch.equal(before[2], after[2])
    assert len(prints) == 2


def test_the_test_split_is_nowhere_in_a_dataset() -> None:
    digits = load_dataset("digits")
    assert not hasattr(digits, "test")
    held = {tuple(row) for row in open_test(digits).images.flatten(1).tolist()}
    seen = torch.cat([digits.train.images, digits.validation.images]).flatten(1)
    assert not held & {tuple(row) for row in seen.tolist()}


def test_blobs_can_be_learned_and_are_small() -> None:
    blobs = load_dataset("blobs")
    test = open_test(blobs)
    assert (blobs.classes, blobs.channels, blobs.resolution) == (4, 1, 8)
    assert (len(blobs.train), len(blobs.validation), len(test)) == (144, 16, 80)
    means = torch.stack([blobs.train.images[rows].mean(0) for rows in blobs.class_rows])
    nearest = torch.cdist(test.images.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == test.labels).float().mean() > 0.95


def test_validation_may_be_left_empty() -> None:
    whole = load_dataset("digits", validation_fraction=0)
    assert (len(whole.train), len(whole.validation)) == (1347, 0)
    assert whole.validation.images.shape == (0, 1, 8, 8)


def test_the_fingerprint_sees_resolution_and_whitening() -> None:
    prints = [
        load_dataset("blobs", **options).fingerprint  # type: ignore[arg-type]
        for options in ({}, {"resolution": 16}, {"zca": True}, {"resolution": 8})
    ]
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3


def test_a_resolution_resizes_all_splits() -> None:
    blobs = load_dataset("blobs", resolution=16)
    assert blobs.train.images.shape[1:] == open_test(blobs).images.shape[1:] == (1, 16, 16)
    pixels = pixels_of(blobs, blobs.train)
    assert pixels.min() > -1e-5
    assert pixels.max() < 1 + 1e-5


def test_what_must_not_be_mirrored_is_not() -> None:
    for name in ("digits", "mnist", "svhn", "blobs", "folder"):
        assert "flip" not in data.AUGMENTATIONS[name]
    assert "flip" in data.AUGMENTATIONS["cifar10"]
    assert set(data.AUGMENTATIONS) == set(data.DATASETS)
    assert load_dataset("blobs", augmentations=("flip",)).augmentations == ("flip",)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imagenet", {}, "unknown dataset 'imagenet'; known: digits, blobs, mnist"),
        ("digits", {"resolution": 4}, "digits: resolution 4 does not fit, 8 to 256"),
        ("digits", {"resolution": 300}, "digits: resolution 300 does not fit"),
        ("digits", {"augmentations": ("mirror",)}, "augmentations: unknown 'mirror'; known: color"),
        ("digits", {"validation_fraction": 0.7}, "validation_fraction is 0.7, must be in 0..0.5"),
        ("digits", {"channels": 3}, "digits: channels can be set for 'folder' only"),
        ("cifar10", {}, "cifar10: needs root"),
        ("folder", {"root": "nowhere"}, "nowhere: no such folder of images"),
        ("folder", {}, "folder: needs root"),
    ],
)
def test_a_bad_argument_is_one_line(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        load_dataset(name, **options)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_heavy_libraries_are_not_imported_for_digits() -> None:
    code = (
        "import sys; from iadd.data import load_dataset, open_test; "
        "open_test(load_dataset('digits')); "
        "print([m for m in ('torchvision', 'sklearn', 'scipy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(data.__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"


# --- transforms -----------------------------------------------------------------------------------


def test_standard_statistics_are_those_of_train_alone() -> None:
    digits = load_dataset("digits")
    pixels = pixels_of(digits, digits.train).double()
    every = torch.cat([pixels, pixels_of(digits, digits.validation)])
    mean = digits.transform.mean
    assert mean is not None
    assert abs(mean.item() - pixels.mean().item()) < 1e-7
    assert abs(mean.item() - every.mean().item()) > 1e-5
    assert abs(digits.train.images.double().mean()) < 1e-6
    assert abs(digits.train.images.double().std(correction=0) - 1) < 1e-6


def test_standard_is_by_channel_and_leaves_a_constant_channel_alone() -> None:
    pixels = torch.stack([torch.tensor([0.0, 0.5, 1.0, 0.5]), torch.full((4,), 0.3)])
    pixels = pixels.T.reshape(4, 2, 1, 1)
    transform = fit("standard", pixels)
    assert transform.mean is not None
    assert transform.std is not None
    assert transform.mean.tolist() == pytest.approx([0.5, 0.3])
    assert transform.std.tolist() == pytest.approx([0.125**0.5, 1.0])
    assert transform.apply(pixels)[:, 1].abs().max() < 1e-6


def test_zca_by_hand() -> None:
    """Two opposite points: variance 1 along (1, -1)/sqrt 2, none along (1, 1)/sqrt 2."""
    pixels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
    transform = fit("zca", pixels)
    along, across = 1.1**-0.5, 0.1**-0.5
    expected = [[(along + across) / 2, (across - along) / 2]]
    expected.append(expected[0][::-1])
    assert transform.matrix is not None
    assert torch.allclose(transform.matrix, torch.tensor(expected), atol=1e-6)
    white = transform.apply(pixels).flatten(1)
    assert torch.allclose(white, torch.tensor([[0.5, -0.5], [-0.5, 0.5]]) * along, atol=1e-6)


def test_zca_against_float64_by_another_road() -> None:
    """Singular values of the centred data instead of eigenvalues of the covariance."""
    digits = load_dataset("digits", zca=True)
    x = (16 * pixels_of(digits, digits.train)).round().flatten(1).double().numpy() / 16
    centred = x - x.mean(0)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    variance = singular**2 / (len(x) - 1)
    white = centred @ vectors.T / np.sqrt(variance + 0.1) @ vectors
    found = digits.train.images.flatten(1).double().numpy()
    assert np.abs(found - white).max() < 2e-5
    # What is left of each direction's variance s is s / (s + eps).
    left = np.linalg.eigvalsh(np.cov(found.T))
    assert np.allclose(np.sort(left), np.sort(variance / (variance + 0.1)), atol=1e-4)


@pytest.mark.parametrize("zca", [False, True])
def test_the_inverse_is_exact_also_outside_the_range_of_pixels(zca: bool) -> None:
    digits = load_dataset("digits", zca=zca)
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    back = digits.transform.apply(digits.transform.invert(images))
    assert (back - images).abs().max() < 1e-5
    pixels = 16 * pixels_of(digits, digits.train)
    assert (pixels - pixels.round()).abs().max() < 1e-4


@pytest.mark.parametrize("zca", [False, True])
def test_a_transform_kept_as_tensors_acts_the_same_bit_for_bit(zca: bool) -> None:
    blobs = load_dataset("blobs", zca=zca)
    copy = Transform.from_tensors(blobs.transform.kind, blobs.transform.tensors())
    pixels = pixels_of(blobs, blobs.train)
    assert torch.equal(copy.apply(pixels), blobs.transform.apply(pixels))
    assert torch.equal(copy.invert(blobs.train.images), pixels)


def test_transforms_are_differentiable_and_keep_double() -> None:
    for zca in (False, True):
        pixels = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        transform = fit("zca" if zca else "standard", pixels)
        pixels = pixels[:2].double().requires_grad_()
        assert torch.autograd.gradcheck(transform.apply, (pixels,))
        assert torch.autograd.gradcheck(transform.invert, (pixels,))


def test_a_dataset_goes_under_another_transform_and_back() -> None:
    blobs = load_dataset("blobs")
    other = fit("zca", pixels_of(blobs, blobs.train))
    moved = blobs.under(other)
    assert torch.allclose(
        moved.train.images, load_dataset("blobs", zca=True).train.images, atol=1e-5
    )
    assert torch.allclose(moved.under(blobs.transform).train.images, blobs.train.images, atol=1e-5)
    assert torch.allclose(open_test(blobs, other).images, open_test(moved).images)


def test_a_given_transform_is_used_instead_of_fitting() -> None:
    given_one = Transform("standard", mean=torch.tensor([0.5]), std=torch.tensor([2.0]))
    blobs = load_dataset("blobs", transform=given_one)
    assert blobs.transform is given_one
    assert blobs.train.images.abs().max() <= 0.25


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Transform("pca"), "unknown kind 'pca'; known: standard, zca, none"),
        (lambda: Transform("standard", mean=torch.zeros(1)), r"needs \['mean', 'std'\]"),
        (lambda: Transform.from_tensors("none", {"x": torch.zeros(1)}), "unknown tensor 'x'"),
        (lambda: fit("zca", torch.rand(3, 3, 64, 64)), "12288 features, at most 4096"),
        (lambda: fit("standard", torch.rand(0, 1, 8, 8)), "no images"),
        (lambda: fit("zca", torch.rand(1, 1, 8, 8)), "at least 2"),
        (
            lambda: load_dataset("blobs").transform.apply(torch.rand(2, 3, 8, 8)),
            "fitted on 1 channels",
        ),
        (
            lambda: load_dataset("blobs", zca=True).transform.invert(torch.rand(2, 1, 9, 9)),
            "fitted on 64 features",
        ),
        (lambda: Transform().apply(torch.zeros(2, 8, 8)), "must be floating"),
    ],
)
def test_a_transform_that_does_not_fit_is_one_line(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- torchvision's file formats -------------------------------------------------------------------


def random_bytes(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


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
    assert loaded.train.labels.tolist() == labels.tolist()
    expected = torch.from_numpy(random_bytes(40, 1, 28, 28, seed=1)).float()
    assert torch.allclose(255 * pixels_of(loaded, loaded.train), expected, atol=1e-3)
    test = open_test(loaded, Transform())
    assert torch.equal(
        255 * test.images, torch.from_numpy(random_bytes(40, 1, 28, 28, seed=2)) * 1.0
    )
    assert len(loaded.class_names) == 10
    assert load_dataset(name, root=tmp_path, resolution=32, validation_fraction=0).resolution == 32


@pytest.mark.parametrize("hundred", [False, True])
def test_cifar_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hundred: bool) -> None:
    from torchvision import datasets

    kind = datasets.CIFAR100 if hundred else datasets.CIFAR10
    base, classes = tmp_path / kind.base_folder, 100 if hundred else 10
    base.mkdir()
    key = "fine_labels" if hundred else "labels"

    def written(listed: list[list[str]], seed: int) -> list[list[str]]:
        sums = []
        for number, (name, _) in enumerate(listed):
            labels = [row % classes for row in range(classes)]
            batch = {"data": random_bytes(classes, 3072, seed=seed + number), key: labels}
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

    name = "cifar100" if hundred else "cifar10"
    loaded = load_dataset(name, root=tmp_path, validation_fraction=0)
    count = classes * len(kind.train_list)
    assert loaded.train.images.shape == (count, 3, 32, 32)
    assert loaded.class_names == tuple(names)
    first = torch.from_numpy(random_bytes(classes, 3, 32, 32, seed=0)).float()  # planes R, G, B
    assert torch.allclose(255 * pixels_of(loaded, loaded.train)[:classes], first, atol=1e-3)
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
    assert loaded.train.labels.tolist() == [(row + 1) % 10 for row in range(20)]
    expected = torch.from_numpy(random_bytes(20, 3, 32, 32, seed=3)).float()
    assert torch.allclose(255 * pixels_of(loaded, loaded.train), expected, atol=1e-3)
    assert open_test(loaded).images.shape == (20, 3, 32, 32)


@pytest.mark.parametrize("name", ["mnist", "fashionmnist", "svhn", "cifar10", "cifar100"])
def test_missing_files_are_one_line_with_the_folder_and_the_cure(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        load_dataset(name, root=tmp_path)
    text = str(error.value)
    assert str(tmp_path) in text
    assert "download" in text
    assert "\n" not in text
    assert list(tmp_path.iterdir()) == []


# --- folders of images ----------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Write grey 10x10 PNG files: {folder: how many}."""

    def write(folders: dict[str, int]) -> Path:
        for number, (name, count) in enumerate(folders.items()):
            (tmp_path / name).mkdir(parents=True)
            for row in range(count):
                pixels = random_bytes(10, 10, seed=100 * number + row)
                Image.fromarray(pixels).save(tmp_path / name / f"{row:03d}.png")
        return tmp_path

    return write


def test_a_folder_of_classes(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree({"b": 20, "a": 10, ".hidden": 3})
    (root / "a" / "notes.txt").write_text("no image")
    decoded: list[list[Path]] = []
    decode = folder.decode
    monkeypatch.setattr(
        folder, "decode", lambda files, *rest: decoded.append(list(files)) or decode(files, *rest)
    )
    loaded = load_dataset("folder", root=root)
    assert loaded.class_names == ("a", "b")
    assert (loaded.channels, loaded.resolution) == (1, 10)
    assert (len(loaded.train), len(loaded.validation)) == (22, 2)
    seen = list(decoded)
    test = open_test(loaded, Transform())
    assert test.labels.tolist() == [0] * 2 + [1] * 4
    assert len(seen) == 1
    assert not set(seen[0]) & set(decoded[-1])  # Test images had not even been decoded.
    assert len({*seen[0], *decoded[-1]}) == 30
    first = torch.from_numpy(np.asarray(Image.open(decoded[-1][0])).copy())
    assert torch.equal((255 * test.images[0, 0]).round(), first.float())


def test_a_folder_with_train_and_test(tree: Tree) -> None:
    root = tree({"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 4})
    loaded = load_dataset("folder", root=root, validation_fraction=0.2)
    assert (len(loaded.train), len(loaded.validation)) == (16, 4)
    assert open_test(loaded).labels.tolist() == [0] * 3 + [1] * 4


def test_a_folder_with_train_alone_gets_a_cut(tree: Tree) -> None:
    root = tree({"train/a": 10, "train/b": 10})
    loaded = load_dataset("folder", root=root, test_fraction=0.5, validation_fraction=0)
    assert (len(loaded.train), len(open_test(loaded))) == (10, 10)


def test_masks_beside_images_are_left_out(tree: Tree) -> None:
    root = tree({"COVID/images": 5, "COVID/masks": 5, "Normal/images": 5, "Normal/masks": 5})
    (root / "README.txt").write_text("about")
    loaded = load_dataset("folder", root=root, validation_fraction=0)
    assert loaded.class_names == ("COVID", "Normal")
    assert len(loaded.train) + len(open_test(loaded)) == 10


def test_sizes_that_differ_need_a_resolution(tree: Tree) -> None:
    root = tree({"a": 5, "b": 5})
    Image.new("L", (12, 10)).save(root / "b" / "odd.png")
    with pytest.raises(
        ValueError, match=r"odd\.png: is 12x10 pixels, 000\.png 10x10; give a resol"
    ):
        load_dataset("folder", root=root, test_fraction=0)
    loaded = load_dataset("folder", root=root, resolution=8)
    assert loaded.resolution == open_test(loaded).images.shape[-1] == 8


def test_an_image_is_cropped_about_its_centre(tmp_path: Path) -> None:
    wide = np.zeros((8, 24), dtype=np.uint8)
    wide[:, 8:16] = 200
    image = folder.decode([saved(tmp_path / "wide.png", wide)], resolution=8)
    assert (image == 200).all()


def saved(path: Path, pixels: NDArray[np.uint8 | np.uint16]) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_colours_are_found_or_asked_for(tree: Tree) -> None:
    root = tree({"a": 6, "b": 6})
    grey = np.repeat(random_bytes(10, 10, 1), 3, axis=2)
    Image.fromarray(grey).save(root / "a" / "grey_as_rgb.png")
    options = {"root": root, "validation_fraction": 0, "test_fraction": 0}
    assert load_dataset("folder", **options).channels == 1
    assert load_dataset("folder", channels=3, **options).channels == 3
    Image.fromarray(random_bytes(10, 10, 3)).save(root / "a" / "zz_colour.png")
    coloured = load_dataset("folder", **options)
    assert coloured.channels == 3
    pixels = 255 * pixels_of(coloured, coloured.train)
    assert torch.allclose(pixels[6], torch.from_numpy(grey).permute(2, 0, 1).float(), atol=1e-3)
    assert load_dataset("folder", channels=1, **options).channels == 1
    with pytest.raises(ValueError, match="channels: 2 is not allowed, only 1 or 3"):
        load_dataset("folder", channels=2, **options)


def test_the_test_images_follow_the_channels_of_train(tree: Tree) -> None:
    root = tree({"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    Image.fromarray(random_bytes(10, 10, 3)).save(root / "test" / "a" / "colour.png")
    assert open_test(load_dataset("folder", root=root)).images.shape == (5, 1, 10, 10)


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    assert np.array_equal(folder.decode([saved(tmp_path / "deep.png", values)])[0, 0], values >> 8)


def test_an_empty_class_is_named(tree: Tree) -> None:
    root = tree({"a": 3, "empty": 0})
    with pytest.raises(ValueError, match="empty: class 'empty' has no images"):
        load_dataset("folder", root=root)


def test_one_class_is_too_few(tree: Tree) -> None:
    with pytest.raises(ValueError, match=r"has 1 class folder\(s\), at least 2 are needed"):
        load_dataset("folder", root=tree({"only": 3}))


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_image_is_named(tree: Tree, content: bytes | None) -> None:
    root = tree({"a": 3, "b": 3})
    whole = (root / "a" / "000.png").read_bytes()
    (root / "b" / "broken.png").write_bytes(whole[:-40] if content is None else content)
    with pytest.raises(ValueError, match=r"broken\.png: is no readable image") as error:
        load_dataset("folder", root=root, test_fraction=0)
    assert "\n" not in str(error.value)


def test_classes_of_train_and_test_must_agree(tree: Tree) -> None:
    root = tree({"train/a": 3, "train/b": 3, "test/a": 3, "test/c": 3})
    with pytest.raises(ValueError, match="class 'b' is not in both train and test"):
        open_test(load_dataset("folder", root=root))


def test_images_too_small_or_large_need_a_resolution(tmp_path: Path) -> None:
    for side, message in ((4, "folder: images are 4x4; give a resolution"), (300, "300x300")):
        for name in ("a", "b"):
            (tmp_path / str(side) / name).mkdir(parents=True)
            for row in range(2):
                Image.new("L", (side, side)).save(tmp_path / str(side) / name / f"{row}.png")
        with pytest.raises(ValueError, match=message):
            load_dataset("folder", root=tmp_path / str(side))
        assert load_dataset("folder", root=tmp_path / str(side), resolution=8).resolution == 8


def test_a_test_set_without_images_is_refused_when_opened(tree: Tree) -> None:
    loaded = load_dataset("folder", root=tree({"a": 3, "b": 3}), test_fraction=0)
    with pytest.raises(ValueError, match="has no test images; raise test_fraction"):
        open_test(loaded)


DIGITS = "9a5e49bfb4687b101c16f81c402087c11ed103197ebe59f970c73919fccc66f0"
DIGITS_TEST = "12de12c15077dfd7d0357f013eacf61e850232fff1e22131d202ac8d135ef9e9"
