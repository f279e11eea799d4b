"""Build `iadd/_C*.so` from csrc/: operators for PyTorch's dispatcher, no Python module.

By ninja, in this step and no other: nothing is compiled, locked or downloaded when iadd runs. The
package works without it, on plain PyTorch. Variables:

    IADD_CUDA       unset: CUDA kernels iff nvcc is found and torch is a CUDA build.
                    1: they must be built, or the build fails. 0: leave them out.
    IADD_EXTENSION  unset: a failed build is reported and done without.
                    1: it fails. 0: build nothing.
    TORCH_CUDA_ARCH_LIST   default 8.0;9.0+PTX        CUDA_HOME   default: where nvcc lies, on the
                    path, under /usr/local/cuda, or installed by pip (the extra `cuda`)

The C++ is compiled for any x86-64 (or other) processor; functions with loops that profit carry
AVX2 and AVX-512 versions, chosen at run time, so one build serves every node of a cluster.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
ARCHITECTURES = "8.0;9.0+PTX"


def setting(name):
    """The variable `name`: True for 1, False for 0, None when unset."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"{name}={value}: allowed are 0, 1 or unset")
    return bool(int(value)) if value else None


def say(line):
    print(f"iadd._C: {line}", flush=True)


def cuda_home():
    """The toolkit's folder, or None. nvcc may be a wrapper script: it says itself where it lies."""
    if "CUDA_HOME" in os.environ:
        home = Path(os.environ["CUDA_HOME"])
        return home if (home / "bin" / "nvcc").exists() else None
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        return pip_toolkit()
    dry = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
    for line in dry.stderr.splitlines():
        if line.startswith("#$ TOP="):
            return Path(line.removeprefix("#$ TOP=")).resolve()
    return Path(nvcc).resolve().parent.parent


def pip_toolkit():
    """The toolkit's folder among Python's packages, or None."""
    found = Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/nvcc")
    return max((nvcc.parent.parent for nvcc in found), default=None)


def runtime_folder(home):
    """A folder with `libcudart.so`, which pip's packages have under its version's name alone."""
    libraries = sorted((home / "lib").glob("libcudart.so.*"))
    if (home / "lib64").exists() or not libraries:
        return []
    folder = ROOT / "build" / "cudart"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "libcudart.so"
    link.unlink(missing_ok=True)
    link.symlink_to(libraries[-1])
    return [str(folder)]


def wanted_cuda():
    """Whether to build the CUDA kernels; says why not, and fails where they are demanded."""
    demand = setting("IADD_CUDA")
    if demand is False:
        say("no CUDA kernels: IADD_CUDA=0")
        return False
    import torch

    home = cuda_home()
    if home is None or torch.version.cuda is None:
        why = "nvcc was not found" if home is None else f"torch {torch.__version__} has no CUDA"
        if demand:
            raise SystemExit(f"IADD_CUDA=1, but {why}")
        say(f"no CUDA kernels: {why}")
        return False
    os.environ["CUDA_HOME"] = str(home)  # read when torch.utils.cpp_extension is imported
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    say(f"CUDA kernels for {os.environ['TORCH_CUDA_ARCH_LIST']}, toolkit {home}")
    return True


def extension(cuda):
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    # Relative sources (an sdist wants them so), absolute includes (ninja runs elsewhere).
    sources = [path.relative_to(ROOT) for path in ROOT.glob("csrc/*.cpp")]
    sources += [path.relative_to(ROOT) for path in ROOT.glob("csrc/*.cu") if cuda]
    # OpenMP is not linked: its symbols come with torch, whose thread pool this must be.
    openmp = ["-fopenmp"] if sys.platform == "linux" else []
    flags = ["-O3", "-std=c++20"]
    return (CUDAExtension if cuda else CppExtension)(
        "iadd._C",
        sorted(map(str, sources)),
        include_dirs=[str(ROOT.resolve() / "csrc")],
        library_dirs=runtime_folder(Path(os.environ["CUDA_HOME"])) if cuda else [],
        define_macros=[("IADD_WITH_CUDA", None)] if cuda else [],
        extra_compile_args={"cxx": [*flags, "-g0", "-fno-math-errno", *openmp], "nvcc": flags},
        py_limited_api=True,  # it has no Python in it: any version loads it
    )


def name_objects(compiler):
    """x.cpp and x.cu lie side by side: let the object of x.cu be x.cu.o and not x.o again."""
    plain = compiler.object_filenames

    def object_filenames(sources, *args, **kwargs):
        objects = plain(sources, *args, **kwargs)
        pairs = zip(sources, objects, strict=True)
        return [o[:-2] + ".cu.o" if str(s).endswith(".cu") else o for s, o in pairs]

    compiler.object_filenames = object_filenames


def build_command(cuda):
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        """Falls back from C++ and CUDA to C++, and from C++ to nothing, unless told not to."""

        def build_extensions(self):
            name_objects(self.compiler)
            demanded = setting("IADD_EXTENSION") or setting("IADD_CUDA")
            for with_cuda in [True, False] if cuda else [False]:
                vars(self.extensions[0]).update(vars(extension(with_cuda)))
                try:
                    super().build_extensions()
                except Exception as error:
                    if demanded:
                        raise
                    lines = str(error).splitlines() or [type(error).__name__]
                    say(f"{'C++ and CUDA' if with_cuda else 'C++'} failed: {lines[0]}")
                else:
                    say(f"built with C++{' and CUDA' if with_cuda else ' only'}")
                    return
            say("not built: iadd runs on plain PyTorch, slower")
            self.extensions = []

    return Build.with_options(use_ninja=True)


if setting("IADD_EXTENSION") is False:
    say("not built: IADD_EXTENSION=0")
    setup()
else:
    CUDA = wanted_cuda()
    setup(ext_modules=[extension(CUDA)], cmdclass={"build_ext": build_command(CUDA)})
