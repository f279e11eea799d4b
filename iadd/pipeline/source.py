"""Which code a stage's result depends on."""

from __future__ import annotations

from pathlib import Path

from iadd.artifacts import source_hash

PACKAGE = Path(__file__).parent.parent

_TRAINING = (
    *("artifacts", "augment", "data", "devices", "engine", "extension"),
    *("networks", "seeds", "train"),
)


def source_of(stage: str, method: str | None = None) -> str:
    """Hash of the code that a stage's result depends on: its rooms, and one method's own file.

    The kernels' text is part of it where it lies beside the package, as in a checkout.
    """
    rooms = {
        "data": ("artifacts", "augment", "data"),
        "experts": (*_TRAINING, "experts"),
        "methods": (*_TRAINING, "api", "experts", "synthetic", "evaluation"),
        "evaluate": (*_TRAINING, "synthetic", "evaluation"),
        "tables": ("artifacts", "seeds", "leaderboard"),
    }[stage]
    paths: list[Path] = []
    for room in rooms:
        folder = PACKAGE / room
        paths += sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]
    if stage not in ("data", "tables"):
        paths += sorted((PACKAGE.parent / "csrc").glob("*.*"))
    if method:
        paths += [
            *sorted((PACKAGE / "methods").glob("_*.py")),
            PACKAGE / "methods" / f"{method}.py",
        ]
    return source_hash(path for path in paths if path.exists())[:16]
