"""Image trees: every layout is read whole, or refused, or what was not read is listed."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from image_files import random_bytes, save, tree

from iadd.data import Source, inspect, load_dataset, open_test, stamp
from iadd.data.folder import files_of, layout
from iadd.data.sources import READERS


def seen(root: Path, **options: object) -> int:
    loaded = load_dataset("folder", root=root, **options)
    return len(loaded.train) + len(loaded.validation) + len(open_test(loaded))


def test_a_folder_of_classes(tmp_path: Path) -> None:
    about = inspect(Source("folder", tree(tmp_path, {"b": 40, "a": 20})))
    assert about.class_names == ("a", "b")
    assert (about.channels, about.resolution) == (1, 10)
    assert [sum(counts) for counts in zip(*about.counts.values(), strict=True)] == [20, 40]
    assert about.left_out == ()


def test_folders_are_read_to_every_depth(tmp_path: Path) -> None:
    tree(tmp_path, {"cat": 4, "dog": 4, "cat/patient1": 12, "dog/patient1/left": 12})
    assert seen(tmp_path) == 32


def test_files_beside_a_folder_images_are_read_and_masks_are_listed(tmp_path: Path) -> None:
    tree(tmp_path, {"cat": 12, "cat/images": 4, "dog/images": 10, "dog/lung masks": 10})
    about = inspect(Source("folder", tmp_path))
    assert sum(map(sum, about.counts.values())) == 26
    assert about.left_out == ("train: 1 folder lung masks/ beside images/",)


def test_masks_beside_their_images_are_no_images(tmp_path: Path) -> None:
    """As in ultrasound images of the breast (BUSI): `x.png`, `x_mask.png`, `x_mask_1.png`."""
    tree(tmp_path, {"benign": 12, "with_mask": 12})
    for row in range(3):
        blank = np.zeros((10, 10), np.uint8)
        save(tmp_path / "benign" / f"{row:03d}_mask.png", blank)
        save(tmp_path / "benign" / f"{row:03d}_Segmentation_1.png", blank)
        save(tmp_path / "with_mask" / f"with_mask_{row}.png", random_bytes(10, 10, seed=row))
    about = inspect(Source("folder", tmp_path))
    assert [sum(counts) for counts in zip(*about.counts.values(), strict=True)] == [12, 15]
    assert about.left_out == ("train: 6 masks beside the image of the same name",)


def test_classes_that_their_case_alone_tells_apart_are_remarked_on(tmp_path: Path) -> None:
    source = Source("folder", tree(tmp_path, {"Normal": 9, "covid": 9, "normal": 9}))
    said = "classes 'Normal' and 'normal' differ in upper and lower case alone"
    assert [r for r in inspect(source).remarks if "case" in r] == [said]
    assert len(inspect(source).class_names) == 3  # they are what the folders say


def test_a_class_may_begin_with_an_underscore(tmp_path: Path) -> None:
    tree(tmp_path, {"_fox": 5, "cat": 5, ".hidden": 5, "__MACOSX/cat": 5})
    assert files_of(tmp_path).class_names == ("_fox", "cat")


@pytest.mark.parametrize("suffix", ["jfif", "JPG", "jpe", "tiff", "webp", "pgm"])
def test_suffixes(tmp_path: Path, suffix: str) -> None:
    tree(tmp_path, {"a": 5, "b": 5})
    written = save(tmp_path / "x.jpg", random_bytes(10, 10))
    if suffix in ("tiff", "webp", "pgm"):
        written = save(tmp_path / f"x.{suffix}", random_bytes(10, 10))
    written.rename(tmp_path / "a" / f"more.{suffix}")
    assert seen(tmp_path) == 11


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_a_folder_val_is_read_as_training_images_and_said(tmp_path: Path, name: str) -> None:
    tree(tmp_path, {"train/a": 10, "train/b": 10, f"{name}/a": 6, "test/a": 4, "test/b": 4})
    about = inspect(Source("folder", tmp_path, validation_fraction=0))
    assert sum(about.counts["train"]) == 26
    assert about.counts["test"] == (4, 4)
    assert any(f"images of {name}/ are read as training images" in r for r in about.remarks)


def test_train_and_val_alone_get_a_test_cut(tmp_path: Path) -> None:
    tree(tmp_path, {"train/a": 12, "train/b": 12, "val/a": 12, "val/b": 12})
    assert seen(tmp_path) == 48


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "Testing")])
def test_names_of_splits_are_recognised(tmp_path: Path, train: str, test: str) -> None:
    tree(tmp_path, {f"{train}/a": 9, f"{train}/b": 9, f"{test}/a": 3, f"{test}/b": 4})
    assert inspect(Source("folder", tmp_path)).counts["test"] == (3, 4)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"train/a": 3, "train/b": 3, "test/a": 2}, "class 'b' has no folder in test/"),
        ({"train/a": 3, "train/b": 3, "test": 4}, "test: holds no class folders; images must lie"),
        ({"train/a": 3, "train/b": 3, "val": 4}, "val: holds no class folders"),
        ({"train": 3, "test": 3}, "train: holds no class folders"),
        ({"train/a": 3, "train/b": 3, "val/c": 2}, "class 'c' is not in train/"),
        ({"train/a": 3, "Training/b": 3}, "are both for train"),
        ({"test/a": 3, "val/b": 3}, "but no train/"),
        ({"Training/only": 3, "Testing/only": 3}, "has 1 class folder(s), at least 2"),
        ({"only": 3}, "has 1 class folder(s), at least 2 are needed"),
        ({"a": 3, "empty": 0}, "empty: class 'empty' has no images"),
        ({"train/a": 3, "train/b": 3, "test/a": 3, "test/b": 0}, "class 'b' has no images"),
    ],
)
def test_layouts_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, folders: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        inspect(Source("folder", tree(tmp_path, folders)))
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_passed_over_is_listed(tmp_path: Path) -> None:
    tree(tmp_path, {"a": 5, "b": 5, "a/.cache": 2})
    for name in ("notes.txt", "scan.dcm", "scan2.dcm", ".DS_Store", "README"):
        (tmp_path / "a" / name).write_text("")
    save(tmp_path / "cover.png", random_bytes(4, 4))
    assert inspect(Source("folder", tmp_path)).left_out == (
        "1 image outside the class folders",
        "train: 2 .dcm files",
        "train: 1 .txt file",
        "train: 1 file without a suffix",
        "train: 1 hidden file",
        "train: 1 hidden folder",
    )


def test_folders_beside_train_are_listed(tmp_path: Path) -> None:
    tree(tmp_path, {"train/a": 5, "train/b": 5, "extra/a": 5})
    assert layout(tmp_path).left_out == ("folder extra/ beside train/",)


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    tree(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "up").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(files_of(tmp_path).files) == 10
    assert stamp(Source("folder", tmp_path))


def test_a_truncated_test_image_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    tree(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 3, "test/b": 3})
    broken = tmp_path / "test" / "b" / "001.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"test/b/001\.png: is no readable image"):
        inspect(Source("folder", tmp_path))


def test_a_test_image_of_another_size_is_found(tmp_path: Path) -> None:
    tree(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 3, "test/b": 3})
    save(tmp_path / "test" / "a" / "odd.png", random_bytes(9, 9))
    with pytest.raises(ValueError, match=r"odd\.png: is 9x9 pixels"):
        inspect(Source("folder", tmp_path))


def test_test_images_take_the_form_of_training_images(tmp_path: Path) -> None:
    tree(tmp_path, {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    save(tmp_path / "test" / "a" / "colour.png", random_bytes(10, 10, 3))
    loaded = load_dataset("folder", root=tmp_path)
    assert open_test(loaded).images.shape == (5, 1, 10, 10)


def test_test_images_are_scaled_by_the_training_images(tmp_path: Path) -> None:
    for part, top in (("train", 4000), ("test", 8000)):
        for name in "ab":
            for k in range(3):
                values = np.full((8, 8), k * 10 + (name == "b"), dtype=np.uint16)
                values[0, 0] = top
                save(tmp_path / part / name / f"{k}.png", values)
    about = inspect(Source("folder", tmp_path))
    assert about.values == (0, 4095)
    loaded = load_dataset("folder", root=tmp_path)
    pixels = loaded.transform.invert(open_test(loaded).images)
    assert abs(pixels.max().item() - 8000 / 4095) < 1e-5


def test_the_root_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tree(tmp_path / "pics", {"a": 5, "b": 5})
    assert seen(Path("~/pics")) == 10
    assert stamp(Source("folder", "~/pics")) == stamp(Source("folder", tmp_path / "pics"))


def test_images_too_small_or_large_need_a_resolution(tmp_path: Path) -> None:
    for side, message in ((4, "folder: images are 4x4; give a resolution"), (300, "300x300")):
        root = tree(tmp_path / str(side), {"a": 2, "b": 2}, side)
        with pytest.raises(ValueError, match=message):
            inspect(Source("folder", root))
        assert inspect(Source("folder", root, resolution=8)).resolution == 8


def test_the_stamp_sees_files_come_go_and_change(tmp_path: Path) -> None:
    source = Source("folder", tree(tmp_path, {"a": 3, "b": 3}))
    stamps = [stamp(source)]
    assert stamp(source) == stamps[0]
    (tmp_path / "a" / "000.png").unlink()
    stamps.append(stamp(source))
    save(tmp_path / "a" / "new.png", random_bytes(10, 10))
    stamps.append(stamp(source))
    save(tmp_path / "a" / "new.png", random_bytes(10, 10, seed=1))
    stamps.append(stamp(source))
    assert len(set(stamps)) == 4


def test_the_stamp_sees_that_what_a_link_leads_to_has_changed(tmp_path: Path) -> None:
    files = tree(tmp_path / "files", {"a": 2, "b": 2})
    for file in files.glob("*/*.png"):
        link = tmp_path / "links" / file.relative_to(files)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    source = Source("folder", tmp_path / "links")
    before = stamp(source)
    save(files / "a" / "000.png", random_bytes(11, 11, seed=1))
    assert stamp(source) != before
    (files / "a" / "000.png").unlink()
    assert stamp(source) != before  # a link that leads nowhere is no error here


def test_grey_test_images_of_a_coloured_set_keep_its_channels(tmp_path: Path) -> None:
    """Rule: test images take the form of the training images, also where they need less."""
    for part in ("train", "test"):
        for name, seed in (("a", 0), ("b", 40)):
            for k in range(6):
                pixels = random_bytes(10, 10, 3, seed=seed + k + 20 * (part == "test"))
                if part == "test":
                    pixels = np.repeat(pixels[..., :1], 3, axis=2)
                save(tmp_path / part / name / f"{k}.png", pixels)
    dataset = load_dataset("folder", root=tmp_path)
    assert dataset.channels == open_test(dataset).images.shape[1] == 3


def test_the_reader_of_the_contributing_page_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
    code = page.split("## A new data set")[1].split("```python\n")[1].split("```")[0]
    room: dict[str, Any] = {}
    exec(dedent("   " + code.lstrip()), room)
    monkeypatch.setitem(READERS, "folder", room["read"])
    tree(tmp_path / "train", {"0_sick": 12, "1_well": 14})
    with pytest.raises(ValueError, match="test: no folder <number>_<class>; see https"):
        inspect(Source("folder", tmp_path))
    tree(tmp_path / "test", {"0_sick": 3, "1_well": 2}, seed=900)
    about = inspect(Source("folder", tmp_path))
    assert about.class_names == ("sick", "well") and about.counts["test"] == (3, 2)
    assert sum(about.counts["train"]) + sum(about.counts["validation"]) == 26
