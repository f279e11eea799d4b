"""Other people's distilled sets come in exactly, and nothing of theirs is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iadd.data import Transform
from iadd.exchange import import_folder, import_torch
from iadd.synthetic import TENSORS, SyntheticSet

NAMES = ("a", "b", "c")
STANDARD = Transform("standard", mean=torch.tensor([0.4]), std=torch.tensor([0.2]))
IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def kept(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize(
    "value",
    [
        IMAGES,  # MTT: images alone, sorted by class
        (IMAGES, LABELS),
        {"images": IMAGES, "labels": LABELS},
        # DC, DSA, DM: every experiment's pair, and numpy numbers beside.
        {
            "data": [[torch.zeros(6, 1, 8, 8), LABELS], [IMAGES, LABELS]],
            "accs_all_exps": {"ConvNet": [np.float64(0.3), np.mean([0.1, 0.2])]},
        },
    ],
    ids=["tensor", "pair", "mapping", "experiments"],
)
def test_the_shapes_of_the_field_are_understood(tmp_path: Path, value: Any) -> None:
    found = import_torch(kept(tmp_path / "x.pt", value), STANDARD, NAMES, step_size=0.02)
    assert torch.equal(found.images, IMAGES)
    assert torch.equal(found.labels, LABELS)
    assert (found.step_size, found.class_names) == (0.02, NAMES)
    assert found.transform is STANDARD
    assert found.spec["file"] == "x.pt"


def test_labels_may_lie_in_their_own_file_and_be_soft(tmp_path: Path) -> None:
    logits = torch.randn(6, 3).double().requires_grad_()
    images = kept(tmp_path / "images_best.pt", IMAGES.clone().requires_grad_())
    found = import_torch(images, STANDARD, NAMES, labels=kept(tmp_path / "y.pt", logits))
    assert torch.equal(found.labels, logits.detach().float())
    assert not found.images.requires_grad


def test_the_learned_rate_is_taken_along_and_may_be_overruled(tmp_path: Path) -> None:
    value = {"images": IMAGES, "labels": LABELS, "syn_lr": torch.tensor(0.25)}
    path = kept(tmp_path / "x.pt", value)
    assert import_torch(path, STANDARD, NAMES).step_size == 0.25
    assert import_torch(path, STANDARD, NAMES, step_size=0.5).step_size == 0.5


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    path = kept(tmp_path / "trap.pt", {"images": IMAGES, "x": Trap(tmp_path / "ran")})
    with pytest.raises(ValueError, match=r"trap\.pt: damaged, or holds more than plain") as error:
        import_torch(path, STANDARD, NAMES)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"weights": IMAGES}, "holds no images"),
        (IMAGES[0], "holds no images"),
        (IMAGES[:5], "has no labels, and 5 images are not equally many for 3 classes"),
        (torch.full((6, 1, 8, 8), torch.nan), "images have NaN"),
        ((IMAGES, LABELS + 1), r"a label is outside 0\.\.2"),
        ((IMAGES, [0, 1]), "labels are no tensor but list"),
        ({"images": IMAGES, "labels": torch.zeros(6, 4)}, "synthetic labels: must be"),
    ],
)
def test_what_is_no_set_is_one_line(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        import_torch(kept(tmp_path / "x.pt", value), STANDARD, NAMES)
    assert "\n" not in str(error.value)


def test_missing_and_damaged_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        import_torch(tmp_path / "none.pt", STANDARD, NAMES)
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match="damaged"):
        import_torch(tmp_path / "x.pt", STANDARD, NAMES)


def test_an_exported_folder_comes_back_exactly(tmp_path: Path) -> None:
    distilled = SyntheticSet(IMAGES, torch.randn(6, 3), STANDARD, NAMES, 0.1, {"ipc": 2})
    distilled.export_folder(tmp_path / "out")
    found = import_folder(tmp_path / "out", Transform())
    assert torch.equal(found.images, IMAGES)
    assert torch.equal(found.labels, distilled.labels)
    assert (found.step_size, found.spec, found.transform.kind) == (0.1, {"ipc": 2}, "standard")


def test_a_folder_of_pictures_is_read_through_the_transform(tmp_path: Path) -> None:
    distilled = SyntheticSet(IMAGES * 0.5, LABELS, STANDARD, NAMES)
    distilled.export_folder(tmp_path / "out")
    (tmp_path / "out" / TENSORS).unlink()
    found = import_folder(tmp_path / "out", STANDARD, step_size=0.3)
    assert found.class_names == ("0_a", "1_b", "2_c")
    assert torch.equal(found.labels, LABELS)
    assert found.step_size == 0.3
    assert (found.pixels() - distilled.pixels()).abs().max() < 0.51 / 255
    Image.new("L", (9, 9)).save(tmp_path / "out" / "0_a" / "odd.png")
    with pytest.raises(ValueError, match=r"odd\.png: is 9x9 pixels"):
        import_folder(tmp_path / "out", STANDARD)
    with pytest.raises(ValueError, match="no such folder"):
        import_folder(tmp_path / "none", STANDARD)
