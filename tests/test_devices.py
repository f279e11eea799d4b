"""Choosing a device: names, absent cards, cards shared between jobs; precision as a value."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from iadd import cards, commands, devices
from iadd.data import load_dataset
from iadd.leaderboard.results import read_table
from iadd.leaderboard.rows import EVALUATIONS
from iadd.networks import build_network
from iadd.pipeline import stages
from iadd.pipeline.config import load_config
from iadd.pipeline.plan import Plan, Run


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with two cards, as far as choosing goes."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(cards, "PLACE", tmp_path)
    monkeypatch.setattr(cards, "_leases", [])
    monkeypatch.setattr(cards, "_told", list)
    monkeypatch.setattr(devices, "_set_products", lambda *given: given)


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_is_the_cpu_where_there_is_no_card(no_card: None) -> None:
    assert devices.choose("auto") == devices.choose("cpu") == torch.device("cpu")
    assert devices.describe(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_an_absent_card_is_one_line(no_card: None, name: str) -> None:
    with pytest.raises(ValueError, match=f"device '{name}': no usable CUDA device here"):
        devices.choose(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "mps"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ValueError, match="allowed are cpu, cuda, cuda:<number> or auto"):
        devices.choose(name)


def test_jobs_spread_over_the_cards(two_cards: None) -> None:
    assert [devices.choose("cuda").index for _ in range(5)] == [0, 1, 0, 1, 0]
    assert devices.choose("cuda:1").index == 1
    with pytest.raises(ValueError, match="this machine has cuda:0 to cuda:1"):
        devices.choose("cuda:2")


def test_a_card_is_chosen_before_cuda_is_and_is_all_that_it_shows(
    two_cards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: of a list of cards, each job sees one; the one that Slurm gave stays the one."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    for seen in ("GPU-aa", "GPU-bb", "GPU-aa"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb")
        assert devices.choose("auto").index == 0
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
    for _ in range(2):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
        assert devices.choose("cuda").index == 0 and os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_arithmetic_leaves_the_cpu_alone() -> None:
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    with devices.arithmetic("tf32", torch.device("cpu"), autocast=True):
        assert convolutions.fp32_precision == before


def test_arithmetic_is_set_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        type = "cuda"

    convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = (products.fp32_precision, convolutions.fp32_precision)
    for precision, wanted in (("float32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")):
        with devices.arithmetic(precision, Card(), autocast=False):  # type: ignore[arg-type]
            assert products.fp32_precision == convolutions.fp32_precision == wanted
    assert (products.fp32_precision, convolutions.fp32_precision) == before


def test_precision_is_the_networks() -> None:
    assert build_network("mlp", 1, 8, 3).precision == "float32"
    assert build_network("mlp", 1, 8, 3, "tf32").precision == "tf32"
    with pytest.raises(ValueError, match="precision 'fp8': allowed are float32, tf32, bf16"):
        build_network("mlp", 1, 8, 3, "fp8")


@pytest.mark.parametrize("stage", ["experts", "distill", "evaluate"])
def test_stages_refuse_an_absent_card(
    stage: str, no_card: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = Path(__file__).parent.parent / "config" / "smoke.yaml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    arguments = [] if stage == "experts" else ["--method", "random", "--ipc", "1"]
    result = CliRunner().invoke(commands.app, [stage, str(config), *arguments])
    assert isinstance(result.exception, ValueError)
    assert "no usable CUDA device here" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_cpu_refuses_coarse_precision() -> None:
    config = load_config(Path(__file__).parent.parent / "config" / "smoke.yaml")
    dataset = load_dataset("blobs")
    assert dataset.train.images.device.type == "cpu"
    coarse = config.model_copy(update={"precision": "tf32"})
    with pytest.raises(ValueError, match="precision 'tf32' needs a CUDA device"):
        stages.open_network(coarse, dataset)


def test_precision_is_part_of_what_identifies_a_run() -> None:
    config = load_config(Path(__file__).parent.parent / "config" / "smoke.yaml")
    fine, coarse = Plan(config), Plan(config.model_copy(update={"precision": "bf16"}))
    assert fine.experts_folder("blobs") != coarse.experts_folder("blobs")
    run = Run("blobs", "random", 1, 0)
    assert fine.job_spec(run) != coarse.job_spec(run)


@pytest.mark.gpu
def test_a_benchmark_on_a_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All stages on a card; the table says which, and the set is as good as the CPU's."""
    config = Path(__file__).parent.parent / "config" / "smoke.yaml"
    plan, key = stages.open_plan(config)
    means, run = {}, Run(key, "mtt", 1, 0)
    for device in ("cpu", "cuda"):
        (tmp_path / device).mkdir()
        monkeypatch.chdir(tmp_path / device)
        where = devices.choose(device)
        for shard in range(len(plan.shards(key))):
            stages.record(plan, key, shard, where)
        stages.distill(plan, run, where)
        stages.evaluate(plan, run, where)
        rows = read_table(plan.paths(run).evaluation, EVALUATIONS)
        assert set(rows["device"]) == {devices.describe(where)}
        assert set(rows["device_peak_bytes"] > 0) == {device == "cuda"}
        for gpu in ("distill_gpu_seconds", "evaluate_gpu_seconds"):
            assert set(rows[gpu] > 0) == {device == "cuda"}
        means[device] = float(rows["accuracy"].mean())
    assert abs(means["cpu"] - means["cuda"]) < 0.1


def test_the_script_for_a_card_says_so_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHON", sys.executable)
    script = Path(__file__).parent.parent / "benchmarks" / "gpu.sh"
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert done.returncode == 0 and "nothing was measured" in done.stdout
