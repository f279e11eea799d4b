"""Files with an identity: written whole or not at all, and read only by who expects them.

A tensor file is a safetensors file whose metadata holds the spec that made it (canonical JSON,
spec version) and checksums. Nothing is ever unpickled. torch is imported by the functions that need
it, so that table code can use the atomic writes without paying for it.
"""

from iadd.artifacts.identity import (
    SPEC_VERSION,
    canonical_json,
    first_difference,
    source_hash,
    spec_hash,
)
from iadd.artifacts.reading import (
    check_archive,
    complaint,
    counted,
    one_line,
    open_npz,
    parsing,
    read_content,
    read_json,
    regular,
    size_of,
    words_of,
)
from iadd.artifacts.tensors import Stored, TensorFile, load_tensors, save_tensors, writing_tensors
from iadd.artifacts.writing import atomic_write, holder, locked, remove, replacing
