"""Imports point down only, each heavy library has one package, randomness is a value."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "iadd"
LAYERS = [  # from the ground up; a package may import packages of lower layers only
    {"cards"},
    {"artifacts", "seeds", "progress", "devices", "extension"},
    {"augment", "networks"},
    {"data"},
    {"synthetic", "engine"},
    {"train"},
    {"experts", "evaluation"},
    {"methods", "exchange", "privacy"},
    {"leaderboard", "api"},
    {"pipeline"},
    {"search"},
    {"commands"},
    {"__main__"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
ONLY = {
    "ray": {"search"},
    "optuna": {"search"},
    "pandas": {"leaderboard", "search"},
    "pyarrow": {"data", "leaderboard", "search"},
    "torchvision": {"data", "networks"},
    "sklearn": {"data"},
    "matplotlib": {"leaderboard", "search"},
    "yaml": {"pipeline"},
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        package = parts[0].removesuffix(".py")
        if package != "__init__":
            found.append((package, path))
    return found


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module in ("iadd", "iadd.methods"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_package_has_a_layer() -> None:
    assert {package for package, _ in modules()} <= set(LEVEL)


def test_imports_point_down_only() -> None:
    wrong = []
    for package, path in modules():
        for name in imported(path):
            parts = name.split(".")
            used = parts[1] if parts[0] == "iadd" and len(parts) > 1 else package
            if used in LEVEL and used != package and LEVEL[used] >= LEVEL[package]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_methods_never_import_each_other() -> None:
    for path in (PACKAGE / "methods").glob("[a-z]*.py"):
        used = {n.split(".")[2] for n in imported(path) if n.count(".") >= 2 and ".methods." in n}
        assert all(name.startswith("_") for name in used), f"{path.name} imports {used}"


def test_heavy_libraries_have_one_package_each() -> None:
    for package, path in modules():
        for name in {n.split(".")[0] for n in imported(path)} & set(ONLY):
            assert package in ONLY[name], f"{path.relative_to(PACKAGE)} imports {name}"


def test_test_data_is_opened_by_the_evaluation_alone() -> None:
    users = {package for package, path in modules() if "open_test" in path.read_text()}
    assert users == {"data", "evaluation"}


def test_no_global_random_state_and_no_unpickling() -> None:
    forbidden = (
        "torch.manual_seed",
        "np.random.seed",
        "random.seed(",
        "import pickle",
        "time.time() *",
    )
    for _, path in modules():
        text = path.read_text()
        assert not [word for word in forbidden if word in text], path
        for line in text.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, path


def test_modules_and_functions_fit_on_a_few_screens() -> None:
    for _, path in modules():
        plug_in = path.parent.name == "methods" and not path.name.startswith("_")
        lines = path.read_text().splitlines()
        # iadd is three readings of one method.
        assert len(lines) <= (120 if plug_in and path.name != "iadd.py" else 300), path
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 50, f"{path}: {node.name}"
    for path in (PACKAGE.parent / "csrc").iterdir():
        assert len(path.read_text().splitlines()) <= 300, path


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import iadd.leaderboard.results", ("torch", "scipy", "pandas", "matplotlib")),
        (
            "import iadd.pipeline.stages",
            ("ray", "snakemake", "pandas", "scipy", "sklearn", "torchvision"),
        ),
        ("import iadd", ("torch", "numpy")),
    ],
)
def test_start_up_does_not_load_what_it_does_not_need(
    statement: str, absent: tuple[str, ...]
) -> None:
    code = f"import sys; {statement}; print(*[m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
