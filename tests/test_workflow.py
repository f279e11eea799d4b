"""The whole pipeline under Snakemake, on made-up data: complete, repeatable, killable, minimal."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from iadd.leaderboard.results import read_table
from iadd.leaderboard.rows import EVALUATIONS, LEADERBOARD, TRACES

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
snakemake = pytest.importorskip("snakemake")

PLAIN = [
    *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")),
    *("--cores", "1"),
]
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path}


def place(folder: Path, **changes: Any) -> Path:
    """A working folder with the workflow and a config of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    return folder


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "iadd", "run", "config.yaml", "--cores", "2", *options]


def run(folder: Path, *options: str) -> str:
    done = subprocess.run(
        command(*options), cwd=folder, env=environment(), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def accuracies(folder: Path) -> Any:
    frame = read_table(folder / "results/smoke/evaluations.parquet", EVALUATIONS)
    return frame[["method", "network_eval", "seed", "eval_seed", "accuracy", "train_accuracy"]]


def planned(folder: Path) -> set[str]:
    """The rules that a dry run would execute."""
    lines = run(folder, "--dry-run", "--quiet", "host").splitlines()
    return {line.split()[1].rstrip(":") for line in lines if line.startswith("rule ")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = place(tmp_path_factory.mktemp("finished"))
    run(folder)
    yield folder


def test_one_command_gives_all_tables_and_the_page(finished: Path) -> None:
    results = finished / "results" / "smoke"
    frame = read_table(results / "evaluations.parquet", EVALUATIONS)
    assert len(frame) == 2 * 3 * 3 and frame["accuracy"].between(0, 1).all()
    assert (frame["host_peak_bytes"] < 4 * 2**30).all()
    traces = read_table(results / "traces.parquet", TRACES)
    assert set(traces["method"]) == {"mtt"} and len(traces) == 3 * (20 + 1)
    board = read_table(results / "leaderboard.parquet", LEADERBOARD)
    assert set(board["n_seeds"]) == {3} and board["rank_low"].notna().all()
    assert (results / "leaderboard.csv").exists() and (results / "site/index.html").exists()
    assert len(list(results.rglob("distilled/**/*.png"))) == 6
    assert not (results / "checkpoints").exists() or not [
        p for p in (results / "checkpoints").rglob("*") if p.is_file()
    ]


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    began = time.monotonic()
    assert "Nothing to be done" in run(finished)
    assert time.monotonic() - began < 20  # 10 s when the machine is not busy


def test_an_evaluation_lost_is_made_again(finished: Path) -> None:
    """A job that fails takes its old output along, and leaves the tables made of it."""
    lost = min((finished / "results/smoke/evaluations").rglob("*.parquet"))
    kept = lost.rename(lost.with_suffix(".kept"))
    assert planned(finished) >= {"evaluate", "collect", "site"}
    kept.rename(lost)
    assert "Nothing to be done" in run(finished)


def test_a_changed_parameter_reruns_only_what_depends_on_it(finished: Path) -> None:
    changed = yaml.safe_load((finished / "config.yaml").read_text())
    changed["methods"]["mtt"]["params"]["lr_img"] = 20
    place(finished, methods=changed["methods"])
    log = run(finished, "--dry-run", "--quiet", "host")
    place(finished)
    assert "experts" not in planned(finished) and "Nothing to be done" in run(finished)
    touched = [line for line in log.splitlines() if "wildcards:" in line]
    assert touched and all("method=mtt" in line for line in touched if "method=" in line)


def test_two_clones_give_the_same_bits_and_a_kill_changes_nothing(
    finished: Path, tmp_path: Path
) -> None:
    folder = place(tmp_path / "killed")
    for marker in ("experts", "distilled", "evaluations"):  # killed once in each stage
        runner = subprocess.Popen(
            command(), cwd=folder, env=environment(), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(folder.glob(f"results/smoke/{marker}/**/*")):
            time.sleep(0.05)
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
    run(folder)
    assert accuracies(folder).equals(accuracies(finished))


def test_only_one_runs_a_benchmark_at_a_time(finished: Path) -> None:
    import fcntl

    with (finished / "results" / ".smoke.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            command(), cwd=finished, env=environment(), capture_output=True, text=True, check=False
        )
    assert done.returncode == 2 and "is being run by another process" in done.stderr


def test_plain_snakemake_works_too(finished: Path) -> None:
    done = subprocess.run(
        [*PLAIN, "--configfile", "config.yaml", "-n"],
        cwd=finished, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Nothing to be done" in done.stdout + done.stderr


def test_what_would_change_the_graph_and_not_the_jobs_is_refused_in_one_line(
    finished: Path,
) -> None:
    over = [*PLAIN, "--configfile", "config.yaml", "--config", "seed=7"]
    done = subprocess.run(
        over, cwd=finished, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("iadd: ")] == [
        "iadd: --config seed: jobs read one file and no changes over it; edit that"
    ]
    for option in ("--config=seed=7", "-C", "--configfile", "--configfiles", "--conf"):
        done = subprocess.run(
            command(option), cwd=finished, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
