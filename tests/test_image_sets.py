"""Tiny ImageNet, ten classes of ImageNet and COVID-19 radiographs, in their files' layouts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import random_bytes, save, tree

from iadd.data import Source, inspect, load_dataset, open_test, stamp
from iadd.data.catalog import IMAGENET
from iadd.data.image_sets import COVID_CLASSES, SUBSETS
from iadd.data.sources import read

WNIDS = ("n03", "n01", "n02")  # As published, in no order.


def tiny(root: Path, each: int = 4) -> Path:
    """Tiny ImageNet's layout: three classes, one grey image among the coloured ones."""
    for number, wnid in enumerate(WNIDS):
        for k in range(each):
            pixels = random_bytes(64, 64, 3, seed=100 * number + k)
            pixels = pixels[..., 0] if k == number == 0 else pixels
            save(root / "train" / wnid / "images" / f"{wnid}_{k}.JPEG", pixels)
            save(root / "test" / "images" / f"test_{number}{k}.JPEG", pixels)  # Without labels.
        boxes = "".join(f"{wnid}_{k}.JPEG\t0\t0\t63\t63\n" for k in range(each))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    lines = []
    for k in range(6):
        save(root / "val" / "images" / f"val_{k}.JPEG", random_bytes(64, 64, 3, seed=900 + k))
        lines.append(f"val_{k}.JPEG\t{WNIDS[k % 3]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    words = "n00\tentity\nn01\tegg, ovum\nn02\tfox\nn03\tcrane, lifting machine\n"
    (root / "words.txt").write_text(words)
    return root


def test_tiny_imagenet_has_its_own_parts_and_sorted_classes(tmp_path: Path) -> None:
    about = inspect(Source("tinyimagenet", tiny(tmp_path)))
    assert about.class_names == ("egg", "fox", "crane")
    assert (about.channels, about.resolution) == (3, 64)
    assert about.counts["test"] == (2, 2, 2)
    trained = zip(about.counts["train"], about.counts["validation"], strict=True)
    assert [sum(counts) for counts in trained] == [4, 4, 4]
    assert about.left_out == about.notes == ()
    raw = read(Source("tinyimagenet", tmp_path), "test")
    assert raw is not None
    assert raw.labels.tolist() == [2, 0, 1, 2, 0, 1]  # val_0 is an n03, the last in order.
    grey = read(Source("tinyimagenet", tmp_path), "train")
    assert grey is not None
    first = grey.images[grey.labels == 2][0]
    assert np.array_equal(first[0], first[1])


def test_classes_that_share_a_word_are_told_apart(tmp_path: Path) -> None:
    tiny(tmp_path)
    (tmp_path / "words.txt").write_text("n01\tcrane, bird\nn03\tcrane, machine\n")
    assert inspect(Source("tinyimagenet", tmp_path)).class_names == ("n01", "n02", "n03")


def _without_line(root: Path) -> None:
    table = root / "val" / "val_annotations.txt"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))


def _foreign_class(root: Path) -> None:
    table = root / "val" / "val_annotations.txt"
    table.write_text(table.read_text() + "val_9.JPEG\tn99\t0\t0\t1\t1\n")


def _truncated(root: Path) -> None:
    path = root / "train" / "n02" / "images" / "n02_1.JPEG"
    path.write_bytes(path.read_bytes()[:500])


def _emptied(root: Path) -> None:
    for path in (root / "train" / "n01" / "images").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_line, r"val_annotations.txt: has no line for val_0.JPEG"),
        (_foreign_class, r"val_annotations.txt: line 7: class 'n99' is not in wnids.txt"),
        (lambda root: (root / "val/images/val_3.JPEG").unlink(), "names val_3.JPEG, which is not"),
        (_truncated, r"n02_1.JPEG: is no readable image"),
        (_emptied, r"train/n01/images: holds no images"),
        (lambda root: (root / "wnids.txt").unlink(), r"wnids.txt: cannot be read; root must be"),
        (lambda root: (root / "val/val_annotations.txt").unlink(), "root must be the folder tiny"),
        (lambda root: (root / "train/n02").rename(root / "n02"), r"train/n02/images: no such fold"),
    ],
)
def test_what_is_wrong_with_tiny_imagenet_is_one_line(
    tmp_path: Path, spoil: object, message: str
) -> None:
    tiny(tmp_path)
    assert callable(spoil)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        inspect(Source("tinyimagenet", tmp_path))
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def imagenet(root: Path, name: str, each: int = 5, held: int = 2) -> Path:
    """An ImageNet tree with the classes of a subset and another one; images of several sizes."""
    for number, wnid in enumerate([*SUBSETS[name], "n09999999"]):
        for part, count in (("train", each), ("val", held)):
            for k in range(count):
                pixels = random_bytes(140 + k, 160, 3, seed=50 * number + k + 7 * (part == "val"))
                save(root / part / wnid / f"{wnid}_{k}.JPEG", pixels)
    return root


def test_the_subsets_have_ten_classes_each_in_their_own_order(tmp_path: Path) -> None:
    assert tuple(SUBSETS) == IMAGENET
    for classes in SUBSETS.values():
        assert len(classes) == len(set(classes.values())) == 10
        assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in classes)
    about = inspect(Source("imagesquawk", imagenet(tmp_path, "imagesquawk")))
    assert about.class_names[:3] == ("peacock", "flamingo", "macaw")  # Not by WordNet number.
    assert (about.channels, about.resolution) == (3, 128)
    assert about.counts["test"] == (2,) * 10
    assert "val/ is not ImageNet's own, which has 50 images a class" in about.remarks
    assert inspect(Source("imagesquawk", tmp_path, resolution=32)).resolution == 32


def test_images_of_imagenet_are_cropped_about_their_centre(tmp_path: Path) -> None:
    imagenet(tmp_path, "imagenette")
    wide = np.zeros((128, 256, 3), dtype=np.uint8)
    wide[:, 64:192] = 200  # Stays; what is beside it goes.
    save(tmp_path / "train" / "n01440764" / "wide.PNG", wide)
    raw = read(Source("imagenette", tmp_path), "train")
    assert raw is not None
    assert any((image == 200).all() for image in raw.images)


def test_the_stamp_sees_the_classes_of_a_subset_and_no_others(tmp_path: Path) -> None:
    source = Source("imagenette", imagenet(tmp_path, "imagenette"), download=True)
    before = stamp(source)
    save(tmp_path / "train" / "n09999999" / "more.JPEG", random_bytes(9, 9, 3))
    assert stamp(source) == before
    save(tmp_path / "val" / "n03888257" / "more.JPEG", random_bytes(9, 9, 3))
    assert stamp(source) != before


def test_a_flat_val_of_imagenet_is_one_line(tmp_path: Path) -> None:
    imagenet(tmp_path, "imagenette")
    (tmp_path / "val" / "n03888257").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"n03888257 is no folder; root must hold ImageNet's") as e:
        inspect(Source("imagenette", tmp_path))
    assert "\n" not in str(e.value)


def covid(root: Path) -> Path:
    """The COVID-19 Radiography Database's layout: masks, tables, an RGB file of a grey image."""
    for number, name in enumerate(COVID_CLASSES):
        tree(root / name, {"images": 12, "masks": 12}, side=30, seed=5000 * number)
        (root / f"{name}.metadata.xlsx").write_bytes(b"PK")
    grey = random_bytes(30, 30, seed=77)
    save(root / "Viral Pneumonia" / "images" / "rgb.png", np.repeat(grey[..., None], 3, 2))
    (root / "README.md.txt").write_text("")
    return root


def test_covid_radiographs_are_grey_and_cut_and_their_masks_are_left(tmp_path: Path) -> None:
    about = inspect(Source("covid19", covid(tmp_path)))
    assert about.class_names == ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    assert (about.channels, about.resolution) == (1, 112)
    totals = [sum(found) for found in zip(*about.counts.values(), strict=True)]
    assert totals == [12, 12, 12, 13]
    assert all(min(counts) >= 1 for counts in about.counts.values())
    assert "which images are of one patient is not known (key groups)" in about.remarks
    assert inspect(Source("covid19", tmp_path, channels=3)).channels == 3
    loaded = load_dataset("covid19", root=tmp_path, resolution=32, positive="COVID")
    assert "flip" not in loaded.augmentation.families
    assert open_test(loaded).images.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinyimagenet", "http://cs231n.stanford.edu/tiny-imagenet-200.zip"),
        ("imagewoof", "https://image-net.org"),
        ("covid19", "COVID-19_Radiography_Dataset of https://www.kaggle.com/datasets/tawsif"),
        ("pathmnist", "pathmnist.npz: no such file; it is published at https://zenodo.org/records"),
        ("arrays", "must hold one .npz or .safetensors file"),
    ],
)
def test_what_is_not_there_is_one_line_with_its_source_and_place(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        inspect(Source(name, tmp_path))
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)
