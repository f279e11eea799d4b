"""The extension's build: what it decides, what it says, and when it may fail.

On a tree with two tiny sources, so that a build takes a second; the real CUDA file is compiled at
the end where nvcc is there.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).parent.parent
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
CUDA_TORCH = pytest.mark.skipif(torch.version.cuda is None, reason="torch without CUDA")


@pytest.fixture
def tree(tmp_path):
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").write_text("a tree for building")
    (tmp_path / "iadd").mkdir()
    (tmp_path / "iadd" / "__init__.py").touch()
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "same.cpp").write_text('extern "C" int answer() { return 42; }\n')
    (tmp_path / "csrc" / "same.cu").write_text('extern "C" int other() { return 43; }\n')
    return tmp_path


def build(tree, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("IADD_", "TORCH_CUDA"))}
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def library(tree):
    found = list((tree / "iadd").glob("_C*.so"))
    assert len(found) <= 1
    return found[0] if found else None


def says(done):
    return [line for line in done.stdout.splitlines() if line.startswith("iadd._C: ")]


def test_cpp_alone_past_a_stale_lock(tree):
    temporary = tree / "build" / f"temp.{sys.platform}" / "csrc"
    temporary.mkdir(parents=True)
    for name in ("lock", ".ninja_lock"):
        (temporary / name).touch()
    done = build(tree, IADD_CUDA="0")
    assert done.returncode == 0, done.stderr
    assert says(done) == ["iadd._C: no CUDA kernels: IADD_CUDA=0", "iadd._C: built with C++ only"]
    symbols = library(tree).read_bytes()
    assert b"answer" in symbols and b"other" not in symbols


def test_left_out_on_request(tree):
    done = build(tree, IADD_EXTENSION="0")
    assert done.returncode == 0
    assert says(done) == ["iadd._C: not built: IADD_EXTENSION=0"]
    assert library(tree) is None


def test_no_compiler_is_no_failure_unless_the_extension_is_demanded(tree):
    nothing = {"CXX": "/nowhere/c++", "CC": "/nowhere/cc", "IADD_CUDA": "0"}
    done = build(tree, **nothing)
    assert done.returncode == 0, done.stderr
    assert says(done)[-1] == "iadd._C: not built: iadd runs on plain PyTorch, slower"
    assert library(tree) is None
    assert build(tree, **nothing, IADD_EXTENSION="1").returncode != 0


@CUDA_TORCH
def test_a_broken_nvcc_leaves_the_cpp_unless_cuda_is_demanded(tree):
    nvcc = tree / "toolkit" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\nexit 1\n")
    nvcc.chmod(0o755)
    done = build(tree, CUDA_HOME=str(tree / "toolkit"))
    assert done.returncode == 0, done.stderr
    lines = says(done)
    assert lines[0].startswith("iadd._C: CUDA kernels for 8.0;9.0+PTX, toolkit ")
    assert lines[1].startswith("iadd._C: C++ and CUDA failed: ")
    assert lines[2] == "iadd._C: built with C++ only"
    assert library(tree) is not None
    assert build(tree, CUDA_HOME=str(tree / "toolkit"), IADD_CUDA="1").returncode != 0


def test_cuda_demanded_where_there_is_none(tree):
    done = build(tree, CUDA_HOME=str(tree), IADD_CUDA="1")
    assert done.returncode != 0
    assert "IADD_CUDA=1, but " in done.stderr
    assert build(tree, CUDA_HOME=str(tree)).returncode == 0  # not demanded


def test_variables_take_0_1_or_nothing(tree):
    done = build(tree, IADD_CUDA="yes")
    assert done.returncode != 0
    assert "IADD_CUDA=yes: allowed are 0, 1 or unset" in done.stderr


def test_the_toolkit_that_pip_installed_is_found_and_linked(tree, monkeypatch):
    """pip has it under `nvidia/cu13`, and the runtime library under its version's name alone."""
    monkeypatch.setenv("IADD_EXTENSION", "0")
    monkeypatch.setattr("setuptools.setup", lambda: None)
    script = runpy.run_path(str(tree / "setup.py"))
    packages = tree / "packages"
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(packages))
    assert script["pip_toolkit"]() is None
    home = packages / "nvidia" / "cu13"
    for name in ("bin/nvcc", "lib/libcudart.so.13"):
        (home / name).parent.mkdir(parents=True)
        (home / name).touch()
    assert script["pip_toolkit"]() == home
    for _ in range(2):  # a second build finds the link of the first
        (folder,) = script["runtime_folder"](home)
        assert (Path(folder) / "libcudart.so").samefile(home / "lib" / "libcudart.so.13")
    (home / "lib64").mkdir()  # a system's toolkit: PyTorch knows where its libraries are
    assert script["runtime_folder"](home) == []


@CUDA_TORCH
@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_cpp_and_cuda_of_one_name_in_one_library(tree):
    done = build(tree, IADD_CUDA="1", TORCH_CUDA_ARCH_LIST="9.0")
    assert done.returncode == 0, done.stderr
    assert says(done)[-1] == "iadd._C: built with C++ and CUDA"
    symbols = library(tree).read_bytes()
    assert b"answer" in symbols and b"other" in symbols


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_cuda_file_compiles_without_spills_and_loads_128_bits(tmp_path):
    command = [NVCC, "-std=c++20", "-O3", "-DIADD_WITH_CUDA", "-Xptxas", "-v", "-c"]
    command += ["-gencode", "arch=compute_90,code=sm_90", "--keep", "--keep-dir", str(tmp_path)]
    command += [str(ROOT / "csrc" / "distance.cu"), "-o", str(tmp_path / "x.o")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert len(spills) == 6 and set(spills) == {("0", "0")}
    (ptx,) = tmp_path.glob("distance*.ptx")
    kernels = re.split(r"\.entry ", ptx.read_text())[1:]
    # float32 with weights: s, o, t, w in, two gradients out
    (kernel,) = [k for k in kernels if re.match(r"\w*distance_kernelIfLb1E", k)]
    assert len(re.findall(r"ld\.global\.v4\.[fbu]32", kernel)) == 4
    assert len(re.findall(r"st\.global\.v4\.[fbu]32", kernel)) == 2


@pytest.mark.parametrize("header", sorted(path.name for path in (ROOT / "csrc").glob("*.h")))
def test_every_header_compiles_alone(header):
    compiler = shutil.which("c++") or pytest.skip("no C++ compiler")
    command = [compiler, "-std=c++20", "-fopenmp", "-Wall", "-fsyntax-only", "-x", "c++", "-"]
    command += [f"-I{ROOT / 'csrc'}", *(f"-isystem{path}" for path in include_paths())]
    text = f'#include "{header}"\n'
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
