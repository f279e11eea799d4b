"""Parquet files in the layout of the Hugging Face hub."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from image_files import random_bytes, save
from PIL import Image
from pyarrow import parquet

from iadd.data import Source, inspect, load_dataset
from iadd.data.assemble import assemble
from iadd.data.sources import read

NAMES = ["ant", "bee"]


def encoded(count: int, seed: int = 0, side: int = 10) -> list[bytes]:
    found = []
    for k in range(count):
        content = io.BytesIO()
        Image.fromarray(random_bytes(side, side, 3, seed=1000 * seed + k)).save(content, "PNG")
        found.append(content.getvalue())
    return found


def shard(path: Path, contents: list[Any], labels: list[Any], **others: Any) -> Path:
    """Write a file as the hub does: names of classes in the schema's metadata."""
    renamed = {key: others.pop(key, key) for key in ("image", "label")}
    names = others.pop("names", NAMES)
    rows = [None if c is None else {"bytes": c, "path": f"{k}.png"} for k, c in enumerate(contents)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {renamed["image"]: pa.array(rows, kind), renamed["label"]: pa.array(labels), **others}
    )
    if names is not None:
        features = {
            renamed["image"]: {"_type": "Image"},
            renamed["label"]: {"names": names, "_type": "ClassLabel"},
        }
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=7)
    return path


def hub(root: Path) -> Path:
    """Two shards of training images and one of test images, under `data/`."""
    for k in range(2):
        labels = [row % 2 for row in range(20)]
        shard(root / "data" / f"train-0000{k}-of-00002.parquet", encoded(20, k), labels)
    shard(root / "data" / "test-00000-of-00001.parquet", encoded(9, 2), [0, 1, 1] * 3)
    return root


def test_shards_are_the_same_data_as_files(tmp_path: Path) -> None:
    hub(tmp_path / "hub")
    for part, seeds, pattern in (("train", (0, 1), (0, 1)), ("test", (2,), (0, 1, 1))):
        for seed in seeds:
            for k, content in enumerate(encoded(20 if part == "train" else 9, seed)):
                label = NAMES[pattern[k % len(pattern)]]
                image = np.asarray(Image.open(io.BytesIO(content)))
                save(tmp_path / "files" / part / label / f"{seed}-{k}.png", image)
    about = inspect(Source("arrays", tmp_path / "hub"))
    assert about.class_names == ("ant", "bee")
    assert about.counts["test"] == (3, 6)
    assert about.fingerprint == inspect(Source("folder", tmp_path / "files")).fingerprint
    assert inspect(Source("arrays", tmp_path / "hub", resolution=8, channels=1)).channels == 1


def test_transparent_test_images_are_laid_on_the_background_of_the_training_images(
    tmp_path: Path,
) -> None:
    """White strokes need black; grey ones, which show on both, take what the strokes need."""
    for part, ink in (("train", 255), ("test", 128)):
        contents = []
        for k in range(8):
            drawn = np.zeros((10, 10, 4), np.uint8)
            drawn[k, 2:8] = (ink, ink, ink, 255)
            content = io.BytesIO()
            Image.fromarray(drawn).save(content, "PNG")
            contents.append(content.getvalue())
        shard(tmp_path / f"{part}.parquet", contents, [0, 1] * 4)
    source = Source("arrays", tmp_path)
    train = read(source, "train")
    test = read(source, "test", like=train)
    assert train and test and train.background == test.background == 0
    assert test.images[0, 0, 9, 9] == 0


def test_progress_is_told_and_images_come_in_order(tmp_path: Path) -> None:
    hub(tmp_path)
    told: list[tuple[int, int]] = []
    raw = read(Source("arrays", tmp_path), "train", progress=lambda d, n, note: told.append((d, n)))
    assert raw is not None
    assert told[-1] == (40, 40)
    assert np.array_equal(raw.images[25], random_bytes(10, 10, 3, seed=1005).transpose(2, 0, 1))


def test_a_part_validation_is_kept_and_a_test_part_is_cut_where_there_is_none(
    tmp_path: Path,
) -> None:
    labels = [row % 2 for row in range(20)]
    shard(tmp_path / "train.parquet", encoded(20), labels)
    assert min(inspect(Source("arrays", tmp_path)).counts["test"]) >= 1
    shard(tmp_path / "validation-00000-of-00001.parquet", encoded(6, 3), labels[:6])
    with pytest.raises(ValueError, match="has a part validation and none test; call it test"):
        inspect(Source("arrays", tmp_path))
    shard(tmp_path / "test-00000-of-00001.parquet", encoded(8, 4), labels[:8])
    counts = inspect(Source("arrays", tmp_path)).counts
    assert counts == {"train": (10, 10), "validation": (3, 3), "test": (4, 4)}


def test_folders_of_parts_are_found_too(tmp_path: Path) -> None:
    labels = [row % 2 for row in range(20)]
    for part, seed in (("train", 0), ("test", 1)):
        shard(tmp_path / "default" / part / "0000.parquet", encoded(20, seed), labels)
    assert inspect(Source("arrays", tmp_path)).counts["test"] == (10, 10)


def test_columns_are_found_by_their_kinds_and_classes_may_have_no_names(tmp_path: Path) -> None:
    labels = [row % 2 for row in range(20)]
    shard(tmp_path / "a" / "train.parquet", encoded(20), labels, image="img", label="what")
    assert inspect(Source("arrays", tmp_path / "a")).class_names == ("ant", "bee")
    shard(tmp_path / "b" / "train.parquet", encoded(20), labels, names=None)
    assert inspect(Source("arrays", tmp_path / "b")).class_names == ("0", "1")


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_files_whose_labels_stand_for_other_classes_are_refused(tmp_path: Path, part: str) -> None:
    """A part that was encoded by itself may count its classes otherwise."""
    hub(tmp_path)
    file = shard(
        tmp_path / "data" / f"{part}-more.parquet", encoded(4, 3), [0, 1] * 2, names=["bee", "ant"]
    )
    with pytest.raises(ValueError, match=r"more\.parquet: its labels stand for bee, ant, those of"):
        inspect(Source("arrays", tmp_path))
    shard(file, encoded(4, 3), [0, 1] * 2)
    inspect(Source("arrays", tmp_path))


def test_test_labels_beyond_unnamed_classes_are_one_line(tmp_path: Path) -> None:
    shard(tmp_path / "train-x.parquet", encoded(20), [0, 1] * 10, names=None)
    shard(tmp_path / "test-x.parquet", encoded(3, 1), [0, 1, 2], names=None)
    with pytest.raises(ValueError, match=r"test-x\.parquet: label: row 2 is 2; allowed are 0 to 1"):
        inspect(Source("arrays", tmp_path))


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "train/0000.parquet"])
def test_two_configurations_are_not_taken_for_one(tmp_path: Path, name: str) -> None:
    for configuration in ("full", "small"):
        shard(tmp_path / configuration / name, encoded(20), [0, 1] * 10)
    with pytest.raises(
        ValueError, match=r"full.* and .*small.* both hold a part train; give as root"
    ):
        inspect(Source("arrays", tmp_path))
    assert sum(inspect(Source("arrays", tmp_path / "full")).counts["train"]) > 0


def test_groups_are_a_column(tmp_path: Path) -> None:
    labels = [row % 2 for row in range(60)]
    patients = [f"p{row // 4}" for row in range(60)]
    shard(tmp_path / "train.parquet", encoded(60), labels, patient=pa.array(patients))
    parts = assemble(Source("arrays", tmp_path, groups="patient"))[1].values()
    found = [{*pixels.groups} for pixels in parts if pixels.groups is not None]
    assert sum(map(len, found)) == len(set.union(*found)) == 15
    with pytest.raises(ValueError, match=r"train\.parquet: has no column age, only image, label"):
        inspect(Source("arrays", tmp_path, groups="age"))


@pytest.mark.parametrize(
    ("contents", "labels", "others", "message"),
    [
        ([*encoded(3), b"no image"], [0, 1, 0, 1], {}, "train.parquet: row 3: is no readable ima"),
        ([*encoded(3), None], [0, 1, 0, 1], {}, "train.parquet: row 3: has no bytes of an image"),
        (encoded(4), [0, 1, 0, 2], {}, "label: row 3 is 2; allowed are 0 to 1"),
        (encoded(4), [0, 1, 0, -1], {}, "label: row 3 is -1; allowed are 0 to 1"),
        (encoded(4), [0, 1, None, 1], {}, "label: row 2 is empty"),
        (encoded(4), [0, 1, 0.5, 1], {}, "label: row 0 is 0.0; allowed are"),
        (encoded(4), [0, 1, 0, 1], {"names": None, "label": "y"}, "has no column label, only ima"),
        (encoded(3) + encoded(1, 5, 12), [0, 1, 0, 1], {}, "row 3: is 12x12 pixels, "),
    ],
)
def test_rows_that_do_not_fit_are_one_line(
    tmp_path: Path, contents: list[Any], labels: list[Any], others: dict[str, Any], message: str
) -> None:
    shard(tmp_path / "train.parquet", contents, labels, **others)
    with pytest.raises(ValueError, match=message) as error:
        load_dataset("arrays", root=tmp_path)
    assert "\n" not in str(error.value)
    assert "train.parquet" in str(error.value)


def test_rows_that_take_no_room_are_not_unfolded(tmp_path: Path) -> None:
    """Equal values are stored once: a file of some kilobytes can claim billions of rows."""
    path = tmp_path / "train.parquet"
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([{"bytes": encoded(1)[0]}] * 20_000, kind)})
    parquet.write_table(table.append_column("label", pa.array([0] * 20_000)), path)
    with pytest.raises(ValueError, match=r"train\.parquet: claims 20,000 rows in [\d,]+ bytes"):
        load_dataset("arrays", root=tmp_path)
    shard(path, [], [])
    with pytest.raises(ValueError, match=r"train\.parquet: has no images"):
        load_dataset("arrays", root=tmp_path)


def test_a_column_that_ends_too_early_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: pyarrow may read nothing of a damaged page, and say nothing."""
    shard(tmp_path / "train.parquet", encoded(4), [0, 1, 0, 1])
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *_, **__: iter(()))
    with pytest.raises(ValueError, match=r"train\.parquet: has 0 images in 4 rows"):
        load_dataset("arrays", root=tmp_path)


def test_missing_shards_and_damaged_files_are_one_line(tmp_path: Path) -> None:
    hub(tmp_path)
    gone = tmp_path / "data" / "train-00001-of-00002.parquet"
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(ValueError, match=r"00001-of-00002\.parquet: no such file; train-00000-of"):
        inspect(Source("arrays", tmp_path))
    spoilt = bytearray(content)
    spoilt[40:2000] = bytes(1960)  # The end, which says where the columns are, is sound.
    gone.write_bytes(bytes(spoilt))
    with pytest.raises(ValueError, match=r"00001-of-00002\.parquet: (is no readable|row)") as e:
        inspect(Source("arrays", tmp_path))
    assert "\n" not in str(e.value)
    gone.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"00001-of-00002\.parquet: is no readable Parquet") as e:
        inspect(Source("arrays", tmp_path))
    assert "\n" not in str(e.value)
