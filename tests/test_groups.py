"""Images of one group, a patient's for example, are on one side of every cut."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import random_bytes, tree

from iadd.data import Source, inspect, prepare, stamp
from iadd.data.assemble import assemble
from iadd.data.image_sets import COVID_CLASSES


def table(path: Path, root: Path, of: int = 4) -> Path:
    """A table of the images under a root, `of` images of one patient in a row."""
    files = sorted(root.rglob("*.png"))
    rows = [f"{file.relative_to(root)},p{k // of}" for k, file in enumerate(files)]
    path.write_text("\n".join(["file,group", *rows, ""]))
    return path


def sides(source: Source) -> dict[str, set[str]]:
    """In which parts each group's images are."""
    found: dict[str, set[str]] = {}
    for part, pixels in assemble(source)[1].items():
        assert pixels.groups is not None
        for group in pixels.groups:
            found.setdefault(str(group), set()).add(part)
    return found


def test_no_group_is_on_two_sides(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", {"ill": 60, "well": 60})
    groups = table(tmp_path / "patients.csv", root)
    found = sides(Source("folder", root, groups=groups))
    assert len(found) == 30
    assert all(len(parts) == 1 for parts in found.values())
    assert set.union(*found.values()) == {"train", "validation", "test"}
    counts = inspect(Source("folder", root, groups=groups)).counts
    assert all(min(each) >= 1 for each in counts.values())


def test_white_space_does_not_make_two_patients_of_one(tmp_path: Path) -> None:
    """Tables that people write have some, here and there."""
    root = tree(tmp_path / "images", {"ill": 60, "well": 60})
    groups = table(tmp_path / "patients.csv", root)
    clean = sides(Source("folder", root, groups=groups))
    first, *rows = groups.read_text().split()
    groups.write_text("\n".join([first, *(row + " " * (k % 3) for k, row in enumerate(rows))]))
    assert sides(Source("folder", root, groups=groups)) == clean


def test_a_new_image_of_another_patient_moves_nobody(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", {"ill": 60, "well": 60})
    groups = table(tmp_path / "patients.csv", root)
    before = sides(Source("folder", root, groups=groups))
    tree(root / "well" / "new", {"more": 3}, seed=9_000)
    text = "".join(f"well/new/more/{k:03d}.png,p99\n" for k in range(3))
    groups.write_text(groups.read_text() + text)
    after = sides(Source("folder", root, groups=groups))
    assert {group: after[group] for group in before} == before
    assert len(after["p99"]) == 1


def test_equal_images_of_two_patients_bind_them(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", {"ill": 40, "well": 40})
    for k in range(0, 20, 4):  # The last image of each patient is the first one of the next.
        shutil.copy(root / f"ill/{k + 4:03d}.png", root / f"ill/{k + 3:03d}.png")
    found = sides(Source("folder", root, groups=table(tmp_path / "patients.csv", root)))
    assert len(set.union(*(found[f"p{k}"] for k in range(6)))) == 1


def test_groups_are_in_the_fingerprint_and_their_file_is_not(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", {"ill": 30, "well": 30})
    first = table(tmp_path / "a.csv", root)
    moved = table(tmp_path / "b.csv", root)
    moved.write_text("\ufeff" + moved.read_text().replace("file,group", "file,group,age"))
    alone = table(tmp_path / "c.csv", root, of=1)
    prints = [
        inspect(Source("folder", root, groups=groups)).fingerprint
        for groups in (first, moved, alone, None)
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    about = prepare(Source("folder", root, groups=first), tmp_path / "made")
    assert about.fingerprint == prints[0]
    assert str(tmp_path) not in (tmp_path / "made" / "about.json").read_text()


def test_the_stamp_sees_the_table_change(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", {"ill": 3, "well": 3})
    groups = table(tmp_path / "patients.csv", root)
    stamps = [stamp(Source("folder", root)), stamp(Source("folder", root, groups=groups))]
    groups.write_text(groups.read_text() + "x.png,p9\n")
    stamps.append(stamp(Source("folder", root, groups=groups)))
    stamps.append(stamp(Source("arrays", root, groups="patient")))
    assert len(set(stamps)) == 4


def test_a_sets_own_parts_may_not_tear_a_group_apart(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", {"train/a": 8, "train/b": 8, "test/a": 4, "test/b": 4})
    groups = table(tmp_path / "patients.csv", root)
    assert all(len(parts) == 1 for parts in sides(Source("folder", root, groups=groups)).values())
    groups.write_text(groups.read_text().replace("test/a/000.png,p0", "test/a/000.png,p5"))
    with pytest.raises(ValueError, match=r"folder: groups: 'p5' is in the set's own .* and test"):
        inspect(Source("folder", root, groups=groups))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "needs the columns file and group, it has none"),
        ("name,group\na/0.png,p", "needs the columns file and group, it has name, group"),
        ("file,group\nother/000.png,p1\n", "names none of the 6 images; its column file must"),
        ("file,group\na/000.png,p1\n", "5 images have no group, like 'a/001.png'"),
        ("file,group\na/000.png,p1\na/000.png,p2\n", "line 3: 'a/000.png' has two groups"),
        ("file,group\na/000.png,\n", "line 2: file or group is empty"),
        ("file,group\na/000.png\n", "line 2: file or group is empty"),
        ('file,group\n"a/000.png,p1\n', "is no readable table"),
        (None, "cannot be read .no such file"),
        (b"file,group\n\xff,\xfe\n", "is no readable table"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(
    tmp_path: Path, content: str | bytes | None, message: str
) -> None:
    root = tree(tmp_path / "images", {"a": 3, "b": 3})
    groups = tmp_path / "patients.csv"
    if content is not None:
        groups.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message) as error:
        inspect(Source("folder", root, groups=groups))
    assert "patients.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_sets_without_files_have_no_groups() -> None:
    with pytest.raises(ValueError, match="digits: groups can be set for folder, arrays, covid19"):
        Source("digits", groups="patients.csv")


def test_groups_of_the_covid_radiographs(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for number, name in enumerate(COVID_CLASSES):
        tree(root / name, {"images": 12}, side=30, seed=5000 * number)
    groups = table(tmp_path / "patients.csv", root, of=2)
    source = Source("covid19", root, groups=groups, resolution=16)
    assert all(len(parts) == 1 for parts in sides(source).values())
    assert not inspect(source).remarks


def test_groups_of_arrays_are_an_array_beside(tmp_path: Path) -> None:
    patients = np.arange(60) // 3
    held = {"train_images": random_bytes(60, 10, 10), "train_labels": np.arange(60) % 2}
    np.savez(tmp_path / "set.npz", **held, train_patient=patients)
    found = sides(Source("arrays", tmp_path, groups="patient"))
    assert len(found) == 20
    assert all(len(parts) == 1 for parts in found.values())
    with pytest.raises(ValueError, match=r"set\.npz: has no array train_subject"):
        inspect(Source("arrays", tmp_path, groups="subject"))
    np.savez(tmp_path / "set.npz", **held, train_patient=patients[:50])
    with pytest.raises(ValueError, match=r"set\.npz: train_patient: has 50 groups for 60 images"):
        inspect(Source("arrays", tmp_path, groups="patient"))
