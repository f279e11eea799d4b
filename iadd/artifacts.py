"""Files with an identity: written whole or not at all, and read only by who expects them.

A tensor file is a safetensors file whose metadata holds the spec that made it (canonical JSON,
spec version, hash). Nothing is ever unpickled. torch is imported by the functions that need it, so
that table code can use the atomic writes without paying for it.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SPEC_VERSION = "1.0"


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, exact floats, NaN refused."""
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"spec: cannot be written as JSON ({error})") from error


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of a spec's canonical JSON."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()


def source_hash(paths: Iterable[str | Path]) -> str:
    """Return the SHA-256 (hex) over the names and bytes of source files, in the given order."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name; what is written there takes the place of `path` at the end.

    The bytes are on the disk before the name appears, so a reader sees the old file, the new file
    or none. On any error the draft is removed and `path` is left as it was; what a killed process
    left is removed by the next that writes the same file on the same machine.

    Raises:
        ValueError: one line naming `path`, for a full disk, a read-only folder and the like.
    """
    path = Path(path)
    drafts = f".{path.name}.{platform.node()}"
    # A folder of its own: libraries that write put further temporary files beside theirs.
    draft = path.with_name(f"{drafts}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        draft.mkdir(parents=True)
        for other in path.parent.glob(f"{glob.escape(drafts)}.*.tmp"):
            if not _alive(other.suffixes[-3]):
                shutil.rmtree(other, ignore_errors=True)
        yield draft / path.name
        _flush(draft / path.name, os.O_RDWR)
        (draft / path.name).replace(path)
        _flush(path.parent, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _alive(suffix: str) -> bool:
    """Whether the process of a draft's `.pid` may still be running."""
    try:
        os.kill(int(suffix[1:]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write bytes to a file, whole or not at all (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    spec: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write named tensors (any shapes, dtypes) with their spec to a safetensors file, atomically.

    Args:
        spec: what made the tensors; the identity that readers check.
        attributes: what came out beside the tensors (numbers, names); not part of the identity.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    metadata = {
        "spec_version": SPEC_VERSION,
        "spec": canonical_json(spec),
        "spec_hash": spec_hash(spec),
        "attributes": canonical_json(attributes or {}),
    }
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(plain, temporary, metadata=metadata)
        except SafetensorError as error:
            reason = str(error).rpartition("I/O error: ")[2]
            raise ValueError(f"{path}: cannot be written ({reason})") from error
        temporary.chmod(mode)  # The library makes private files; a lab shares its results.


@dataclass(frozen=True, eq=False)
class Stored:
    """What a tensor file holds: named tensors, the spec that made them, further attributes."""

    tensors: dict[str, Tensor]
    spec: dict[str, Any]
    attributes: dict[str, Any]


def _mapped(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework="pt")
    except SafetensorError as error:
        raise ValueError(
            f"{path}: truncated or not a safetensors file ({error}); make it again"
        ) from error
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(f"{path}: cannot be read ({reason})") from error


class TensorFile:
    """A tensor file opened by memory mapping: parts are read without reading the rest.

    Every part handed out is a copy of its own, checked for NaN and infinity.
    """

    def __init__(self, path: str | Path, expect: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._file = _mapped(self.path)
        self.spec, self.attributes = self._identity(self._file.metadata() or {})
        if expect is not None:
            self._check(expect)

    def _identity(self, metadata: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
        if "spec" not in metadata:
            raise ValueError(f"{self.path}: has no spec, so it was not written by iadd")
        version = metadata.get("spec_version")
        if version != SPEC_VERSION:
            raise ValueError(
                f"{self.path}: spec_version is {version!r}, this program reads {SPEC_VERSION!r}"
            )
        return json.loads(metadata["spec"]), json.loads(metadata.get("attributes", "{}"))

    def _check(self, expect: Mapping[str, Any]) -> None:
        wanted = json.loads(canonical_json(expect))
        found = {key: self.spec[key] for key in wanted if key in self.spec}
        different = first_difference(wanted, found)
        if different:
            key, left, right = different
            raise ValueError(
                f"{self.path}: is from another spec: {key} is {right} in the file, {left} expected"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors in the file, sorted."""
        return tuple(sorted(self._file.keys()))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return tuple(self._slice(name).get_shape())

    def get_slice(self, name: str, *index: int | slice) -> Tensor:
        """Return `tensor[index]`, e.g. `get_slice("parameters", expert, epoch)`; no index: all.

        Integer indices count from 0 and drop their axis.
        """
        shape = self.shape(name)
        for axis, position in enumerate(index):
            if isinstance(position, int) and not 0 <= position < shape[axis]:
                raise ValueError(f"{self.path}: {name} has {shape}, no index {position}")
        part: Tensor = self._slice(name)[index or slice(None)] if shape else self._whole(name)
        if part.is_floating_point() and not part.isfinite().all():
            raise ValueError(f"{self.path}: {name} has NaN or infinite values; make it again")
        return part.clone()

    def _whole(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def _slice(self, name: str) -> Any:
        if name not in self._file.keys():  # noqa: SIM118 - the handle is no mapping
            raise ValueError(f"{self.path}: has no tensor {name!r}, only {', '.join(self.names)}")
        return self._file.get_slice(name)


def open_tensors(path: str | Path, expect: Mapping[str, Any] | None = None) -> TensorFile:
    """Open a tensor file for random access, checking its identity.

    Args:
        expect: keys of the spec with the values they must have (nested values compared whole);
            keys that the file has beyond these are not looked at. None: no check.

    Raises:
        ValueError: one line for a missing, truncated or foreign file, or another spec, naming the
            first key that differs and both sides.
    """
    return TensorFile(path, expect)


def load_tensors(path: str | Path, expect: Mapping[str, Any] | None = None) -> Stored:
    """Read a whole tensor file; checks and errors as `open_tensors`, and NaN is refused."""
    file = open_tensors(path, expect)
    return Stored({name: file.get_slice(name) for name in file.names}, file.spec, file.attributes)


def first_difference(left: Any, right: Any, key: str = "") -> tuple[str, str, str] | None:
    """Return (dotted key, JSON on the left, JSON on the right) where two JSON values part."""
    if isinstance(left, dict) and isinstance(right, dict):
        for name in sorted({*left, *right}):
            inner = f"{key}.{name}" if key else name
            if name not in left or name not in right:
                sides = (
                    canonical_json(side[name]) if name in side else "absent"
                    for side in (left, right)
                )
                return inner, next(sides), next(sides)
            if different := first_difference(left[name], right[name], inner):
                return different
        return None
    if canonical_json(left) == canonical_json(right):
        return None
    return key, canonical_json(left), canonical_json(right)
