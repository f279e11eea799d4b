"""A tiny benchmark, its undisturbed tables, and the processes of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

MARK = "IADD_CHAOS"
"""In the environment of every process of a run: by it they are found, whoever their parent is."""
LONGEST = 1800
"""Seconds that a command may take on a machine that is busy with other things."""
SETTINGS = ("method", "ipc", "seed", "eval_seed", "network_eval", "tuned")
JUDGED = ("accuracy", "train_accuracy", "balanced_accuracy", "confusion", "auroc")
STUDENT = {"unrolled_steps": 2, "expert_epochs": 1, "max_start": 2, "lr_img": 1.0}


def benchmark(seeds: int = 3, **changes: Any) -> dict[str, Any]:
    """A configuration whose jobs take a fraction of a second."""
    return {
        "benchmark": "b",
        "seeds": seeds,
        "ipc": [1],
        "datasets": [{"name": "blobs"}],
        "network": "mlp-w8",
        "experts": {"count": 2, "per_shard": 1, "recipe": {"step_size": 0.05, "batch": 64}},
        "validation": {"networks": 1, "epochs": 4},
        "evaluations": [{"networks": {"mlp-w8": 2}, "epochs": 6, "whole_epochs": 2}],
        "methods": {"random": None, "mtt": {"params": STUDENT | {"iterations": 6}}},
    } | changes


SEARCH = {
    "search": {
        **{"methods": ["mtt"], "trials": 6, "workers": 1, "scheduler": "none"},
        **{"finalists": 1, "confirm_seeds": 1, "confirm_networks": 1, "memory_mb": 300},
        "space": {"mtt": {"unrolled_steps": {"int": [1, 4]}, "max_start": {"int": [1, 2]}}},
    }
}


class Place:
    """A folder with one benchmark, and the commands that are run in it."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        folder.mkdir(parents=True)
        (folder / "b.yaml").write_text(json.dumps(benchmark(**changes)))
        self.folder, self.results = folder, folder / "results" / "b"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.temporary = folder / "t"
        self.temporary.mkdir(mode=0o777)
        self.environment = os.environ | {MARK: str(folder), "PATH": path}
        self.environment["TMPDIR"] = str(self.temporary)
        self.said = folder / "said"

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """A command of iadd's in the folder; what it says goes to `said`."""
        command = [sys.executable, "-m", "iadd", *words]
        with self.said.open("wb") as out:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL, start_new_session=True, **options,
            )  # fmt: skip

    def run(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """`iadd run` of the benchmark, on two cores."""
        return self.start("run", "b.yaml", "--cores", "2", *words, **options)

    def finish(self) -> None:
        """The same command once more, left in peace."""
        status = self.run().wait(LONGEST)
        if status:
            raise AssertionError(
                f"{self.folder}: left in peace, it ended with {status}: {self.end()}"
            )

    def end(self) -> str:
        """The last lines that were said."""
        return "\n".join(self.said.read_text(errors="replace").splitlines()[-6:])

    def refused(self) -> str:
        """What is wrong with how a disturbed command ended; nothing, if that was in few lines."""
        text = self.said.read_text(errors="replace")
        return f"a traceback:\n{text[-3000:]}" if "Traceback" in text else ""

    def tables(self) -> Any:
        """All that does not depend on the clock."""
        import pandas as pd

        frame = pd.read_parquet(self.results / "evaluations.parquet")
        frame = frame.sort_values([*SETTINGS])[[*SETTINGS, *JUDGED]]
        board = pd.read_csv(self.results / "leaderboard.csv")
        names = [name for name in board if not name.endswith(("seconds", "bytes", "share"))]
        return frame.to_json(orient="records"), board[names].to_csv(index=False)

    def processes(self) -> dict[int, str]:
        """Living processes of this folder's runs, and what each is."""
        return dict(_processes(str(self.folder)))

    def left_behind(self, seconds: float = 10) -> dict[int, str]:
        """Processes that are still there some time after a run has ended."""
        deadline = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return found


def _processes(mark: str) -> Iterator[tuple[int, str]]:
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            if words[0] and state[0] != "Z":
                yield int(folder.name), _kind(words, int(folder.name), int(state[1]))


def _kind(words: list[str], process: int, parent: int) -> str:
    """run, snakemake, server, job (of the server), client (what asks for it), or one of Ray's."""
    line = " ".join(words)
    if "iadd.pipeline.events" in line:
        return "snakemake"
    for name in ("raylet", "gcs_server", "ray::"):
        if name in line:
            return name.strip(":")
    if "ray/" in line:
        return "ray's own"
    if "-m iadd run" not in line:
        return "client"
    with suppress(OSError):
        above = Path(f"/proc/{parent}/cmdline").read_bytes().decode().split("\0")
        if above != words:
            return "run"
        grand = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
        over = Path(f"/proc/{grand}/cmdline").read_bytes().decode().split("\0")
        return "job" if over == words else "server"
    return "job"
