"""A configuration file as plain data, and what is wrong with it in one line.

YAML 1.2's core schema as far as a benchmark needs it: only `true` and `false` are booleans (`off`
is a word), `1e-3` is a number, a date is a word. A key given twice is refused, and so is a file
whose aliases unfold to more than a configuration can be.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from iadd.artifacts import parsing, read_content

LARGEST = 100_000
"""Values in a file once its aliases are unfolded."""
LONGEST = 256 * 1024
"""Bytes of a file: a parser in Python takes seconds for them."""
FLOAT32 = 3.4e38
"""Numbers end up in float32 tensors."""
INT64 = 2**63
"""And integers in those of 64 bits."""


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys; resolves plain words as YAML 1.2 does."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ValueError(f"line {key_node.start_mark.line + 1}: a key must be a word")
            if key in seen:
                raise ValueError(f"line {key_node.start_mark.line + 1}: key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first)
    )


def _integer(loader: _Loader, node: Any) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)  # 010 is ten


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


class Section(BaseModel):
    """A mapping of the file; other keys than its fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML file.

    Raises:
        ValueError: one line naming the file: unreadable, no UTF-8, no YAML, a key given twice.
    """
    try:
        text = read_content(path, LONGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None
    with parsing(path, "YAML"):
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}) > LARGEST:
                raise ValueError(f"its aliases unfold to more than {LARGEST} values")
            return loader.construct_document(node)
        except RecursionError:
            raise ValueError(f"{path}: is nested too deeply") from None
        except (ScannerError, ParserError) as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            advice = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
            raise ValueError(f"line {line}: {error.problem}{advice}") from None
        finally:
            loader.dispose()


def _size(node: Any, known: dict[int, int]) -> int:
    """How many values a node unfolds to; ValueError for one that contains itself."""
    if id(node) not in known:
        known[id(node)] = -1  # being counted
        children = [] if isinstance(node.value, str) else node.value
        pairs = isinstance(node, yaml.MappingNode)
        flat = [child for pair in children for child in pair] if pairs else children
        known[id(node)] = 1 + sum(_size(child, known) for child in flat)
    if known[id(node)] < 0:
        raise ValueError(f"line {node.start_mark.line + 1}: contains itself by an alias")
    return known[id(node)]


def check_numbers(value: Any, key: str = "") -> None:
    """ValueError for a number that no float32 tensor can hold, naming its key."""
    if isinstance(value, dict):
        for name, part in value.items():
            check_numbers(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for part in value:
            check_numbers(part, key)
    elif isinstance(value, float) and not (math.isfinite(value) and abs(value) < FLOAT32):
        raise ValueError(f"{key}: {value} is no float32 number (at most {FLOAT32:g})")
    elif isinstance(value, int) and not -INT64 <= value < INT64:
        raise ValueError(f"{key}: {reprlib.repr(value)} has more than 64 bits")


def check_booleans(given: Any, parsed: Any, key: str = "") -> None:
    """ValueError where `true` or `false` was taken for the number 1 or 0, naming its key."""
    if isinstance(given, bool) and not isinstance(parsed, bool):
        raise ValueError(f"{key}: must be a number (given: {str(given).lower()})")
    if isinstance(given, dict) and isinstance(parsed, dict):
        for name in given.keys() & parsed.keys():
            check_booleans(given[name], parsed[name], f"{key}.{name}" if key else str(name))
    elif isinstance(given, list) and isinstance(parsed, list | tuple):
        for mine, other in zip(given, parsed, strict=False):
            check_booleans(mine, other, key)


SHELL = "\"'`$\\!{}"
"""What means something inside a shell's double quotes, where SLURM's plugin puts commands, or to
Snakemake in a command."""


def refuse_shell(path: str | Path) -> None:
    """ValueError for a path that a command could not name, or that would run as a part of it.

    Rules quote the paths that they name; schedulers quote commands once more, not all of them well.
    """
    text = str(path)
    wrong = sorted({c for c in text if c in SHELL or not c.isprintable()})
    if wrong or text.startswith("-"):
        what = "a - at its beginning" if not wrong else " ".join(map(repr, wrong))
        raise ValueError(f"{text}: has {what}, which jobs' commands cannot name; rename it")


NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
"""Of what becomes part of a path: it cannot lead out of results/<benchmark>/."""
PATTERN = (
    "must be letters, digits, _ or . (names of benchmarks and methods also -), at most 64, and "
    "begin with a letter, a digit or _"
)
_TEXTS = {
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list in brackets, even of one"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type"), "must be a mapping: keys with values"
    ),
    "string_type": "must be text; quote it",
    "string_pattern_mismatch": PATTERN,
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
}
"""What pydantic's kinds of problems are called here; braces hold its own figures."""
_BARE = ("missing", "value_error", "extra_forbidden")


def first_problem(error: ValidationError) -> str:
    """The first problem as one line: key, what is allowed, what was given."""
    problem = error.errors()[0]
    kind = problem["type"]
    key = ".".join(str(part) for part in problem["loc"])
    if kind == "extra_forbidden":
        return f"unknown key {key!r}"
    text = problem["msg"].removeprefix("Value error, ")
    if kind in _TEXTS:
        text = _TEXTS[kind].format(**problem.get("ctx", {}))
    if kind not in _BARE:
        text += f" (given: {reprlib.repr(problem['input'])})"
    return f"{key}: {text}" if key else text


def allowed_keys(error: ValidationError, model: Any) -> str:
    """The keys that may stand where an unknown one was found, as the end of a message."""
    problem = error.errors()[0]
    if problem["type"] != "extra_forbidden":
        return ""
    for part in problem["loc"][:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        if field:
            kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
            models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
            model = models[0] if models else None
    fields = getattr(model, "model_fields", {})
    return f"; allowed: {', '.join(fields)}" if fields else ""
