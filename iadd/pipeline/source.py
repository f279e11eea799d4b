"""Which code a stage's result depends on, and the commit that is recorded beside the results."""

from __future__ import annotations

import subprocess
from pathlib import Path

from iadd.artifacts import source_hash

PACKAGE = Path(__file__).parent.parent
GIT_SECONDS = 10

_TRAINING = (
    *("artifacts", "augment", "data", "devices", "engine", "extension"),
    *("networks", "seeds", "train"),
)
_JUDGING = ("synthetic", "evaluation")


def source_of(stage: str, method: str | None = None) -> str:
    """Hash of the code that a stage's result depends on: packages, and one method's own file.

    The kernels' text is part of it where it lies beside the package, as in a checkout.
    """
    packages = {
        "data": ("artifacts", "augment", "data"),
        "experts": (*_TRAINING, "experts"),
        "methods": (*_TRAINING, "api", "experts", *_JUDGING),
        "submit": ("artifacts", "data", "synthetic", "exchange"),
        "evaluate": (*_TRAINING, *_JUDGING),
        "privacy": (*_TRAINING, *_JUDGING, "privacy"),
        "tables": ("artifacts", "seeds", "leaderboard"),
    }[stage]
    paths: list[Path] = []
    for name in packages:
        folder = PACKAGE / name
        paths += sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{name}.py"]
    if stage not in ("data", "submit", "tables"):
        paths += sorted((PACKAGE.parent / "csrc").glob("*.*"))
    if method:
        paths += [
            *sorted((PACKAGE / "methods").glob("_*.py")),
            PACKAGE / "methods" / f"{method}.py",
        ]
    return source_hash(path for path in paths if path.exists())[:16]


def git_commit() -> str | None:
    """The commit of the checkout whose root holds this package, with "-dirty" where files differ.

    None for an installed package, in another repository's folder, or without git: no result
    depends on it.
    """
    root = PACKAGE.parent.resolve()
    found = []
    for words in (
        ("rev-parse", "--show-toplevel"),
        ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
    ):
        command = ["git", "-C", str(root), *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=GIT_SECONDS
            )
        except (OSError, subprocess.SubprocessError):
            return None
        found.append(done.stdout.strip())
    top, commit = found
    return commit if Path(top).resolve() == root else None
