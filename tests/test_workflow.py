"""The whole pipeline under Snakemake, on made-up data: complete, repeatable, killable, minimal."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from iadd.artifacts import load_tensors, locked
from iadd.leaderboard.results import read_table
from iadd.leaderboard.rows import EVALUATIONS, LEADERBOARD, TRACES
from iadd.pipeline.workflow import Jobs

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


def command(*options: str, config: str = "config.yaml") -> list[str]:
    return [sys.executable, "-m", "iadd", "run", config, "--cores", "2", *options]


def run(folder: Path, *options: str, config: str = "config.yaml") -> str:
    done = subprocess.run(
        command(*options, config=config), cwd=folder, env=environment(), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def accuracies(folder: Path) -> Any:
    frame = read_table(folder / "results/smoke/evaluations.parquet", EVALUATIONS)
    return frame[["method", "network_eval", "seed", "eval_seed", "accuracy", "train_accuracy"]]


def test_names_with_hyphens_are_not_taken_apart(tmp_path: Path) -> None:
    """The files of a search carry data set and method in one name; a report on privacy lies beside
    what it is measured against."""
    params = CONFIG["methods"]["mtt"]["params"]
    variant = {"blobs-mtt": {"method": "mtt", "params": params}, "random": None}
    folder = place(tmp_path, methods=variant, search={"methods": ["blobs-mtt"]}, privacy={})
    done = subprocess.run(
        [*PLAIN, "--configfile", "config.yaml", "--dry-run", "--quiet", "rules"],
        cwd=folder, env=environment(), text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


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
    assert time.monotonic() - began < 60  # 10 s when the machine is not busy


def test_a_configuration_under_another_name_redoes_nothing(finished: Path) -> None:
    """Where the file lies is no part of what a result is."""
    copy = finished / "copy.yaml"
    copy.write_text((finished / "config.yaml").read_text())
    try:
        assert "Nothing to be done" in run(finished, config="copy.yaml")
    finally:
        copy.unlink()


def test_a_card_for_each_job_redoes_nothing_and_is_insisted_on(finished: Path) -> None:
    """Where a job runs is no part of what its result is."""
    for asked in ("gpu=1", "gres=gpu:a100:1", "gpu=1 if attempt else 0"):
        options = ("--default-resources", asked, "--dry-run")
        assert "Nothing to be done" in run(finished, *options)
        told = run(finished, *options, "--printshellcmds", "--forcerun", "distill")
        assert told.count("--device cuda > ") == 6 * 2  # each distillation, each judging


def test_an_evaluation_lost_is_made_again(finished: Path) -> None:
    """A job that fails takes its old output along, and leaves the tables made of it."""
    lost = min((finished / "results/smoke/evaluations").rglob("*.parquet"))
    kept = lost.rename(lost.with_suffix(".kept"))
    assert planned(finished) >= {"evaluate", "collect", "site"}
    kept.rename(lost)
    assert "Nothing to be done" in run(finished)


def test_every_output_of_the_last_stages_comes_back(finished: Path) -> None:
    """Rule: what a failed `collect` or a hand took is made again, whatever the page says."""
    results = finished / "results/smoke"
    for lost, rules in (
        ("leaderboard.csv", {"collect", "site"}),
        ("site/index.html", {"site"}),
        ("distilled/blobs/mtt/ipc1/seed1.png", {"distill"}),
    ):
        kept = (results / lost).rename(results / "kept")
        assert planned(finished) >= rules, lost
        kept.rename(results / lost)


def test_files_of_runs_are_named_where_some_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was never made, the tables ask for: naming it would make a graph of thousands slow."""
    monkeypatch.chdir(place(tmp_path))
    jobs = Jobs(["config.yaml"], {})
    runs = [jobs.plan.paths(run) for run in jobs.plan.runs()]
    first, *others = [(p.distilled, p.trace, p.picture, p.evaluation) for p in runs]
    tables = set(jobs.everything(None))
    assert jobs.plan.table("leaderboard") in tables and not tables.intersection(*others, first)
    runs[0].distilled.parent.mkdir(parents=True)
    first[0].touch()
    assert set(jobs.everything(None)) - tables == set(first[1:])
    jobs.plan.table("leaderboard").touch()
    missing = set(first[1:]).union(*others)
    assert set(jobs.everything(None)) - tables == missing
    elsewhere = Jobs(["config.yaml"], {}, elsewhere=True)
    assert set(elsewhere.everything(None)) - tables == missing | {first[0]}


def test_a_changed_parameter_reruns_only_what_depends_on_it(finished: Path) -> None:
    changed = yaml.safe_load((finished / "config.yaml").read_text())
    changed["methods"]["mtt"]["params"]["lr_img"] = 20
    place(finished, methods=changed["methods"])
    log = run(finished, "--dry-run", "--quiet", "host")
    begun = run(finished, "--until", "data")  # nothing of it is run, but it is told what would be
    place(finished)
    assert "experts" not in planned(finished) and "Nothing to be done" in (done := run(finished))
    assert re.search(r"^iadd: \d+ results of other settings, data or code will be", begun, re.M)
    assert "replaced" not in done
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


def images(folder: Path, seed: int = 0, **classes: int) -> None:
    generator = np.random.default_rng(seed)
    for k, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 200, (8, 8)) + 40 * k
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")


def test_ones_own_images_in_a_folder_with_spaces(tmp_path: Path) -> None:
    """Rules: an ipc that does not fit is left out with a word and status 1; new images are seen,
    equal ones retrain nothing; paths are quoted."""
    folder = tmp_path / "my project (2)"
    images(folder / "pics", rare=7, common=30)
    source = {"name": "folder", "label": "pics", "root": "pics", "resolution": 8}
    place(folder, datasets=[source], ipc=[1, 6], seeds=1, methods={"random": None})
    status, out = ended(folder)
    assert status == 1
    assert "left out: data set pics: ipc 6 is larger than class 'rare'" in out
    assert set(accuracies(folder)["method"]) == {"random"}
    first = facts(folder)
    for path in (folder / "pics").rglob("*.png"):
        path.touch()
    status, out = ended(folder)
    assert "data: 1 job done" in out and "Nothing to be done" in out
    assert facts(folder) == first
    images(folder / "pics", seed=1, rare=9, common=40)
    status, out = ended(folder)
    assert "Nothing to be done" not in out and facts(folder)["data"] != first["data"]


def test_a_submission_is_known_by_its_content(tmp_path: Path) -> None:
    """Rule: a file that is only touched or moved redoes nothing, another content does."""
    folder = place(tmp_path, seeds=1, methods={"random": None})
    run(folder)
    kept = folder / "results/smoke/distilled/blobs/random/ipc1/seed0.safetensors"
    shutil.copy(kept, folder / "theirs.safetensors")
    entry = {"name": "theirs", "dataset": "blobs", "ipc": 1, "file": "theirs.safetensors"}
    options = {"seeds": 1, "methods": {"random": None}, "submissions": [entry]}
    place(folder, **options)
    run(folder)
    board = read_table(folder / "results/smoke/leaderboard.parquet", LEADERBOARD)
    assert dict(zip(board["method"], board["source"], strict=True)) == {
        "random": "measured",
        "theirs": "submitted",
    }
    (folder / "theirs.safetensors").touch()
    assert "Nothing to be done" in run(folder)
    (folder / "moved").mkdir()
    (folder / "theirs.safetensors").rename(folder / "moved/theirs.safetensors")
    place(folder, **options | {"submissions": [entry | {"file": "moved/theirs.safetensors"}]})
    assert "Nothing to be done" in run(folder)
    place(
        folder,
        **options
        | {"submissions": [entry | {"file": "moved/theirs.safetensors", "step_size": 0.5}]},
    )
    assert planned(folder) >= {"distill", "evaluate", "collect"}


def facts(folder: Path) -> dict[str, Any]:
    """The spec of the set distilled at ipc 1."""
    (path,) = (folder / "results/smoke/distilled").rglob("ipc1/seed0.safetensors")
    return load_tensors(path).spec


def ended(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        command(), cwd=folder, env=environment(), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_failed_job_tells_its_reason_last(tmp_path: Path) -> None:
    experts = CONFIG["experts"] | {"recipe": {"step_size": 1e20}}
    status, out = ended(place(tmp_path, experts=experts))
    assert status == 1
    *_, where, why = out.splitlines()
    assert where.startswith("experts blobs-convnet") and why.startswith("  iadd: results/smoke")
    assert "expert" in why and "diverged" in why and "CalledProcessError" not in out
    assert "Traceback" not in out


@pytest.mark.skipif(sys.platform != "linux", reason="looks through /proc")
def test_a_signal_ends_the_run_and_its_jobs(tmp_path: Path) -> None:
    params = CONFIG["methods"]["mtt"]["params"] | {"iterations": 10**6}
    place(tmp_path, methods={"mtt": {"params": params}}, seeds=1)
    runner = subprocess.Popen(
        command(), cwd=tmp_path, env=environment(), text=True, stderr=subprocess.PIPE
    )
    log = tmp_path / "results/smoke/logs/distill/blobs/mtt/ipc1/seed0.log"
    deadline = time.monotonic() + 120
    while not log.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    runner.send_signal(signal.SIGTERM)
    assert runner.stderr
    assert runner.stderr.read().endswith("iadd: interrupted; the same command goes on from here\n")
    assert runner.wait(30) == 128 + signal.SIGTERM
    time.sleep(1)
    here = [path for path in Path("/proc").glob("[0-9]*/cwd") if resolved(path) == tmp_path]
    assert not here


def resolved(link: Path) -> Path | None:
    try:
        return link.resolve()
    except OSError:
        return None


def test_it_runs_from_a_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    """Rule: Snakefile, rules and profiles travel in the package."""
    checkout, installed, folder = tmp_path / "checkout", tmp_path / "site", tmp_path / "empty"
    checkout.mkdir()
    for name in ("iadd", "workflow", "csrc"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    without = environment() | {"IADD_EXTENSION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*build, "-w", tmp_path, checkout], check=True, env=without)
    (wheel,) = tmp_path.glob("iadd-*.whl")
    zipfile.ZipFile(wheel).extractall(installed)
    place(folder, seeds=1)
    done = subprocess.run(
        command(), cwd=folder, env=environment() | {"PYTHONPATH": str(installed)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert (folder / "results/smoke/site/index.html").exists()
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "results", ".snakemake"}


def test_only_one_runs_a_benchmark_at_a_time(finished: Path) -> None:
    import fcntl

    with (finished / "results" / ".smoke.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            command(), cwd=finished, env=environment(), capture_output=True, text=True, check=False
        )
    assert done.returncode == 2 and "is being run by another process" in done.stderr


def test_damaged_results_are_made_anew_by_the_same_command(finished: Path) -> None:
    results = finished / "results" / "smoke"
    before = accuracies(finished)
    damaged = [
        results / "distilled/blobs/mtt/ipc1/seed1.safetensors",
        results / "evaluations/blobs/random/ipc1/seed2.parquet",
    ]
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) - 30 * (path.suffix == ".parquet")])
    (results / "evaluations/blobs/mtt/ipc1/seed1.parquet").unlink()
    (results / "leaderboard.csv").unlink()
    (lost := results / "distilled/blobs/random/ipc1/seed0.safetensors").unlink()
    said = run(finished)
    assert lost.exists()
    for path in damaged:
        assert f"{path.relative_to(finished)}.set-aside and made anew" in said
        path.with_name(f"{path.name}.set-aside").unlink()
    assert accuracies(finished).equals(before)


def test_plain_snakemake_takes_the_same_lock(finished: Path) -> None:
    plain = [*PLAIN, "--configfile", "config.yaml", "--forcerun", "site"]
    how: Any = {"cwd": finished, "env": environment(), "text": True, "capture_output": True}
    with locked(finished / "results" / ".smoke.lock"):
        done = subprocess.run(plain, **how, check=False)
        told = "iadd: benchmark 'smoke' is being run by another process (process "
        assert done.returncode and f"{told}{os.getpid()})" in done.stderr
        assert (finished / "results/smoke/site/index.html").exists()
        assert subprocess.run([*plain, "--dry-run"], **how, check=False).returncode == 0


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


def test_rules_quote_whatever_a_file_or_a_user_can_name() -> None:
    """Numbers and our own options stand bare; wildcards of numbers are constrained to digits."""
    bare = {"wildcards.ipc", "wildcards.seed", "wildcards.shard", "threads"}
    bare |= {"params.tuned", "params.device", "params.workers", "params.launch"}
    for file in (Path(__file__).parent.parent / "workflow" / "rules").glob("*.smk"):
        for command in re.findall(r"shell:\n(.*?)(?=\n\n|\Z)", file.read_text(), re.DOTALL):
            named = re.findall(r"(?<!\{)\{([\w.]+)(:q)?\}", command)
            assert named and all(quoted or name in bare for name, quoted in named), (file, named)


def test_a_config_whose_path_a_shell_would_read_is_refused(iadd: Callable[..., Any]) -> None:
    Path("c$(touch x).yaml").write_text("benchmark: b")
    status, _, error = iadd("run", "c$(touch x).yaml")
    assert status == 2 and error.startswith("iadd: c$(touch x).yaml: has '$', which jobs' commands")
    assert not Path("x").exists()
