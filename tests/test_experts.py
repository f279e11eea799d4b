"""Expert trajectories: independent snapshots, identity, random access, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from iadd.artifacts import load_tensors, save_tensors
from iadd.data import Dataset, load_dataset
from iadd.engine.autograd import AutogradBackend
from iadd.engine.cuda_convnet import CudaConvNet
from iadd.experts import RECIPES, Experts, Recipe, expert_spec, named_recipe, record_shard
from iadd.experts import record as experts_room
from iadd.networks import Network, build_network


@pytest.fixture(scope="module")
def blobs() -> Dataset:
    return load_dataset("blobs")


@pytest.fixture(scope="module")
def network(blobs: Dataset) -> Network:
    return build_network("mlp-w8", 1, 8, blobs.classes)


RECIPE = Recipe(step_size=0.05, batch=64)


def record(blobs: Dataset, network: Network, path: Path, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"epochs": 3, "experts": range(2), "seed": 0, "recipe": RECIPE}
    options |= changes
    recipe = options.pop("recipe")
    source = options.get("source")
    record_shard(blobs, network, recipe, path=path, **options)
    return expert_spec(blobs, network, recipe, options["epochs"], options["seed"], source)


def test_snapshots_are_independent_copies(blobs: Dataset, network: Network, tmp_path: Path) -> None:
    """The trap: snapshots that alias the live parameters all equal the last one."""
    spec = record(blobs, network, tmp_path / "s.safetensors")
    experts = Experts([tmp_path / "s.safetensors"], spec)
    assert experts.count == 2 and experts.epochs == 3 and experts.seconds > 0
    for expert in range(2):
        snapshots = [experts.snapshot(expert, epoch) for epoch in range(4)]
        distances = [float((a - snapshots[-1]).norm()) for a in snapshots]
        assert distances[0] > distances[1] > distances[2] > 0
    assert not torch.equal(experts.snapshot(0, 0), experts.snapshot(1, 0))


def test_snapshots_that_stay_are_copies_and_make_room(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    spec = record(blobs, network, tmp_path / "s.safetensors")
    experts = Experts([tmp_path / "s.safetensors"], spec)
    plain = [experts.snapshot(0, epoch) for epoch in range(4)]
    experts.near_bytes = 2 * plain[0].nbytes  # as on a card, which keeps two of them
    for epoch in (0, 1, 0, 2, 3, 2, 0.0):
        found = experts.snapshot(0, epoch)
        assert torch.equal(found, plain[int(epoch)])
        found.zero_()
        assert len(experts._near) <= 2
    assert torch.equal(experts.snapshot(0, 1.5), torch.lerp(plain[1], plain[2], 0.5))


def test_a_trajectory_is_plain_sgd(blobs: Dataset, network: Network, tmp_path: Path) -> None:
    """One full-batch epoch without augmentation, worked by hand."""
    recipe = Recipe(step_size=0.1, batch=10_000, augmentation=False)
    spec = record(blobs, network, tmp_path / "s.safetensors", recipe=recipe, epochs=1)
    experts = Experts([tmp_path / "s.safetensors"], spec)
    start = experts.snapshot(0, 0)
    targets = F.one_hot(blobs.train.labels, network.classes).double()
    backend = AutogradBackend(network, start.device, torch.float64)
    _, grad = backend.gradient(start.double(), blobs.train.images.double(), targets)
    assert torch.allclose(experts.snapshot(0, 1).double(), start - 0.1 * grad, atol=1e-6)


def test_experts_depend_on_their_number_not_on_their_shard(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    spec = record(blobs, network, tmp_path / "all.safetensors", experts=range(3))
    record(blobs, network, tmp_path / "last.safetensors", experts=[2])
    both = (
        Experts([tmp_path / "all.safetensors"], spec),
        Experts([tmp_path / "last.safetensors"], spec),
    )
    assert torch.equal(both[0].snapshot(2, 3), both[1].snapshot(0, 3))


def test_a_killed_shard_goes_on_where_it_was(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    spec = record(blobs, network, tmp_path / "whole.safetensors")

    class Killed(Exception):
        pass

    def kill(done: int, total: int, note: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        record(blobs, network, tmp_path / "s.safetensors", progress=kill)
    assert not (tmp_path / "s.safetensors").exists()
    assert len(list(tmp_path.glob(".s.expert*.partial"))) == 1
    record(blobs, network, tmp_path / "s.safetensors")
    assert not list(tmp_path.glob("*.partial"))
    a, b = (
        Experts([tmp_path / "whole.safetensors"], spec),
        Experts([tmp_path / "s.safetensors"], spec),
    )
    assert all(torch.equal(a.snapshot(e, 3), b.snapshot(e, 3)) for e in range(2))


def test_a_partial_of_other_code_or_malformed_is_ignored(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    """Rule: what a killed job left is taken up only if it is of this very spec, code included."""
    record(blobs, network, tmp_path / "whole.safetensors", source="new", experts=range(1))
    whole = load_tensors(tmp_path / "whole.safetensors").tensors["parameters"]
    part = tmp_path / ".s.expert0.partial"
    spec = expert_spec(blobs, network, RECIPE, 3, 0, "new") | {"expert": 0}
    fake, told = torch.zeros_like(whole[0]), {"seconds": 1.0, "validation_accuracy": 0.5}
    short = fake[:2]
    without = {key: value for key, value in spec.items() if key != "source"}
    for tensors, identity, attributes in (
        ({"parameters": fake}, spec | {"source": "old"}, told),
        ({"parameters": fake}, without, told),
        ({"parameters": fake}, spec, {}),
        ({"parameters": fake}, spec, {"seconds": "soon", "validation_accuracy": 0.5}),
        ({"parameters": fake}, spec, told | {"seconds": 10**400}),
        ({"parameters": short}, spec, told),
        ({"others": fake}, spec, told),
    ):
        save_tensors(part, tensors, identity, attributes)
        record(blobs, network, tmp_path / "s.safetensors", source="new", experts=range(1))
        found = load_tensors(tmp_path / "s.safetensors").tensors["parameters"]
        assert torch.equal(found, whole), (identity, attributes)
        (tmp_path / "s.safetensors").unlink()
    save_tensors(part, {"parameters": fake}, spec, told)  # the very spec: taken up
    record(blobs, network, tmp_path / "s.safetensors", source="new", experts=range(1))
    assert not load_tensors(tmp_path / "s.safetensors").tensors["parameters"].any()


def test_flat_experts_take_the_steps_of_gsam(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    """One full-batch step of the recipe `flat` against one worked by hand in float64.

    Zhuang et al., arXiv 2203.08065, with the adaptive perturbation e = rho p^2 g / ||p g||.
    """
    changes = {"step_size": 0.1, "batch": 10_000, "augmentation": False, "rho": 0.2}
    recipe = named_recipe("flat", changes)
    assert (RECIPES["flat"].rho, recipe.alpha) == (0.01, 0.3)
    spec = record(blobs, network, tmp_path / "s.safetensors", recipe=recipe, epochs=1)
    experts = Experts([tmp_path / "s.safetensors"], spec)
    start = experts.snapshot(0, 0).double()
    targets = F.one_hot(blobs.train.labels, network.classes).double()

    def gradient(p: torch.Tensor) -> torch.Tensor:
        leaf = p.clone().requires_grad_()
        loss = F.cross_entropy(network.apply(leaf, blobs.train.images.double()), targets)
        return torch.autograd.grad(loss, leaf)[0]

    g = gradient(start)
    there = gradient(start + 0.2 * start**2 * g / (start * g).norm())
    cosine = (g @ there) / (g.norm() * there.norm())
    vertical = g - cosine * g.norm() * there / there.norm()
    by_hand = start - 0.1 * (there - 0.3 * vertical)
    assert torch.allclose(experts.snapshot(0, 1).double(), by_hand, atol=1e-6)
    assert not torch.allclose(by_hand, start - 0.1 * g, atol=1e-4)  # and not those of SGD
    with pytest.raises(
        ValueError, match="unknown expert recipe 'round'; known: standard, flat, slow, waypoints"
    ):
        named_recipe("round")


def test_experts_tell_their_accuracy_on_validation_data(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    spec = record(blobs, network, tmp_path / "s.safetensors", epochs=8)
    experts = Experts([tmp_path / "s.safetensors"], spec)
    assert len(experts.validation_accuracy) == 2
    for k, told in enumerate(experts.validation_accuracy):
        logits = network.apply(experts.snapshot(k, 8), blobs.validation.images)
        right = (logits.argmax(1) == blobs.validation.labels).double().mean()
        assert told == pytest.approx(float(right)) and told > 0.4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_storage(
    dtype: str, blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    full = record(blobs, network, tmp_path / "full.safetensors")
    recipe = RECIPE.model_copy(update={"dtype": dtype})
    half = record(blobs, network, tmp_path / "half.safetensors", recipe=recipe)
    a = Experts([tmp_path / "full.safetensors"], full).snapshot(1, 2)
    b = Experts([tmp_path / "half.safetensors"], half).snapshot(1, 2)
    assert b.dtype == torch.float32 and torch.allclose(a, b, atol=4e-3) and not torch.equal(a, b)
    sizes = [(tmp_path / f"{k}.safetensors").stat().st_size for k in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]


def test_refused_shards(blobs: Dataset, network: Network, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    spec = record(blobs, network, path)
    with pytest.raises(ValueError, match="no shards given"):
        Experts([], spec)
    with pytest.raises(ValueError, match=r"s\.safetensors: is from another spec: epochs is 3"):
        Experts([path], spec | {"epochs": 4})
    other = spec | {"recipe": spec["recipe"] | {"step_size": 0.06}}
    with pytest.raises(ValueError, match=r"recipe.step_size is 0.05 in the file, 0.06 expected"):
        Experts([path], other)

    stored = load_tensors(path)
    broken = stored.tensors["parameters"].clone()
    broken[1, 2, 5] = float("nan")
    nan = tmp_path / "nan.safetensors"
    save_tensors(nan, {"parameters": broken}, stored.spec, stored.attributes)
    experts = Experts([nan], spec)
    experts.snapshot(0, 0)
    with pytest.raises(ValueError, match="NaN"):
        experts.snapshot(1, 2)

    short = tmp_path / "short.safetensors"
    short.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"short\.safetensors: is no readable"):
        Experts([short], spec)
    with pytest.raises(ValueError, match="no such file"):
        Experts([tmp_path / "none.safetensors"], spec)


def test_diverging_experts_are_refused(blobs: Dataset, network: Network, tmp_path: Path) -> None:
    recipe = Recipe(step_size=1e20, batch=64)
    with pytest.raises(
        ValueError, match=r"expert 0 diverged .* lower experts.recipe.step_size \(1e\+20\)"
    ):
        record(blobs, network, tmp_path / "s.safetensors", recipe=recipe)
    assert not (tmp_path / "s.safetensors").exists()


def test_saving_does_not_change_what_is_saved(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).view(2, 3)
    save_tensors(tmp_path / "t.safetensors", {"t": tensor}, {"kind": "test"})
    assert torch.equal(load_tensors(tmp_path / "t.safetensors").tensors["t"], tensor)


@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_experts_trained_side_by_side_are_the_same(
    rho: float, blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_network("convnet-d1-w3", 1, 8, blobs.classes)
    monkeypatch.setattr("iadd.train.choose_backend", CudaConvNet)  # takes several, on any device
    recipe = RECIPE.model_copy(update={"rho": rho, "alpha": 0.3})
    options: dict[str, Any] = {"experts": range(3), "epochs": 2, "recipe": recipe}
    spec = record(blobs, network, tmp_path / "alone.safetensors", **options)
    monkeypatch.setattr(experts_room, "_at_once", lambda *given: 2)
    record(blobs, network, tmp_path / "pairs.safetensors", **options)
    alone = Experts([tmp_path / "alone.safetensors"], spec)
    pairs = Experts([tmp_path / "pairs.safetensors"], spec)
    assert pairs.count == 3
    for expert in range(3):
        for epoch in range(3):
            one, other = alone.snapshot(expert, epoch), pairs.snapshot(expert, epoch)
            assert torch.allclose(one, other, atol=1e-5)


def test_how_many_are_trained_at_once(blobs: Dataset) -> None:
    network = build_network("convnet-d1-w3", 1, 8, blobs.classes)
    assert experts_room._at_once(network, RECIPE, torch.device("cpu")) == 1
