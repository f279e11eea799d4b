"""Files of others: what is opened at all, how much of it, and what is told where it is not sound.

Whatever is read from a file that somebody else may have made goes through here: only regular files
are opened, archives are measured before they unfold, and whatever a parser stumbles over ends in
one line that names the file.
"""

from __future__ import annotations

import json
import stat
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile
    from numpy.typing import NDArray

TEXT = 16 * 2**20
"""The most bytes that a text file may have: none of ours has more."""
UNFOLDED = 256 * 2**20
"""Bytes that an archive may always unfold to."""
RATIO = 100
"""How many times its own size a larger one may unfold to."""
LONGEST = 1500
"""The most characters of an error message: names in a foreign file may be longer."""
SHOWN = 200
"""The most characters of what a parser complains of."""


def regular(path: str | Path) -> Path:
    """The path, if it leads to a regular file.

    Opening a FIFO waits for a writer that may never come, and a device never ends.

    Raises:
        ValueError: one line naming the file, if it is missing or something else.
    """
    size_of(path)
    return Path(path)


def size_of(path: str | Path) -> int:
    """The bytes of a regular file; ValueError as `regular` has it."""
    try:
        state = (path if isinstance(path, Path) else Path(path)).stat()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path}: cannot be read ({reason})") from None
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "no regular file"
        raise ValueError(f"{path}: cannot be read (is {kind})")
    return state.st_size


@contextmanager
def parsing(path: object, what: str, advice: str = "") -> Iterator[None]:
    """Tell whatever goes wrong inside as one line: `path: is no readable <what> (reason)`.

    The one place that catches everything: parsers of foreign bytes raise nearly anything
    (RecursionError, OverflowError, KeyError, struct.error, MemoryError, Rust's own kinds), and all
    of it means the same. A ValueError that names the file already passes as it is.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: is no readable {what} ({complaint(error)}){advice}") from error


def complaint(error: BaseException) -> str:
    """What an error says, as a few words of one line."""
    if isinstance(error, KeyError):
        return one_line(f"it lacks {error}", SHOWN)
    if hasattr(error, "errors"):  # pydantic's: the first of what it found
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        return one_line(f"{key}: {problem['msg'].removeprefix('Value error, ')}", SHOWN)
    kind = "" if isinstance(error, ValueError | OSError) and str(error) else type(error).__name__
    return one_line(": ".join(part for part in (kind, str(error)) if part), SHOWN)


def counted(count: int, what: str) -> str:
    """A count with its noun, whose plural ending is written {s}."""
    return f"{count} {what.replace('{s}', '' if count == 1 else 's')}"


def one_line(text: str, most: int = LONGEST) -> str:
    """Text as one line of printable characters, its middle left out where it is longer."""
    plain = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return plain if len(plain) <= most else f"{plain[: most // 2]} ... {plain[-most // 2 :]}"


def read_content(path: str | Path, most: int = TEXT) -> bytes:
    """All bytes of a regular file of at most `most`; ValueError of one line for any other."""
    try:
        with regular(path).open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > most:
        raise ValueError(f"{path}: is larger than {most:,} bytes, which no such file is")
    return content


def read_json(path: str | Path, what: str = "JSON file", advice: str = "") -> Any:
    """What a JSON file holds; ValueError of one line naming it for anything else."""
    content = read_content(path)
    with parsing(path, what, advice):
        return json.loads(content.decode("utf-8-sig"))


def open_npz(path: str | Path) -> NpzFile:
    """A numpy archive that is measured before its arrays unfold; pickled objects are refused.

    Raises:
        ValueError: one line naming the file, if it is none or claims more than it holds.
    """
    import numpy as np
    from numpy.lib import format as npy

    check_archive(path)
    with parsing(path, "archive of arrays"):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    version = npy.read_magic(file)
                    read = (
                        npy.read_array_header_1_0
                        if version == (1, 0)
                        else npy.read_array_header_2_0
                    )
                    shape, _, dtype = read(file)
                if dtype.hasobject:
                    raise ValueError(f"{member.filename} holds pickled objects; they stay closed")
                if prod(shape) * dtype.itemsize > member.file_size:
                    raise ValueError(f"{member.filename} claims to be {dtype} {shape}")
        found: NpzFile = np.load(path, allow_pickle=False)
        return found


def words_of(array: NDArray[Any], longest: int = 4096) -> tuple[str, ...]:
    """Names in an array of texts or whole numbers, at most `longest` bytes each.

    numpy makes strings of numbers that are no characters, which no other function can take.
    """
    import numpy as np

    kind = array.dtype
    if kind.kind not in "uiUS" or kind.itemsize > longest:
        raise ValueError(f"{kind} are no names")
    if kind.kind == "U" and array.size:
        code = np.dtype(np.uint32).newbyteorder(kind.byteorder)
        if np.ascontiguousarray(array).reshape(-1).view(code).max() > sys.maxunicode:
            raise ValueError("it holds what is no text")
    return tuple(map(str, array.ravel()))


def check_archive(path: str | Path, ratio: int = RATIO, least: int = UNFOLDED) -> None:
    """Refuse a file that is no zip archive, or that unfolds to more than such a file can hold.

    Args:
        ratio: how many times the file's own size its members may have together ...
        least: ... if that is more than this many bytes.
    """
    size = size_of(path)
    with parsing(path, "zip archive"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = {member.filename for member in members}
    if len(names) < len(members):
        raise ValueError(f"{path}: holds two members of one name")
    unfolded = sum(member.file_size for member in members)
    if unfolded > max(ratio * size, least):
        raise ValueError(f"{path}: {size:,} bytes that claim to unfold to {unfolded:,}")
