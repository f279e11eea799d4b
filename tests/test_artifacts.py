"""Files are written whole or not at all, and read only by who expects them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iadd import artifacts

SPEC = {"dataset": "digits", "recipe": {"lr": 0.05, "epochs": 40}, "seeds": [1, 2]}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "shard.safetensors"
    tensors = {"parameters": torch.arange(24.0).reshape(2, 3, 4), "epochs": torch.tensor([0, 2, 5])}
    artifacts.save_tensors(path, tensors, SPEC, {"seconds": 1.5})
    return path


def one_line(error: pytest.ExceptionInfo[ValueError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_canonical_json_does_not_depend_on_order_or_container() -> None:
    assert artifacts.canonical_json({"b": (1, 2), "a": 0.1}) == '{"a":0.1,"b":[1,2]}'
    assert artifacts.spec_hash({"b": 1, "a": 2}) == artifacts.spec_hash({"a": 2, "b": 1})
    assert artifacts.spec_hash({"a": 1}) != artifacts.spec_hash({"a": 2})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, Path("x")])
def test_canonical_json_refuses_what_has_no_one_text(value: object) -> None:
    with pytest.raises(ValueError, match="spec: cannot be written as JSON"):
        artifacts.canonical_json({"key": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(JSON, JSON)
def test_first_difference_is_none_exactly_for_equal_texts(left: object, right: object) -> None:
    same = artifacts.canonical_json(left) == artifacts.canonical_json(right)
    assert (artifacts.first_difference(left, right) is None) == same
    assert artifacts.first_difference(left, left) is None


def test_source_hash_sees_content_and_name(tmp_path: Path) -> None:
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("x = 1\n")
    second.write_text("x = 1\n")
    before = artifacts.source_hash([first, second])
    assert before == artifacts.source_hash([str(first), str(second)])
    second.write_text("x = 2\n")
    assert artifacts.source_hash([first, second]) != before


def test_tensors_spec_and_attributes_come_back(stored: Path) -> None:
    loaded = artifacts.load_tensors(stored, SPEC)
    assert loaded.spec == SPEC
    assert loaded.attributes == {"seconds": 1.5}
    assert torch.equal(loaded.tensors["parameters"], torch.arange(24.0).reshape(2, 3, 4))
    assert loaded.tensors["epochs"].dtype == torch.int64


def test_a_part_is_read_as_indexing_would(stored: Path) -> None:
    file = artifacts.TensorFile(stored, {"dataset": "digits"})
    whole = torch.arange(24.0).reshape(2, 3, 4)
    assert file.names == ("epochs", "parameters")
    assert file.shape("parameters") == (2, 3, 4)
    assert torch.equal(file.get_slice("parameters", 1, 2), whole[1, 2])
    assert torch.equal(file.get_slice("parameters", slice(0, 1), 2), whole[0:1, 2])
    assert torch.equal(file.get_slice("parameters"), whole)


def test_a_part_is_a_copy_of_its_own(stored: Path) -> None:
    file = artifacts.TensorFile(stored)
    file.get_slice("parameters", 0, 0).zero_()
    assert torch.equal(file.get_slice("parameters", 0, 0), torch.arange(4.0))


def test_a_scalar_tensor_comes_back(tmp_path: Path) -> None:
    artifacts.save_tensors(tmp_path / "x", {"s": torch.tensor(3.0)}, {})
    assert artifacts.load_tensors(tmp_path / "x").tensors["s"].item() == 3.0


@pytest.mark.parametrize("index", [(2, 0), (0, 3), (-1, 0)])
def test_an_index_outside_is_refused(stored: Path, index: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no index") as error:
        artifacts.TensorFile(stored).get_slice("parameters", *index)
    one_line(error, stored.name, "(2, 3, 4)")


@pytest.mark.parametrize(
    ("expect", "parts"),
    [
        ({"dataset": "mnist"}, ('dataset is "digits" in the file', '"mnist" expected')),
        ({"recipe": {"lr": 0.05, "epochs": 50}}, ("recipe.epochs is 40", "50 expected")),
        ({"recipe": {"lr": 0.05}}, ("recipe.epochs is 40", "absent expected")),
        ({"network": "mlp"}, ("network is absent in the file", '"mlp" expected')),
        ({"seeds": [1, 3]}, ("seeds is [1,2]", "[1,3] expected")),
        # The first of several, in the order of names.
        ({"seeds": [], "dataset": "x"}, ("dataset is",)),
    ],
)
def test_another_spec_is_refused_by_key_and_both_sides(
    stored: Path, expect: dict[str, object], parts: tuple[str, ...]
) -> None:
    for reader in (artifacts.TensorFile, artifacts.load_tensors):
        with pytest.raises(ValueError) as error:
            reader(stored, expect)
        one_line(error, str(stored), *parts)


def test_another_spec_version_is_refused(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts.tensors, "SPEC_VERSION", "0.9")
    with pytest.raises(ValueError) as error:
        artifacts.TensorFile(stored)
    one_line(error, "spec_version is '2.2'", "reads '0.9'")


def test_a_truncated_file_is_refused_at_every_length(stored: Path) -> None:
    content = stored.read_bytes()
    for length in (0, 5, 8, 60, len(content) // 2, len(content) - 1):
        stored.write_bytes(content[:length])
        with pytest.raises(ValueError) as error:
            artifacts.TensorFile(stored, SPEC)
        one_line(error, str(stored), "is no readable safetensors file")


def test_foreign_and_missing_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="has no spec"):
        artifacts.load_tensors(tmp_path / "foreign")
    with pytest.raises(ValueError, match="no such file"):
        artifacts.load_tensors(tmp_path / "nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        artifacts.load_tensors(tmp_path)


def test_nan_is_refused_where_it_is_read(tmp_path: Path) -> None:
    rows = torch.zeros(3, 2)
    rows[1, 1] = float("nan")
    artifacts.save_tensors(tmp_path / "x", {"rows": rows}, {})
    file = artifacts.TensorFile(tmp_path / "x")
    assert torch.equal(file.get_slice("rows", 0), torch.zeros(2))
    with pytest.raises(ValueError, match="rows has NaN"):
        file.get_slice("rows", 1)
    with pytest.raises(ValueError, match="rows has NaN"):
        artifacts.load_tensors(tmp_path / "x")


def test_an_unknown_tensor_is_named_with_those_there(stored: Path) -> None:
    with pytest.raises(ValueError, match="no tensor 'weights', only epochs, parameters"):
        artifacts.TensorFile(stored).get_slice("weights", 0)


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table"
    artifacts.atomic_write(path, b"old")
    with pytest.raises(RuntimeError), artifacts.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("stopped")
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_the_draft_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    code = (
        "import os, signal, sys; from iadd import artifacts\n"
        "with artifacts.replacing(sys.argv[1]) as draft:\n"
        "    draft.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    repository = Path(artifacts.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=repository, check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".shard.")
    with artifacts.replacing(path) as outer:
        outer.write_bytes(b"outer")
        artifacts.atomic_write(path, b"inner")
        assert path.read_bytes() == b"inner"
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"outer"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=repository, check=False)
    with artifacts.replacing(path.with_name("other")) as outer:
        outer.write_bytes(b"")
        assert len(list(tmp_path.iterdir())) == 3
        artifacts.remove(path)  # its draft goes too, another file's stays
        assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write really fails half way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big, tensors, path = bytes(1 << 20), {"x": torch.zeros(1 << 18)}, tmp_path / "set"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
        with pytest.raises(ValueError) as plain:
            artifacts.atomic_write(path, big)
        with pytest.raises(ValueError) as tensor:
            artifacts.save_tensors(path, tensors, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one_line(plain, str(path), "cannot be written")
    one_line(tensor, str(path), "cannot be written")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (
        lambda path: artifacts.atomic_write(path, b""),
        lambda path: artifacts.save_tensors(path, {}, {}),
    ):
        with pytest.raises(ValueError) as error:
            write(tmp_path / "file" / "set")
        one_line(error, "cannot be written", "file/set")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ValueError, match="Permission denied"):
        artifacts.atomic_write(tmp_path / "x", b"")
    tmp_path.chmod(0o755)


def test_files_are_as_readable_as_others_in_the_folder(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    artifacts.atomic_write(tmp_path / "plain", b"")
    usual = (tmp_path / "usual").stat().st_mode
    assert stored.stat().st_mode == usual
    assert (tmp_path / "plain").stat().st_mode == usual


# --- checksums, malformed headers, views ----------------------------------------------------------


def test_any_flipped_bit_fails_where_it_is_read(stored: Path) -> None:
    content = bytearray(stored.read_bytes())
    for position in range(0, len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        stored.write_bytes(damaged)
        with pytest.raises(ValueError) as error:
            artifacts.load_tensors(stored)
        one_line(error, str(stored))


def test_a_damaged_part_leaves_the_others_readable(tmp_path: Path) -> None:
    path = tmp_path / "x"
    rows = torch.arange(3 * 40_000, dtype=torch.float32).reshape(3, 40_000)
    artifacts.save_tensors(path, {"rows": rows}, {})
    content = bytearray(path.read_bytes())
    content[-5] ^= 4  # in the last row
    path.write_bytes(content)
    file = artifacts.TensorFile(path)
    assert torch.equal(file.get_slice("rows", 0), rows[0])
    for read in (file.get_slice, file.view):
        with pytest.raises(ValueError, match="rows is damaged"):
            read("rows", 2)


def with_header(path: Path, text: bytes, data: bytes = bytes(96)) -> None:
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"x":3}',
        b'{"x":{}}',
        b'{"x":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"F32","shape":1,"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"F32","shape":[1]}}',
        b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0]}}',
        b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"F32","shape":[99],"data_offsets":[0,396]}}',
        b'{"__metadata__":[]}',
        b'{"__metadata__":{"spec":3}}',
        b'{"__metadata__":{"spec":"{","spec_version":"2.2"}}',
        b'{"__metadata__":{"spec":"{}","spec_version":"2.2","header_crc32":7}}',
    ],
)
def test_a_malformed_header_is_one_line(tmp_path: Path, text: bytes) -> None:
    with_header(tmp_path / "x", text)
    with pytest.raises(ValueError) as error:
        artifacts.load_tensors(tmp_path / "x")
    one_line(error, str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("spec", "[1]"), ("attributes", "[" * 5000), ("crc32", "{}"), ("crc32", '{"s":[1]}')],
)
def test_malformed_metadata_is_one_line(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "x"
    artifacts.save_tensors(path, {"s": torch.ones(2)}, {"a": 1})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + length])
    table["__metadata__"] |= {key: value, "header_crc32": "00000000"}
    text = json.dumps(table, separators=(",", ":")).encode()
    sum_of_it = b"%08x" % zlib.crc32(text)
    text = text.replace(b'"header_crc32":"00000000"', b'"header_crc32":"%s"' % sum_of_it)
    with_header(path, text, content[8 + length :])
    with pytest.raises(ValueError) as error:
        artifacts.load_tensors(path)
    one_line(error, str(path))
    assert "checksum of the header" not in str(error.value)


def test_other_readers_of_safetensors_open_the_files(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = {
        "half": torch.arange(5).bfloat16(),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "long": torch.arange(4).reshape(2, 2),
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "yes": torch.tensor([True, False]),
    }
    artifacts.save_tensors(tmp_path / "x", tensors, {"name": "é"})
    for found in (load_file(tmp_path / "x"), artifacts.load_tensors(tmp_path / "x").tensors):
        assert {name: (t.dtype, t.shape) for name, t in found.items()} == {
            name: (t.dtype, t.shape) for name, t in tensors.items()
        }
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_view_is_the_file_itself_and_writing_into_it_changes_no_file(stored: Path) -> None:
    file = artifacts.TensorFile(stored)
    view = file.view("parameters")
    assert view.data_ptr() == file.view("parameters").data_ptr()
    before = stored.read_bytes()
    view.zero_()
    assert stored.read_bytes() == before


def test_a_file_written_in_pieces_is_the_file_written_at_once(tmp_path: Path) -> None:
    a, b = torch.randn(1000, 100), torch.arange(1000)
    artifacts.save_tensors(tmp_path / "whole", {"a": a, "b": b}, SPEC)
    layout = {"a": (a.dtype, (1000, 100)), "b": (b.dtype, (1000,))}
    with artifacts.writing_tensors(tmp_path / "pieces", layout, SPEC) as append:
        for start in range(0, 1000, 333):
            append("a", a[start : start + 333])
            append("b", b[start : start + 333])
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


def test_pieces_must_add_up(tmp_path: Path) -> None:
    for rows in (torch.zeros(1), torch.zeros(3), torch.zeros(2, dtype=torch.int64)):
        with (
            pytest.raises(ValueError, match="x: a "),
            artifacts.writing_tensors(tmp_path / "x", {"a": (torch.float32, (2,))}, {}) as append,
        ):
            append("a", rows)
    assert list(tmp_path.iterdir()) == []
