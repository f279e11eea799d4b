"""Data are cut honestly, normalised by the training images, and have an identity."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import random_bytes, save, tree

from iadd import data
from iadd.data import (
    Dataset,
    Source,
    Split,
    Transform,
    inspect,
    load_dataset,
    open_dataset,
    open_test,
    prepare,
    read_about,
)
from iadd.data.assemble import UNEVEN
from iadd.data.transform import fit
from iadd.evaluation.scores import IMBALANCED


def pixels_of(dataset: Dataset, split: Split) -> torch.Tensor:
    return dataset.transform.invert(split.images)


def rows_of(split: Split) -> set[tuple[float, ...]]:
    return {tuple(row) for row in split.images.flatten(1).tolist()}


# --- cuts -----------------------------------------------------------------------------------------


def test_digits_are_the_real_ones_in_three_parts() -> None:
    from sklearn.datasets import load_digits

    digits = load_dataset("digits")
    test = open_test(digits)
    assert (len(digits.train) + len(digits.validation), len(test)) == (1347, 450)
    assert abs(len(digits.validation) - 200) < 30
    assert (digits.classes, digits.channels, digits.resolution) == (10, 1, 8)
    splits = (digits.train, digits.validation, test)
    for split in splits:
        assert split.images.dtype == torch.float32
        assert split.labels.dtype == torch.int64
    found = torch.cat([16 * pixels_of(digits, split) for split in splits]).round()
    rows = torch.cat([found.flatten(1), torch.cat([s.labels for s in splits])[:, None].float()], 1)
    images, labels = load_digits(return_X_y=True)
    truth = np.concatenate([images, labels[:, None]], 1)
    # The multiset of (image, label) is scikit-learn's: nothing lost, twice, or under another label.
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, truth.tolist()))


def test_the_cuts_of_digits_are_those_of_every_other_run() -> None:
    """These values change only with a new SPEC version: published results depend on them."""
    digits = load_dataset("digits")
    assert digits.fingerprint == DIGITS
    test = (16 * pixels_of(digits, open_test(digits))).round().to(torch.uint8).numpy()
    assert hashlib.sha256(test.tobytes()).hexdigest() == DIGITS_TEST


def test_digits_do_not_depend_on_the_library_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert load_dataset("digits").fingerprint == DIGITS


def test_seeds_move_validation_but_never_test(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": 40, "b": 40})
    for options in ({"name": "digits"}, {"name": "folder", "root": root}):
        first, again, other = (load_dataset(seed=seed, **options) for seed in (0, 0, 1))
        assert torch.equal(first.train.images, again.train.images)
        assert first.fingerprint == again.fingerprint != other.fingerprint
        tests = [open_test(dataset, Transform()).images for dataset in (first, other)]
        assert torch.equal(*tests)


def test_removing_an_image_moves_no_other_into_or_out_of_the_test(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": 60, "b": 60})
    before = open_test(load_dataset("folder", root=root), Transform())
    for path in sorted(root.glob("*/00*.png")):
        path.unlink()
    after = load_dataset("folder", root=root)
    assert rows_of(open_test(after, Transform())) <= rows_of(before)
    for split in (after.train, after.validation):
        kept = Split(after.transform.invert(split.images), split.labels)
        assert not rows_of(before) & rows_of(kept)


def test_the_test_cut_does_not_depend_on_names_resolution_or_channels(tmp_path: Path) -> None:
    root = tree(tmp_path / "first", {"a": 30, "b": 30}, side=16)
    other = tmp_path / "other"
    shutil.copytree(root, other)
    for number, path in enumerate(sorted(other.glob("*/*.png"), reverse=True)):
        path.rename(path.with_name(f"x{number}.png"))
    first = load_dataset("folder", root=root)
    assert load_dataset("folder", root=other).fingerprint == first.fingerprint
    counts = inspect(Source("folder", root)).counts
    for options in ({"resolution": 8}, {"channels": 3}, {"zca": True}):
        found = inspect(Source("folder", root, **options))
        assert found.counts == counts
        assert found.fingerprint != first.fingerprint


def test_a_test_image_that_is_also_a_training_image_is_said(tmp_path: Path) -> None:
    tree(tmp_path, {"train/a": 9, "train/b": 9, "test/a": 3, "test/b": 3})
    shutil.copy(tmp_path / "train/a/000.png", tmp_path / "test/a/copy.png")
    remarks = inspect(Source("folder", tmp_path)).remarks
    assert "1 of 7 test images are training images too" in remarks


def test_an_image_under_two_classes_is_said(tmp_path: Path) -> None:
    tree(tmp_path, {"ant": 9, "bee": 9, "cat": 9})
    assert not inspect(Source("folder", tmp_path)).remarks
    shutil.copy(tmp_path / "cat/000.png", tmp_path / "ant/copy.png")
    remark = "1 image stands under several classes, like 'ant' and 'cat'"
    assert remark in inspect(Source("folder", tmp_path)).remarks
    shutil.copy(tmp_path / "bee/000.png", tmp_path / "ant/another.png")
    remark = "2 images stand under several classes, like 'ant' and 'bee'"
    assert remark in inspect(Source("folder", tmp_path)).remarks


def test_every_class_of_three_has_images_in_all_parts(tmp_path: Path) -> None:
    for number in range(8):
        folders = {"common": 40, "rare": 3, "pair": 2}
        about = inspect(Source("folder", tree(tmp_path / str(number), folders, seed=7 * number)))
        assert all(counts[0] and counts[2] for counts in about.counts.values())
        assert [about.counts[part][1] for part in ("train", "validation", "test")] == [1, 0, 1]
        assert "class 'pair' has no validation image" in about.remarks


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
    assert not rows_of(open_test(digits)) & (rows_of(digits.train) | rows_of(digits.validation))


def test_blobs_can_be_learned_and_are_small() -> None:
    blobs = load_dataset("blobs")
    test = open_test(blobs)
    assert (blobs.classes, blobs.channels, blobs.resolution) == (4, 1, 8)
    assert (len(blobs.train) + len(blobs.validation), len(test)) == (160, 80)
    means = torch.stack([blobs.train.images[rows].mean(0) for rows in blobs.class_rows])
    nearest = torch.cdist(test.images.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == test.labels).float().mean() > 0.95


def test_validation_may_be_left_empty() -> None:
    whole = load_dataset("digits", validation_fraction=0)
    assert (len(whole.train), len(whole.validation)) == (1347, 0)
    assert whole.validation.images.shape == (0, 1, 8, 8)


# --- checks ---------------------------------------------------------------------------------------


def test_a_class_that_would_never_be_tested_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, {"common": 60, "rare": 1})
    with pytest.raises(ValueError, match="class 'rare' has no test image: of 1 in all"):
        inspect(Source("folder", tmp_path))
    save(tmp_path / "rare" / "again.png", random_bytes(10, 10, seed=1000))  # The same image.
    with pytest.raises(ValueError, match="class 'rare' has no test image"):
        inspect(Source("folder", tmp_path))
    save(tmp_path / "rare" / "other.png", random_bytes(10, 10, seed=2000))
    assert inspect(Source("folder", tmp_path)).counts["test"][1] >= 1


def test_of_many_classes_the_rarest_are_listed(tmp_path: Path) -> None:
    about = inspect(Source("folder", tree(tmp_path, {f"c{k:02d}": 4 + k % 9 for k in range(30)})))
    lines = about.lines()
    assert lines[22] == "and 10 classes with more training images"
    listed = [int(line.split()[1]) for line in lines[2:22]]
    assert listed == sorted(about.counts["train"])[:20]


def test_imbalance_is_said(tmp_path: Path) -> None:
    about = inspect(Source("folder", tree(tmp_path, {"common": 60, "rare": 7})))
    assert "imbalanced: largest class 60, smallest 7; read balanced accuracy" in about.lines()
    assert UNEVEN == IMBALANCED  # what the data stage tells is what the tables do
    assert not inspect(Source("digits")).remarks


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imagenet", {}, "unknown dataset 'imagenet'; known: digits, blobs, mnist"),
        ("digits", {"resolution": 4}, "digits: resolution 4 does not fit, 8 to 256"),
        ("digits", {"resolution": 300}, "digits: resolution 300 does not fit"),
        ("digits", {"augmentation": ("mirror",)}, "augmentation family 'mirror': allowed are"),
        ("digits", {"validation_fraction": 0.7}, "validation_fraction is 0.7, must be in 0..0.5"),
        ("folder", {"test_fraction": 0.0}, "test_fraction is 0.0, must be above 0, up to 0.5"),
        ("digits", {"channels": 3}, "digits: channels can be set for folder, arrays, covid19 only"),
        ("folder", {"channels": 2}, "folder: channels 2: allowed are 1 and 3"),
        ("cifar10", {}, "cifar10: needs root"),
        ("folder", {"root": "nowhere"}, "nowhere: no such folder of images"),
        ("folder", {}, "folder: needs root"),
    ],
)
def test_a_bad_argument_is_one_line(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        load_dataset(name, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_messages_call_data_by_their_label(tmp_path: Path) -> None:
    """Rule: two folders of images in one benchmark are told apart; what they are has no label."""
    root = tree(tmp_path / "images", {"ill": 12, "well": 12})
    with pytest.raises(ValueError, match="xrays: positive 'sick' is no class"):
        inspect(Source("folder", root, positive="sick", label="xrays"))
    with pytest.raises(ValueError, match="xrays: resolution 4 does not fit"):
        Source("folder", root, resolution=4, label="xrays")
    plain = prepare(Source("folder", root), tmp_path / "1")
    named = prepare(Source("folder", root, label="xrays"), tmp_path / "2")
    assert named.lines()[0].startswith("xrays: ") and plain.lines()[0].startswith("folder: ")
    assert (tmp_path / "1/about.json").read_bytes() == (tmp_path / "2/about.json").read_bytes()
    opened = open_dataset(tmp_path / "2")
    assert (opened.title, opened.name, read_about(tmp_path / "2").title) == (
        "xrays", "folder", "xrays"
    )  # fmt: skip


def test_a_positive_class_is_one_of_the_classes_and_no_part_of_the_data(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", {"ill": 12, "well": 12})
    with pytest.raises(ValueError, match="folder: positive 'sick' is no class; known: ill, well"):
        inspect(Source("folder", root, positive="sick"))
    for folder, positive in (("1", None), ("2", "ill")):
        about = prepare(Source("folder", root, positive=positive), tmp_path / folder)
        assert about.positive == read_about(tmp_path / folder).positive == positive
        assert open_dataset(tmp_path / folder).positive == positive
    assert "positive class: ill" in about.lines()
    first, second = ((tmp_path / folder / "about.json").read_bytes() for folder in "12")
    assert first == second  # nothing that was made from the data is made again
    assert load_dataset("folder", root=root, positive="well").positive == "well"


def test_zca_of_too_many_features_is_found_by_a_plan(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": 3, "b": 3}, side=16)
    with pytest.raises(ValueError, match="folder: zca: images have 12288 features, at most 4096"):
        inspect(Source("folder", root, resolution=64, channels=3, zca=True))


# --- the transform is that of the training images -------------------------------------------------


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


def test_test_images_go_under_another_transform() -> None:
    blobs, white = load_dataset("blobs"), load_dataset("blobs", zca=True)
    other = fit("zca", pixels_of(blobs, blobs.train))
    assert torch.allclose(open_test(blobs, other).images, open_test(white).images, atol=1e-5)


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
    assert load_dataset("blobs", augmentation=("flip",)).augmentation.families == ("flip",)


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


DIGITS = "f4de17bf1c760ce7aaac92f9180168a82ede5331aca8fd04f6bb547949d83d16"
DIGITS_TEST = "28bbad38d97cb63c5c86fb92962ea2d3de6b5bedba14d3c49d6a2f0ce489fe45"
