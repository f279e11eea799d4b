"""The tested versions stand for every dependency, and fit what pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def test_constraints_name_every_dependency_at_an_allowed_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    known = {canonicalize_name(name): version for name, version in pinned.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        wanted = Requirement(text)
        assert wanted.specifier, f"{text}: no lowest version"
        assert known[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_make_uses_them_when_told_to() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert len(re.findall(r"pip install -q \$\(PINNED\)", makefile)) == makefile.count(
        "pip install -q"
    )
