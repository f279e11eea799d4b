"""The field's expert buffers: in and out without a bit's change, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from iadd.artifacts import load_tensors
from iadd.data import Dataset, load_dataset
from iadd.exchange import buffers
from iadd.exchange.buffers import Buffers
from iadd.experts import Experts, Recipe, expert_spec, record_shard
from iadd.leaderboard.results import read_table
from iadd.leaderboard.rows import EVALUATIONS
from iadd.networks import Network, build_network
from iadd.pipeline import foreign, stages
from iadd.pipeline.plan import Plan, Run

NET = "convnet-d2-w4"
IMPORTED = Recipe(step_size=0.05, batch=64, imported="0123456789abcdef")
Buffer = list[list[list[Tensor]]]


@pytest.fixture(scope="module")
def blobs() -> Dataset:
    return load_dataset("blobs")


@pytest.fixture(scope="module")
def network(blobs: Dataset) -> Network:
    return build_network(NET, 1, 8, blobs.classes)


def buffer_of(network: Network, experts: int = 2, snapshots: int = 3) -> Buffer:
    """Made-up trajectories as MTT keeps them: a list of tensors a snapshot."""
    generator = torch.Generator().manual_seed(experts)
    made: Buffer = []
    for _ in range(experts):
        flats = [network.init(generator) for _ in range(snapshots)]
        made.append([[p.clone() for p in network.split(flat)] for flat in flats])
    return made


def folder_of(path: Path, *contents: Any) -> Path:
    path.mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        torch.save(content, path / f"replay_buffer_{number}.pt")
    return path


def read(folder: Path, out: Path, blobs: Dataset, network: Network, **changes: Any) -> Any:
    given: dict[str, Any] = {"recipe": IMPORTED, "epochs": 2, "seed": 0}
    shards = changes.pop("shards", {out: range(2)})
    return buffers.read(Buffers.of(folder), shards, blobs, network, **(given | changes))


def test_parameters_are_taken_in_the_order_of_modules(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    """A ConvNet of modules, as the field's code builds it, and ours give the same logits."""
    module = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(4, 4), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(4, 4), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(16, blobs.classes)),
    )
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    steps = [[p.detach() * scale for p in module.parameters()] for scale in (1.0, 0.5, 0.25)]
    out = tmp_path / "s.safetensors"
    folder = folder_of(tmp_path / "b", [steps])
    reached = read(folder, out, blobs, network, shards={out: range(1)}, epochs=1)
    experts = Experts([out], expert_spec(blobs, network, IMPORTED, 1, 7, "any"))
    images = blobs.validation.images
    ours = network.apply(experts.snapshot(0, 0), images)
    assert torch.allclose(ours, module(images), atol=1e-5)
    right = network.apply(experts.snapshot(0, 1), images).argmax(1) == blobs.validation.labels
    assert reached == [pytest.approx(float(right.double().mean()))]


def test_buffers_go_through_by_number_and_shard(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    """Eleven files: the tenth comes after the ninth, and shards do not follow files."""
    made = [buffer_of(network, 1, 4 + k) for k in range(11)]
    folder = folder_of(tmp_path / "b", *made)
    shards = {tmp_path / "0.safetensors": range(7), tmp_path / "1.safetensors": range(7, 11)}
    read(folder, tmp_path, blobs, network, shards=shards)
    experts = Experts(list(shards), expert_spec(blobs, network, IMPORTED, 2, 0))
    assert experts.count == 11
    for k in (0, 9, 10):
        flat = torch.cat([p.flatten() for p in made[k][0][2]])
        assert torch.equal(experts.snapshot(k, 2), flat)
    half = IMPORTED.model_copy(update={"dtype": "bfloat16"})
    read(folder, tmp_path / "h.safetensors", blobs, network, recipe=half)
    assert load_tensors(tmp_path / "h.safetensors").tensors["parameters"].dtype == torch.bfloat16
    bent = IMPORTED.model_copy(update={"waypoints": (0, 2)})
    read(folder, tmp_path / "w.safetensors", blobs, network, recipe=bent)
    kept = Experts([tmp_path / "w.safetensors"], expert_spec(blobs, network, bent, 2, 0))
    assert torch.equal(kept.snapshot(1, 2), experts.snapshot(1, 2))


def test_a_spec_says_that_others_trained_them(blobs: Dataset, network: Network) -> None:
    spec = expert_spec(blobs, network, IMPORTED, 2, 3, "our code")
    assert spec["recipe"]["imported"] == IMPORTED.imported
    assert spec["seed"] is None and "source" not in spec
    other = IMPORTED.model_copy(update={"imported": "f" * 16})
    assert expert_spec(blobs, network, other, 2, 3) != spec


def test_imported_experts_are_not_trained(blobs: Dataset, network: Network, tmp_path: Path) -> None:
    message = "were trained elsewhere and are not here; run: iadd experts CONFIG --import"
    with pytest.raises(ValueError, match=message):
        path = tmp_path / "s.safetensors"
        record_shard(blobs, network, IMPORTED, epochs=1, experts=[0], seed=0, path=path)


def spoilt(buffer: Buffer, change: Any) -> Buffer:
    change(buffer)
    return buffer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop(), "holds 1 experts, 2 are asked for"),
        (lambda b: b[1].pop(), "trajectory 1 has 2 snapshots, 3 are needed"),
        (lambda b: b[0][1].pop(), "trajectory 0 has 9 tensors, convnet-d2-w4 10"),
        (
            lambda b: b[0][1].__setitem__(4, torch.zeros(4, 4)),
            r"trajectory 0: tensor 4 is \(4, 4\), in convnet-d2-w4 \(4, 4, 3, 3\)",
        ),
        (lambda b: b[1][2][0].fill_(torch.nan), "trajectory 1: has NaN or infinite values"),
        (lambda b: b[0].__setitem__(1, 3), "trajectory 0: a snapshot is no list of tensors"),
        (lambda b: b.__setitem__(0, [b[0][0]] * 3), "all its snapshots are the last one"),
        (lambda b: b.__setitem__(0, "x"), "trajectory 0 has 0 snapshots"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    blobs: Dataset, network: Network, tmp_path: Path, change: Any, message: str
) -> None:
    folder = folder_of(tmp_path / "b", spoilt(buffer_of(network), change))
    with pytest.raises(ValueError, match=message) as error:
        read(folder, tmp_path / "s.safetensors", blobs, network)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_is_no_buffer_is_one_line(blobs: Dataset, network: Network, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no replay_buffer_<number>"):
        Buffers.of(tmp_path)
    folder = folder_of(tmp_path / "b", {"a": 1})
    with pytest.raises(ValueError, match="holds dict; a buffer is a list"):
        read(folder, tmp_path / "s.safetensors", blobs, network)
    file = folder_of(tmp_path / "c", buffer_of(network)) / "replay_buffer_0.pt"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"replay_buffer_0\.pt: is no"):
        read(tmp_path / "c", tmp_path / "s.safetensors", blobs, network)


CONFIG: dict[str, Any] = {
    "benchmark": "own",
    "seeds": 1,
    "ipc": [1],
    "datasets": [{"name": "blobs"}],
    "network": NET,
    "experts": {"count": 3, "per_shard": 2, "recipe": {"step_size": 0.05, "batch": 64}},
    "validation": {"networks": 1, "epochs": 5},
    "evaluations": [{"networks": {NET: 2}, "epochs": 5}],
    "methods": {
        "mtt": {
            "params": {
                **{"iterations": 4, "unrolled_steps": 2, "expert_epochs": 1, "max_start": 2},
                **{"lr_img": 1.0, "validations": 1},
            }
        }
    },
}


def test_imported_experts_give_the_same_tables_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, results = Run("blobs", "mtt", 1, 0), []

    def plan(**changes: Any) -> Plan:
        Path("c.yaml").write_text(yaml.safe_dump(CONFIG | changes))
        return stages.open_plan(Path("c.yaml"))[0]

    def judged(p: Plan) -> None:
        stages.distill(p, run)
        stages.evaluate(p, run)
        frame = read_table(p.paths(run).evaluation, EVALUATIONS)
        results.append((load_tensors(p.paths(run).distilled), frame))

    own = plan()
    for shard in range(2):
        stages.record(own, "blobs", shard)
    judged(own)
    folder = Path("buffers")
    foreign.export_experts(own, "blobs", folder)
    both = plan(methods=CONFIG["methods"] | {"ftd": CONFIG["methods"]["mtt"]})
    with pytest.raises(ValueError, match="--recipe: say which one of flat, standard"):
        foreign.export_experts(both, "blobs", folder)
    with pytest.raises(ValueError, match="needs experts 'flat'; needed: standard"):
        foreign.export_experts(own, "blobs", folder, "flat")
    with pytest.raises(ValueError, match="holds replay buffers already"):
        foreign.export_experts(own, "blobs", folder)
    told = Buffers.of(folder).checksum
    with pytest.raises(ValueError, match=f"are {told}, and the configuration says nothing"):
        foreign.import_experts(plan(benchmark="theirs"), "blobs", folder)
    theirs = plan(
        benchmark="theirs",
        experts=CONFIG["experts"] | {"recipes": {"standard": {"imported": told}}},
    )
    with pytest.raises(ValueError, match="were trained elsewhere"):
        stages.record(theirs, "blobs", 0)
    foreign.import_experts(theirs, "blobs", folder)
    judged(theirs)
    (a, ours), (b, others) = results
    assert torch.equal(a.tensors["images"], b.tensors["images"])
    scores = ["accuracy", "balanced_accuracy", "train_accuracy", "network_eval", "eval_seed"]
    assert ours[scores].equals(others[scores])
    assert a.spec["experts"]["recipe"]["imported"] is None
    assert b.spec["experts"]["recipe"] == a.spec["experts"]["recipe"] | {"imported": told}
