"""Cards shared out between jobs: by UUID, in parts, by memory, freed on death; pretend devices."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iadd import cards
from iadd.cards import Card

GIB = 1 << 30
WHOLE = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bb)
"""
PARTS = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa)
  MIG 3g.20gb     Device  0: (UUID: MIG-a0)
  MIG 1g.5gb      Device  1: (UUID: MIG-a1)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bb)
"""
BOTH = [Card("GPU-aa", 40 * GIB, "0"), Card("GPU-bb", 40 * GIB, "1")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path for a pretend nvidia-smi, and a place for leases; nothing is visible."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(cards, "PLACE", tmp_path)
    monkeypatch.setattr(cards, "_leases", [])
    monkeypatch.setattr(cards, "LOOK_SECONDS", 0.05)
    monkeypatch.delenv(cards.VISIBLE, raising=False)
    return tmp_path


def tells(machine: Path, listing: str, sizes: str = "GPU-aa, 40960\nGPU-bb, 40960\n") -> None:
    (machine / "L").write_text(listing)
    (machine / "sizes").write_text(sizes)
    program = machine / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && cat {machine}/L || cat {machine}/sizes\n')
    program.chmod(0o755)


def test_cards_and_their_parts_are_known_by_uuid(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tells(machine, WHOLE)
    assert cards.listed() == BOTH
    tells(machine, PARTS)
    parts = [Card("MIG-a0", 20 * GIB), Card("MIG-a1", 5 * GIB)]
    assert cards.listed() == [*parts, BOTH[1]]  # a divided card cannot be used as a whole
    for asked, found in (
        ("MIG-a1,MIG-a0", parts[::-1]),
        ("1", BOTH[1:]),
        ("GPU-b", BOTH[1:]),  # CUDA takes the beginning of a UUID
        ("1,-1,0", BOTH[1:]),
        ("", []),
        ("GPU-elsewhere", [Card("GPU-elsewhere")]),
    ):
        monkeypatch.setenv(cards.VISIBLE, asked)
        assert cards.listed() == found


@pytest.mark.parametrize("sizes", ["GPU-aa, [N/A]\nGPU-bb, 1\n", "", "nonsense"])
def test_a_driver_that_tells_nothing_sensible(
    machine: Path, sizes: str, caplog: pytest.LogCaptureFixture
) -> None:
    tells(machine, WHOLE, sizes)
    assert cards.listed() == [] and "does not tell of the cards" in caplog.text
    (machine / "nvidia-smi").write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
    assert cards.listed() == []


def test_jobs_spread_and_small_ones_share_a_card(machine: Path) -> None:
    small = [Card("MIG-a0", 20 * GIB), Card("MIG-a1", 5 * GIB)]
    taken = [cards.lease(small, 4 * GIB).name for _ in range(6)]
    assert taken == ["MIG-a0", "MIG-a1", "MIG-a0", "MIG-a0", "MIG-a0", "MIG-a0"]
    assert cards.lease(small, 0).name == "MIG-a1"  # asks for nothing
    assert cards._with_room(small, 2 * GIB, cards._held(machine / cards_folder())) is None


def cards_folder() -> str:
    return f"iadd-cards-{os.getuid()}"


def test_a_job_that_takes_all_waits_until_a_card_is_free(machine: Path) -> None:
    """Of a killed job, too: the kernel takes its lease back."""
    code = (
        "import pathlib, sys, time; from iadd import cards\n"
        "cards.PLACE = pathlib.Path(sys.argv[1])\n"
        "print(cards.lease([cards.Card('GPU-aa', 100)], None).name, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(machine)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout and holder.stdout.readline().strip() == "GPU-aa"
    assert cards._held(machine / cards_folder()) == [("GPU-aa", 100)]
    began = time.monotonic()
    subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {holder.pid}"])
    assert cards.lease([Card("GPU-aa", 100)], 1).name == "GPU-aa"
    assert time.monotonic() - began > 0.9
    holder.wait()
    assert [claim for _, claim in cards._held(machine / cards_folder())] == [1]


def test_more_than_a_card_has_is_all_of_it(machine: Path) -> None:
    assert cards.lease([Card("GPU-aa", 100)], 1000).name == "GPU-aa"


def test_cards_of_unknown_memory_are_shared_by_the_number_of_jobs(machine: Path) -> None:
    unknown = [Card("0"), Card("1")]
    assert [cards.lease(unknown, None).name for _ in range(4)] == ["0", "1", "0", "1"]


def test_where_nothing_can_be_locked_it_is_the_first_card(
    machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise NotImplementedError("no flock here")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert [cards.lease(BOTH).name for _ in range(2)] == ["GPU-aa", "GPU-aa"]
    assert caplog.messages[0] == "cards are not shared out: no flock here"
