"""A published table on one card: CIFAR-10 by the full recipe, `mtt` beside `iadd`, stage by stage.

    python benchmarks/gpu_table.py IMAGES [--ipc 1] [--experts 20] [--precision float32]
        [--seconds 540] [--until verdict] [--dry]

IMAGES holds `train/<class>/` and `test/<class>/`. Settings are those of config/cifar10.yaml with
ZCA; one seed, one protocol and one kind of network are the cuts, and 20 experts of 100 unless
`--experts` says otherwise, so that the table fits into minutes. The two
methods share the card, each in a process of its own. Stages are called without Snakemake, which a
bare machine may lack; each stage's seconds are printed as it ends. What is done when the time is
over stays in results/: the same command goes on there. `--until data` prepares the data beside
other work. `--dry` rehearses it on a CPU in float32 with few updates: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from iadd.artifacts import spec_hash

METHODS = ("mtt", "iadd")
STAGES = ("data", "experts", "distill", "evaluate", "tables", "verdict")
ROOT = Path(__file__).parent.parent


def benchmark(images: str, ipc: int, experts: int, precision: str, dry: bool) -> dict[str, Any]:
    """config/cifar10.yaml on folders of images, one ipc, one seed, one protocol, two methods."""
    published = yaml.safe_load((ROOT / "config" / "cifar10.yaml").read_text())
    methods = {
        name: {
            "params": published["methods"][name]["params"] | published["methods"][name]["ipc"][ipc]
        }
        for name in METHODS
    }
    families = ["color", "crop", "cutout", "flip", "scale", "rotate"]
    data = {"name": "folder", "label": "cifar10", "root": images, "zca": True}
    judged = {"protocol": "mtt-v1", "networks": {published["network"]: 5}, "epochs": 1000}
    found = {
        "benchmark": f"gpu-table-ipc{ipc}",
        "seeds": 1,
        "ipc": [ipc],
        "datasets": [data | {"published": "cifar10", "augmentation": families, "resolution": 32}],
        "network": published["network"],
        "precision": precision,
        "experts": {"count": experts, "per_shard": experts},
        "validation": published["validation"],
        "evaluations": [judged],
        "methods": methods,
    }
    if dry:
        found |= {
            "network": "convnet-d3-w4",
            "precision": "float32",
            "validation": {"networks": 1, "epochs": 2},
        }
        judged |= {"networks": {"convnet-d3-w4": 1}, "epochs": 2}
        for method in methods.values():
            method["params"] |= {"iterations": 2, "unrolled_steps": 2, "max_start": 1}
    return found


class Clock:
    """Runs `iadd` commands side by side until the time is over; prints what each stage took.

    A stage that was done before, as a file in `done` tells, is not done again.
    """

    def __init__(self, seconds: float, done: Path) -> None:
        self.end, self.done = time.monotonic() + seconds, done
        done.mkdir(parents=True, exist_ok=True)

    def stage(self, name: str, *commands: list[str]) -> None:
        if (self.done / name).exists():
            return
        began = time.monotonic()
        running = [subprocess.Popen([sys.executable, "-m", "iadd", *c]) for c in commands]
        try:
            codes = [job.wait(max(self.end - time.monotonic(), 1)) for job in running]
        except subprocess.TimeoutExpired:
            for job in running:
                job.terminate()
            for job in running:
                job.wait()
            raise SystemExit(f"gpu_table.py: the time was over in stage {name}") from None
        print(
            json.dumps({"stage": name, "seconds": round(time.monotonic() - began, 1)}), flush=True
        )
        if any(codes):
            raise SystemExit(f"gpu_table.py: stage {name} failed")
        (self.done / name).touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("--ipc", type=int, choices=[1, 10, 50], default=1)
    parser.add_argument("--experts", type=int, default=20)
    parser.add_argument("--precision", choices=["float32", "tf32"], default="float32")
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1])
    parser.add_argument("--dry", action="store_true", help="rehearse on the CPU, tiny")
    given = parser.parse_args()
    config = Path(f"gpu-table-ipc{given.ipc}.yaml")
    images = str(Path(given.images).resolve())
    wanted = benchmark(images, given.ipc, given.experts, given.precision, given.dry)
    config.write_text(yaml.safe_dump(wanted))
    path, done = str(config), Path(f"gpu-table-{spec_hash(wanted)[:16]}.done")
    clock = Clock(given.seconds, done)
    device = ["--device", "cpu" if given.dry else "cuda:0"]  # named, so that nobody waits for it
    runs = [[path, "--method", name, "--ipc", str(given.ipc), *device] for name in METHODS]
    commands = {
        "data": [["data", path]],
        "experts": [["experts", path, *device]],
        "distill": [["distill", *run] for run in runs],
        "evaluate": [["evaluate", *run] for run in runs],
        "tables": [["collect", path]],
        "verdict": [["reproduce", path]],
    }
    for stage in STAGES[: STAGES.index(given.until) + 1]:
        clock.stage(stage, *commands[stage])


if __name__ == "__main__":
    main()
