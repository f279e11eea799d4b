"""Files that are written whole or not at all."""

from __future__ import annotations

import glob
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name; the file or folder written there replaces `path` at the end.

    The bytes are on the disk before the name appears, so a reader sees the old file, the new file
    or none. On any error the draft is removed and `path` is left as it was; what a killed process
    left is removed by the next that writes the same file on the same machine.

    Raises:
        ValueError: one line naming `path`, for a full disk, a read-only folder and the like.
    """
    path = Path(path)
    # A folder of its own: libraries that write put further temporary files beside theirs.
    draft = path.with_name(f"{_drafts(path)}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        draft.mkdir(parents=True)
        _remove_drafts(path)
        yield draft / path.name
        _flush(draft / path.name)
        (draft / path.name).replace(path)
        _flush(path.parent)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a file, if it is there, and what killed processes left when they wrote it."""
    path.unlink(missing_ok=True)
    _remove_drafts(path)


def _drafts(path: Path) -> str:
    """What the names of this machine's drafts of a file begin with."""
    return f".{path.name}.{platform.node()}"


def _remove_drafts(path: Path) -> None:
    """Of processes that run no more."""
    for other in path.parent.glob(f"{glob.escape(_drafts(path))}.*.tmp"):
        if not alive(other.suffixes[-3][1:]):
            shutil.rmtree(other, ignore_errors=True)


def alive(process: str | int) -> bool:
    """Whether the process of this machine with that number may still be running."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write bytes to a file, whole or not at all (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def locked(path: Path, refused: str = "", patience: float = -1) -> Iterator[None]:
    """Hold a lock file, which the kernel takes back from a killed process and its children.

    On file systems without locks a file with the process's number does it.

    Args:
        path: the lock file; its folder is made.
        refused: what is said where another process holds it.
        patience: seconds to wait for that process; -1: for ever.

    Raises:
        ValueError: `refused`, or a folder that cannot be written.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(path).acquire(timeout=patience)
        except OSError as error:
            if isinstance(error, Timeout):
                raise
            held = SoftFileLock(path.with_suffix(".pid")).acquire(timeout=patience)
    except Timeout:
        raise ValueError(refused + holder(path)) from None
    except OSError as error:
        where = path.parent.absolute()
        raise ValueError(f"{where}: cannot be written ({error.strerror})") from None
    with held:
        yield


def holder(path: Path) -> str:
    """Which process of this machine holds a lock, in words, where the kernel says so (Linux)."""
    with suppress(OSError, IndexError):
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[5].rpartition(":")[2] == inode and words[4] not in ("0", "-1"):
                return f" (process {words[4]})"
    return ""
