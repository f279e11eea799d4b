"""No loader answers a mutated file with anything but its content or one line that names it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from fuzz.harness import Loader, feed
from fuzz.loaders import MAKERS, loaders

INPUTS = 50
"""Of each loader; `python -m fuzz` tries 10,000."""


@pytest.mark.parametrize("name", MAKERS)
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (loader,) = loaders(tmp_path, [name])
    found = feed(loader, range(INPUTS), 1, tmp_path / "inputs")
    assert not found.faults, found.kinds()
    assert found.counts.total() == INPUTS


def told(path: Path, load: object, count: int = 1) -> list[str]:
    loader = Loader("x", "x.bin", [b"x"], load)  # type: ignore[arg-type]
    return [text for _, text, _ in feed(loader, range(count), 0, path / "inputs").faults]


def test_the_harness_sees_what_a_loader_must_not_do(tmp_path: Path) -> None:
    def crash(path: Path) -> None:
        os.kill(os.getpid(), 11)

    def writes(path: Path) -> None:
        Path("/tmp/nothing-of-this-name/x").write_bytes(b"x")

    def nameless(path: Path) -> None:
        raise ValueError("wrong")

    def greedy(path: Path) -> None:
        bytearray(8 * 2**30)

    def runs(path: Path) -> None:
        os.system("true")

    assert told(tmp_path, crash, 3) == ["SIGSEGV kills it"] * 3
    assert "opens '/tmp/nothing-of-this-name/x' for writing" in told(tmp_path, writes)[0]
    assert "refusal without the file's name" in told(tmp_path, nameless)[0]
    assert "MemoryError" in told(tmp_path, greedy)[0]
    assert told(tmp_path, runs) == ["acts: os.system (b'true',)"]
    assert "requires a buffer" in told(tmp_path, lambda path: struct.unpack("<q", b""))[0]
