"""Files of others: only regular ones are opened, archives are measured, one line names the file."""

from __future__ import annotations

import io
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz.loaders import MAKERS

from iadd import artifacts
from iadd.data import groups
from iadd.data.arrays import Opened
from iadd.data.image_file import header
from iadd.data.parquet import _columns
from iadd.exchange import arrays, torch_files
from iadd.leaderboard.results import read_metadata
from iadd.pipeline.config import load_config
from iadd.synthetic import SyntheticSet

READERS: list[tuple[str, Callable[[Path], object]]] = [
    ("c.yaml", load_config),
    ("s.safetensors", SyntheticSet.load),
    ("s.safetensors", artifacts.TensorFile),
    ("images_best.pt", torch_files.load),
    ("s.npz", arrays.read),
    ("d.npz", Opened),
    ("d.safetensors", Opened),
    ("train.parquet", _columns),
    ("t.parquet", read_metadata),
    ("a.png", header),
    ("g.csv", lambda path: groups.groups_of(path, ["a.png"])),
    ("w.json", artifacts.read_json),
]


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """A reader that waits is killed by an alarm instead of holding the tests up."""
    signal.alarm(30)
    yield
    signal.alarm(0)


@pytest.mark.parametrize(("name", "read"), READERS)
def test_fifos_devices_folders_and_missing_files_are_not_opened(
    tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    with pytest.raises(ValueError, match=f"{name}: .*no such"):
        read(path)
    os.mkfifo(path)
    with pytest.raises(ValueError, match=f"{name}: .*no regular file"):
        read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=f"{name}: .*no regular file"):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"{name}: .*a folder"):
        read(path)


def test_every_reader_of_others_files_is_fuzzed() -> None:
    assert {"config", "submission", "torch", "tables", "image", "groups", "winner"} <= {*MAKERS}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RecursionError("maximum depth"), "RecursionError: maximum depth"),
        (KeyError("spec"), "it lacks 'spec'"),
        (OverflowError("too\nlarge"), "OverflowError: too large"),
        (MemoryError(), "MemoryError"),
        (ValueError("a\x1b[31m" + "b" * 1000), "a?\\[31mbb"),
    ],
)
def test_whatever_a_parser_raises_is_one_line(error: Exception, said: str) -> None:
    with (
        pytest.raises(ValueError, match=said) as found,
        artifacts.parsing("x.bin", "thing", "; go"),
    ):
        raise error
    text = str(found.value)
    assert text.startswith("x.bin: is no readable thing (") and text.endswith("); go")
    assert text.isprintable() and len(text) < 300


def test_a_refusal_that_names_the_file_passes_as_it_is() -> None:
    with (
        pytest.raises(ValueError, match=r"^x\.bin: is empty$"),
        artifacts.parsing("x.bin", "thing"),
    ):
        raise ValueError("x.bin: is empty")


def test_too_much_text_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b" " * 101)
    with pytest.raises(ValueError, match=r"a\.json: is larger than 100 bytes"):
        artifacts.read_content(path, 100)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"a\.json: is no readable JSON file \(RecursionError"):
        artifacts.read_json(path)


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: np.ndarray) -> bytes:  # type: ignore[type-arg]
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_archives_that_unfold_to_too_much_are_refused_before_they_do(tmp_path: Path) -> None:
    path = npz(tmp_path / "bomb.npz", images=npy(np.zeros(300 * 2**20, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"bomb\.npz: .* claim to unfold to 314,572,928"):
        artifacts.open_npz(path)
    sound = npz(tmp_path / "sound.npz", images=npy(np.zeros(2**20, dtype=np.uint8)))
    assert artifacts.open_npz(sound)["images"].nbytes == 2**20


def test_arrays_that_claim_more_than_they_hold_and_names_that_are_no_text(tmp_path: Path) -> None:
    claimed = npy(np.zeros(9)).replace(b"(9,)", b"(9999999999,)", 1)
    with pytest.raises(ValueError, match=r"images\.npy claims to be float64"):
        artifacts.open_npz(npz(tmp_path / "a.npz", images=claimed))
    letters = np.array(["ab"]).view(np.uint32)
    letters[0] = 0x7FFFFFFF
    with pytest.raises(ValueError, match="no text"):
        artifacts.words_of(letters.view("<U2"))
    assert artifacts.words_of(np.array(["ab", "c"])) == ("ab", "c")
    assert artifacts.words_of(np.array([3, 4])) == ("3", "4")


class Bytes:
    """Pickles as a call of `bytearray`, which torch's own list allows."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return bytearray, (9 * 10**9,)


def test_torch_files_hold_no_more_than_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "images_best.pt"
    torch.save(Bytes(), path)
    assert path.stat().st_size < 2000  # and it would be 9 GB
    with pytest.raises(ValueError, match=r"holds more than plain tensors \(\w+ bytearray\)"):
        torch_files.load(path)
    torch.save(torch.zeros(1).expand(10**6, 3, 32, 32), path)
    with pytest.raises(
        ValueError, match=r"a tensor claims to be \(1000000, 3, 32, 32\) of 4 bytes"
    ):
        torch_files.load(path)
    torch.save([torch.zeros(4)], path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"is no \.pt file as torch has written it since 1\.6"):
        torch_files.load(path)


def test_a_storage_of_more_than_the_file_is_refused(tmp_path: Path) -> None:
    path, out = tmp_path / "images_best.pt", io.BytesIO()
    torch.save(torch.zeros(4), path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    members[name] = members[name].replace(b"K\x04", b"J\xff\xff\xff\x7f")  # 4 -> 2,147,483,647
    with zipfile.ZipFile(out, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    path.write_bytes(out.getvalue())
    with pytest.raises(ValueError, match=r"images_best\.pt: is no readable file of plain tensors"):
        torch_files.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**6))
    with pytest.raises(ValueError, match="claim to unfold to 1,000,000"):
        torch_files.load(path)
