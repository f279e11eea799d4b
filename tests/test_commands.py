"""The command line: bad input ends in one line and status 2, and leaves nothing half-written."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from iadd import __version__
from iadd.artifacts import load_tensors
from iadd.leaderboard.results import read_table
from iadd.leaderboard.rows import EVALUATIONS, LEADERBOARD
from iadd.pipeline.config import load_config

TINY: dict[str, Any] = {
    "benchmark": "tiny",
    "seeds": 3,
    "ipc": [1],
    "datasets": [{"name": "blobs"}],
    "network": "mlp-w8",
    "experts": {"count": 2, "per_shard": 2, "recipe": {"step_size": 0.05, "batch": 64}},
    "validation": {"networks": 1, "epochs": 5},
    "evaluations": [{"networks": {"mlp-w8": 1}, "epochs": 5, "whole_epochs": 2}],
    "methods": {
        "random": None,
        "mtt": {
            "params": {
                "iterations": 3,
                "unrolled_steps": 2,
                "expert_epochs": 1,
                "max_start": 2,
                "lr_img": 1.0,
                "validations": 1,
            }
        },
    },
}

OTHER = [{"name": "blobs", "validation_fraction": 0.3}]

Iadd = Callable[..., tuple[int, str, str]]


def write(config: dict[str, Any], name: str = "c.yaml") -> str:
    Path(name).write_text(yaml.safe_dump(config))
    return name


def files() -> set[str]:
    """What was made of the data, which are prepared when they are first asked for."""
    found = (path for path in Path("results").rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[2] != "data"}


def test_every_stage_by_hand(iadd: Iadd) -> None:
    config = write(TINY | {"methods": TINY["methods"] | {"whole": None}})
    for early in ("show", "table", "site", "collect"):
        error = iadd(early, config)[2]
        assert f"; run: iadd run {config}" in error and error.count("\n") == 1, error
    assert iadd("experts", config)[0] == 0
    for method, ipc in (("random", 1), ("mtt", 1), ("whole", 0)):
        for seed in range(3):
            where = ("--method", method, "--ipc", str(ipc), "--seed", str(seed))
            assert iadd("distill", config, *where)[0] == 0
            assert iadd("evaluate", config, *where)[0] == 0
    status, out, _ = iadd("collect", config)
    assert status == 0 and "mtt" in out
    assert iadd("site", config)[0] == 0 and iadd("show", config)[0] == 0
    rows = read_table(Path("results/tiny/evaluations.parquet"), EVALUATIONS)
    assert len(rows) == 9 and set(rows["status"]) == {"ok"}
    board = read_table(Path("results/tiny/leaderboard.parquet"), LEADERBOARD)
    assert set(board["method"]) == {"random", "mtt", "whole"} and board["lrs"].notna().any()
    page = Path("results/tiny/site/index.html").read_text()
    assert "mtt" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert not [name for name in files() if "checkpoint" in name or name.endswith(".tmp")]
    plan = iadd("plan", config)[1]
    assert plan.count("evaluate") == 3 and "of which 0 are left" in plan
    told = r"experts of blobs \(mlp-w8, recipe standard\) reach \d+\.\d % on validation after 2 e"
    assert re.search(told, plan)
    told = iadd("show", config, "--compare", "mtt")[1]
    assert "mtt against the others, accuracy: blobs, 1 image a class" in told and "random" in told
    status, _, error = iadd("show", config, "--compare", "dm")
    assert status == 2 and "method 'dm' is not compared here; compared: mtt, random" in error
    assert "No published value is known of: " in iadd("reproduce", config)[1]
    Path("results/tiny/evaluations/blobs/mtt/ipc1/seed1.parquet").unlink()
    assert "of which 3 are left" in iadd("plan", config)[1]  # it, the tables, the page
    write(TINY | {"methods": TINY["methods"] | {"whole": None}, "validation": {"epochs": 6}})
    # Three distillations of mtt, whose probe is another, the evaluations, the tables, the page.
    told = iadd("plan", config)[1]
    assert "of which 8 are left" in told
    assert "\n5 results of other settings, data or code will be replaced; under another" in told
    # Other data: all is left, though what was prepared is still what the results were made from.
    write(TINY | {"methods": TINY["methods"] | {"whole": None}, "datasets": OTHER})
    jobs, left = re.findall(r"(\d+) jobs, of which (\d+) are left", iadd("plan", config)[1])[0]
    assert jobs == left
    write(TINY | {"methods": TINY["methods"] | {"whole": None}})
    one = "results/tiny/distilled/blobs/mtt/ipc1/seed0.safetensors"
    assert iadd("export", one, "folder")[0] == 0
    assert iadd("import", "folder", "again.safetensors", "--config", config)[0] == 0
    first, again = load_tensors(one), load_tensors("again.safetensors")
    assert bool((first.tensors["images"] == again.tensors["images"]).all())


def test_collect_refuses_rows_made_under_another_configuration(iadd: Iadd) -> None:
    """Evaluated with few epochs, ranked under a configuration of 500: named, and no table made."""
    base = TINY | {"methods": {"random": None}}
    config = write(base)
    for seed in range(3):
        where = ("--method", "random", "--ipc", "1", "--seed", str(seed))
        assert iadd("distill", config, *where)[0] == 0
        assert iadd("evaluate", config, *where)[0] == 0
    longer = [entry | {"epochs": 500} for entry in TINY["evaluations"]]
    write(base | {"evaluations": longer})
    status, _, error = iadd("collect", config)
    assert status == 2 and error.count("\n") == 1
    assert "seed0.parquet" in error and "epochs is" in error and "500 expected" in error
    assert not Path("results/tiny/leaderboard.parquet").exists()
    write(base)
    assert iadd("collect", config)[0] == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["distill", "{c}", "--method", "mtx", "--ipc", "1"], "unknown method 'mtx'; known: att"),
        (["distill", "{c}", "--method", "dm", "--ipc", "1"], "'dm' is not in this benchmark"),
        (["distill", "{c}", "--method", "mtt", "--ipc", "7"], "ipc 7 is not in this benchmark"),
        (["distill", "{c}", "--method", "mtt", "--ipc", "1", "--seed", "9"], "allowed are 0..2"),
        (["distill", "{c}", "--method", "mtt", "--ipc", "1"], "shard0.safetensors"),
        (["distill", "{c}", "--method", "mtt", "--ipc", "1", "--dataset", "x"], "it has blobs"),
        (["evaluate", "{c}", "--method", "random", "--ipc", "1"], "seed0.safetensors"),
        (["experts", "{c}", "--shard", "4"], "shard 4: allowed are 0..0"),
        (["collect", "{c}"], "about.json: no such file; run: iadd run"),
        (["plan", "none.yaml"], "none.yaml: cannot be read"),
        (["export", "none.safetensors", "folder"], "none.safetensors"),
    ],
)
def test_bad_requests(iadd: Iadd, argv: list[str], message: str) -> None:
    config = write(TINY)
    status, _, error = iadd(*[word.replace("{c}", config) for word in argv])
    assert status == 2 and message in error and error.count("\n") == 1, error
    assert not files()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": 3}, "c.yaml: unknown key 'sedes'"),
        ({"datasets": [{"name": "digitz"}]}, "unknown data set 'digitz'"),
        ({"network": "convmet"}, "unknown network 'convmet'"),
        ({"datasets": [{"name": "blobs", "resolution": 4}]}, "resolution 4"),
        ({"datasets": [{"name": "blobs", "resolution": 200}]}, "resolution 200"),
        ({"ipc": [5000]}, "c.yaml: data set blobs: ipc 5000 is larger than class"),
    ],
)
def test_bad_configurations(iadd: Iadd, changes: dict[str, Any], message: str) -> None:
    ipc = str(changes.get("ipc", [1])[0])
    argv = ("distill", write(TINY | changes), "--method", "random", "--ipc", ipc)
    status, _, error = iadd(*argv)
    assert status == 2 and message in error and error.count("\n") == 1, error
    assert not files()


def folder(classes: dict[str, int]) -> dict[str, Any]:
    for name, count in classes.items():
        Path("tree", name).mkdir(parents=True)
        for k in range(count):
            pixels = np.full((9, 9), 20 * k % 255, dtype=np.uint8)
            Image.fromarray(pixels).save(Path("tree", name, f"{k}.png"))
    return TINY | {"datasets": [{"name": "folder", "root": "tree", "resolution": 8}]}


def test_a_folder_of_images_is_distilled(iadd: Iadd) -> None:
    config = write(folder({"a": 20, "b": 20}))
    assert iadd("distill", config, "--method", "random", "--ipc", "1")[0] == 0


def test_a_table_of_groups_is_told_where_it_was_looked_for(iadd: Iadd) -> None:
    config = folder({"a": 20, "b": 20})
    config["datasets"][0]["groups"] = "patients.csv"
    status, _, error = iadd("plan", write(config))
    assert status == 2 and f"iadd: {Path.cwd()}/patients.csv: cannot be read" in error


def test_data_are_prepared_by_hand_where_a_file_system_has_no_locks(
    iadd: Iadd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    assert iadd("distill", write(TINY), "--method", "random", "--ipc", "1")[0] == 0


def test_an_empty_class_and_an_unreadable_image(iadd: Iadd) -> None:
    config = write(folder({"a": 20, "b": 0}))
    status, _, error = iadd("distill", config, "--method", "random", "--ipc", "1")
    assert status == 2 and "b" in error and error.count("\n") == 1
    Path("tree", "b", "broken.png").write_bytes(b"no image")
    status, _, error = iadd("distill", config, "--method", "random", "--ipc", "1")
    assert status == 2 and "broken.png" in error and error.count("\n") == 1
    assert not files()


def test_experts_of_another_spec_truncated_or_nan(iadd: Iadd) -> None:
    config = write(TINY)
    assert iadd("experts", config)[0] == 0
    (shard,) = Path("results").rglob("shard0.safetensors")
    good = shard.read_bytes()
    distill = ("distill", config, "--method", "mtt", "--ipc", "1")
    shard.write_bytes(good[:-40])
    status, _, error = iadd(*distill)
    assert status == 2 and "is no readable safetensors file" in error and error.count("\n") == 1
    shard.write_bytes(good[:-400] + b"\xff" * 400)
    status, _, error = iadd(*distill)
    assert status == 2 and "is damaged (checksum)" in error and error.count("\n") == 1, error
    recipe = TINY["experts"]["recipe"] | {"batch": 32}
    other = write(TINY | {"experts": TINY["experts"] | {"recipe": recipe}}, "other.yaml")
    assert iadd("experts", other)[0] == 0
    (foreign,) = set(Path("results").rglob("shard0.safetensors")) - {shard}
    shard.write_bytes(foreign.read_bytes())
    status, _, error = iadd(*distill)
    assert status == 2 and "batch is 32 in the file, 64 expected" in error, error
    assert not [name for name in files() if "distilled" in name]


def test_a_distilled_set_of_other_settings_is_not_evaluated(iadd: Iadd) -> None:
    config = write(TINY)
    assert iadd("distill", config, "--method", "random", "--ipc", "1")[0] == 0
    other = write(TINY | {"network": "mlp-w9"}, "other.yaml")
    status, _, error = iadd("evaluate", other, "--method", "random", "--ipc", "1")
    assert status == 2 and 'network is "mlp-w8" in the file, "mlp-w9" expected' in error, error


def test_a_full_disk_leaves_nothing_half_written(
    iadd: Iadd, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource
    import signal

    config = write(TINY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        status, _, error = iadd("distill", config, "--method", "random", "--ipc", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2 and "cannot be written" in error and error.count("\n") == 1, error
    assert not files()


def test_a_results_folder_that_is_a_file(iadd: Iadd) -> None:
    """Stands in for a read-only folder, which root may write to all the same."""
    config = write(TINY)
    Path("results").write_text("in the way")
    status, _, error = iadd("distill", config, "--method", "random", "--ipc", "1")
    assert status == 2 and "cannot be written" in error and error.count("\n") == 1, error
    status, _, error = iadd("run", config)
    assert status == 2 and error.count("\n") == 1, error


def test_a_device_that_is_none_is_refused_before_anything_begins(
    iadd: Iadd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IADD_DEVICE", "banana")
    for command in (["doctor"], ["run", write(TINY)]):
        status, _, error = iadd(*command)
        assert (status, error.count("\n")) == (2, 1) and "device 'banana': allowed are" in error


def test_help_tells_whole_sentences_and_what_snakemake_takes(iadd: Iadd) -> None:
    for command in ((), ("submit",)):
        status, out, _ = iadd(*command, "--help")
        assert status == 0 and "..." not in out.split("Commands:")[1]
    told = " ".join(iadd("run", "--help")[1].split())
    assert all(word in told for word in ("-n ", "--profile workflow", "IADD_DEVICE", "--cores"))
    assert iadd("--version")[:2] == (0, f"iadd {__version__}\n")


def test_doctor(iadd: Iadd) -> None:
    status, out, _ = iadd("doctor")
    assert status == 0 and "torch" in out and "kernels" in out and "extension" in out


def test_a_configuration_for_ones_own_images(iadd: Iadd) -> None:
    for name, count in (("cat", 12), ("dog", 30)):
        Path("my pics", name).mkdir(parents=True)
        for k in range(count):
            pixels = np.random.default_rng(k).integers(0, 255, (20, 24), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("my pics", name, f"{k}.png"))
    status, out, _ = iadd("new", "pets", "--data", "my pics")
    assert status == 0 and out.endswith("next: iadd plan pets/benchmark.yaml\n")
    text = Path("pets/benchmark.yaml").read_text()
    assert "#   cat" in text and "imbalanced" in text and "# the images are 24x20" in text
    assert f"# groups: '{Path('my pics').absolute()}/patients.csv'" in text
    config = load_config("pets/benchmark.yaml")
    assert config.datasets[0].resolution == 16 and config.ipc == (1,) and config.seeds == 5
    assert (
        config.given("iadd", 1)["clip"] == 1.0
        and "#   pets: 16x16 grey" in text
        and "normalised a channel" in text
    )
    assert "python -m iadd.pipeline.config.docs" in text and "config/README" not in text
    status, out, _ = iadd("plan", "pets/benchmark.yaml")
    assert status == 0 and "pets: imbalanced: largest class 30, smallest 12" in out
    for name in ("cat/3.png", "dog/7.png"):
        whole = Path("my pics", name).read_bytes()
        Path("my pics", name).write_bytes(whole[:-40])
    Path("my pics/dog/8.png").write_bytes(b"")
    for command in (("new", "more", "--data", "my pics"), ("plan", "pets/benchmark.yaml")):
        status, _, error = iadd(*command)
        assert status == 2 and error.count("\n") == 1 and not Path("more").exists()
        assert "dog/8.png: is no readable image" in error
    Path("my pics/dog/8.png").unlink()
    status, _, error = iadd("new", "more", "--data", "my pics")
    assert status == 2 and error.count("\n") == 1 and not Path("more").exists()
    assert "2 files are no readable images: " in error and "cat/3.png" in error
    assert "dog/7.png" in error
    status, _, error = iadd("new", "pets", "--data", "my pics")
    assert status == 2 and "is there already" in error and error.count("\n") == 1
    status, _, error = iadd("new", "other", "--data", "none")
    assert status == 2 and error.count("\n") == 1 and not Path("other").exists()
    Path("arrays.npz").touch()
    status, _, error = iadd("new", "other", "--data", "arrays.npz")
    assert status == 2 and "by hand: {name: arrays, root: arrays.npz}" in error
    assert not Path("other").exists()


def test_tables_of_other_settings_are_not_shown(iadd: Iadd) -> None:
    config = write(TINY | {"methods": {"random": None}, "seeds": 1})
    run = ("--method", "random", "--ipc", "1")
    for words in (("distill", *run), ("evaluate", *run), ("collect",), ("show",)):
        assert iadd(words[0], config, *words[1:])[0] == 0
    judged = [TINY["evaluations"][0] | {"epochs": 50}]
    edited = write(
        TINY | {"methods": {"random": None}, "seeds": 1, "evaluations": judged}, "e.yaml"
    )
    for command in ("collect", "show", "site"):
        status, _, error = iadd(command, edited)
        assert status == 2 and error.count("\n") == 1 and "made under" in error, error
