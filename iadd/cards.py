"""A machine's cards shared out between jobs: each job leases one, with the memory that it needs.

A lease is a lock file that the kernel takes back when the job ends, however it ends; its name says
which card and how much memory. Cards are known by their UUIDs (of parts of cards, MIG, by theirs),
so that jobs that see different cards do not mistake one for another. CUDA shows a process one part
alone, so a card is chosen before CUDA is, and then is the only one that the process sees.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

PLACE = Path("/tmp")
"""Where the leases lie: the same for all of a user's runs, whose temporary folders may differ."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
TOLD_SECONDS = 20
"""Seconds in which nvidia-smi must have listed the cards."""
LOOK_SECONDS = 1.0
"""Seconds between two looks whether a card has room."""
CARD = re.compile(r"GPU (?P<number>\d+): .*\(UUID: (?P<name>GPU-[^)]+)\)")
PART = re.compile(r"\s+MIG \S+\.(?P<gib>\d+)gb.*\(UUID: (?P<name>MIG-[^)]+)\)")

_leases: list[object] = []  # locks that this process holds until it ends


@dataclass(frozen=True)
class Card:
    """A card, or a part of one, by the name that CUDA_VISIBLE_DEVICES takes.

    `memory`: bytes, 0 if that is not known. `number`: how else a whole card is called. `divided`:
    into parts, so that nobody can use it as a whole.
    """

    name: str
    memory: int = 0
    number: str = ""
    divided: bool = False


def listed() -> list[Card]:
    """The cards that this process may use, in the order in which CUDA counts what it is shown.

    Empty where the driver names no card, and `CUDA_VISIBLE_DEVICES` does not either.
    """
    there = _told()
    asked = os.environ.get(VISIBLE)
    if asked is None:
        return [card for card in there if not card.divided]
    found = []
    for word in asked.split(","):
        name = word.strip()
        if not name or name == "-1":  # CUDA looks no further either
            break
        uuid = name.startswith(("GPU-", "MIG-"))  # in full, or its beginning
        known = (c for c in there if (c.name.startswith(name) if uuid else c.number == name))
        found.append(next(known, Card(name)))
    return found


def _told() -> list[Card]:
    """What nvidia-smi lists, the parts of a card behind it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = ("--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits")
    try:
        listing, sizes = (
            subprocess.run(
                [program, *words], capture_output=True, text=True, check=True, timeout=TOLD_SECONDS
            ).stdout
            for words in (("-L",), query)
        )
        memory = dict(line.split(", ") for line in sizes.splitlines())
        found, whole = list[Card](), 0
        for line in listing.splitlines():
            if card := CARD.match(line):
                whole = len(found)
                found.append(Card(card["name"], int(memory[card["name"]]) << 20, card["number"]))
            elif part := PART.match(line):
                found[whole] = replace(found[whole], divided=True)
                found.append(Card(part["name"], int(part["gib"]) << 30))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
        logging.getLogger("iadd").warning("nvidia-smi does not tell of the cards: %s", error)
        return []
    return found


def lease(cards: Sequence[Card], need: int | None = 0) -> Card:
    """Take a card for as long as this process lives; wait where none has room.

    Of those with room it is the one that the fewest jobs hold, the first of equals. Where nothing
    can be locked, it is the first card.

    Args:
        cards: at least one.
        need: bytes of its memory; None: all of it. One whose memory is not known has room.
    """
    from filelock import FileLock

    folder = PLACE / f"iadd-cards-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            with FileLock(folder / "lock"):
                if card := _with_room(cards, need, _held(folder)):
                    claim = card.memory if need is None else need
                    name = f"{_file_name(card)}.{claim}.{secrets.token_hex(8)}.lease"
                    lock = FileLock(folder / name)
                    lock.acquire(timeout=0)
                    _leases.append(lock)
                    return card
            time.sleep(LOOK_SECONDS)
    except (OSError, NotImplementedError) as error:
        logging.getLogger("iadd").warning("cards are not shared out: %s", error)
        return cards[0]


def _file_name(card: Card) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", card.name)


def _held(folder: Path) -> list[tuple[str, int]]:
    """Cards and bytes of the leases of living processes; those of dead ones are removed."""
    from filelock import FileLock, Timeout

    found = []
    for path in folder.glob("*.lease"):
        name, claim, *_ = path.name.split(".")
        lock = FileLock(path)
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            path.unlink(missing_ok=True)
            lock.release()
            continue
        found.append((name, int(claim)))
    return found


def _with_room(
    cards: Sequence[Card], need: int | None, held: Sequence[tuple[str, int]]
) -> Card | None:
    jobs, claimed = Counter(name for name, _ in held), Counter[str]()
    for name, claim in held:
        claimed[name] += claim

    def has_room(card: Card) -> bool:
        wanted = card.memory if need is None else min(need, card.memory)
        return not card.memory or claimed[_file_name(card)] + wanted <= card.memory

    return min(filter(has_room, cards), key=lambda card: jobs[_file_name(card)], default=None)
