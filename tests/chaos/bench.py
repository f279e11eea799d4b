"""A tiny benchmark, its undisturbed tables, and the processes of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from chaos.processes import MARK, end, processes, told

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


class Stuck(Exception):
    """Nothing of a command moved for a long time; what its processes waited for."""


class Watch:
    """Sees whether anything of a place's commands moves: processes come and go, files change."""

    still = 180.0
    """Seconds without a change after which a command is stuck, also on a busy machine."""

    def __init__(self, place: Place) -> None:
        self.place, self.since = place, time.monotonic()
        self.seen = self._state()

    def _state(self) -> object:
        times = {}
        for folder, _, names in os.walk(self.place.folder):
            for path in (Path(folder, name) for name in names):
                with suppress(OSError):
                    times[path] = path.stat().st_mtime_ns
        times.pop(self.place.said, None)  # it tells now and then that it waits
        return times, self.place.processes()

    def look(self) -> None:
        """Stuck, after an end to all processes, if nothing has moved for too long."""
        now, clock = self._state(), time.monotonic()
        if now != self.seen:
            self.seen, self.since = now, clock
        elif clock - self.since > self.still:
            found = told(str(self.place.folder))
            self.place.left_behind(0)  # ends them
            raise Stuck(f"{self.place.folder.name}: {self.place.end()}\n{found}")


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

    def wait(self, running: subprocess.Popen[bytes]) -> int:
        """The status of a command once it has ended; Stuck if nothing moves any more."""
        watch = Watch(self)
        while running.poll() is None:
            watch.look()
            with suppress(subprocess.TimeoutExpired):
                running.wait(1.0)
        return int(running.returncode)

    def finish(self) -> None:
        """The same command once more, left in peace."""
        if status := self.wait(self.run()):
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
        return dict(processes(str(self.folder)))

    def left_behind(self, seconds: float = 10) -> dict[int, str]:
        """Processes that are still there some time after a run has ended."""
        deadline = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        end(str(self.folder))
        return found
