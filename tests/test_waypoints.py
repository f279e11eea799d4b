"""Experts kept as way-points, and MCT, which starts anywhere between them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_cases import SEEDS, make, small_problem
from test_plan import plan

from iadd import methods
from iadd.data import Dataset, load_dataset
from iadd.experts import Experts, Recipe, expert_spec, named_recipe, record_shard
from iadd.experts.waypoints import path_lengths, shares
from iadd.networks import Network, build_network
from iadd.pipeline.forecast import Forecast

TURN = torch.tensor([[0.0, 0.0, 5.0], [3.0, 4.0, 5.0], [3.0, 4.0, 5.0], [3.0, 14.0, 5.0]])
"""Four epochs of a tensor of two numbers that goes 5, 0 and 10 far, and of one that stays."""


def test_path_lengths_and_shares_by_hand() -> None:
    lengths = path_lengths(TURN, [2, 1])
    assert lengths.tolist() == [[0, 0], [5, 0], [5, 0], [15, 0]]
    for epoch, k, beta in (
        (0, 0, 0),
        (0.5, 0, 2.5 / 15),
        (1, 0, 1 / 3),
        (2.5, 0, 2 / 3),
        (3, 0, 1),
    ):
        found = shares(lengths, (0, 3), epoch)
        assert found[0] == k and found[1].tolist() == pytest.approx([beta, 0])
    assert shares(lengths, (0, 1, 3), 1)[0] == 1  # a way-point opens the next piece
    assert shares(lengths, (0, 1, 3), 2.5)[1].tolist() == pytest.approx([0.5, 0])


@pytest.fixture(scope="module")
def blobs() -> Dataset:
    return load_dataset("blobs")


@pytest.fixture(scope="module")
def network(blobs: Dataset) -> Network:
    return build_network("convnet-d2-w8", 1, 8, blobs.classes)


def recorded(blobs: Dataset, network: Network, path: Path, **changes: Any) -> Experts:
    recipe = Recipe(step_size=0.05, batch=32, **changes)
    record_shard(blobs, network, recipe, epochs=6, experts=range(2), seed=0, path=path)
    return Experts([path], expert_spec(blobs, network, recipe, 6, 0))


def test_between_way_points_every_tensor_goes_by_its_own_path_length(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    """Rule: arXiv 2406.19827's formula, against numpy in float64 from experts kept whole."""
    whole = recorded(blobs, network, tmp_path / "whole.safetensors")
    few = recorded(blobs, network, tmp_path / "few.safetensors", waypoints=(0, 2, 6))
    for expert in range(2):
        path = np.stack([whole.snapshot(expert, e).double().numpy() for e in range(7)])
        for epoch in (0, 2, 6):
            assert torch.equal(few.snapshot(expert, epoch), whole.snapshot(expert, epoch))
        for epoch, a, b in ((1, 0, 2), (1.25, 0, 2), (3.5, 2, 6), (5, 2, 6)):
            expected, begin = [], 0
            for size in network.sizes:
                part = path[:, begin : begin + size]
                steps = np.linalg.norm(np.diff(part, axis=0), axis=1)
                gone = steps[a : int(epoch)].sum() + steps[int(epoch)] * (epoch % 1)
                beta = gone / (steps[a:b].sum() or 1.0)  # biases before a norm do not move
                expected.append((1 - beta) * part[a] + beta * part[b])
                begin += size
            found = few.snapshot(expert, epoch).double().numpy()
            assert np.abs(found - np.concatenate(expected)).max() < 1e-6
        between = (
            whole.snapshot(expert, 2.25).double().numpy()
        )  # of all epochs: half the way is half
        assert np.abs(between - (0.75 * path[2] + 0.25 * path[3])).max() < 1e-6
    assert few.count == 2 and few.validation_accuracy == whole.validation_accuracy


def test_way_points_are_many_times_smaller(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    sizes = {}
    for name, waypoints in (("all", None), ("three", (0, 2, 6)), ("two", (0, 6))):
        recorded(blobs, network, tmp_path / name, waypoints=waypoints)
        sizes[name] = (tmp_path / name).stat().st_size
    assert sizes["all"] / sizes["three"] > 0.8 * 7 / 3 and sizes["all"] / sizes["two"] > 0.8 * 7 / 2
    assert named_recipe("waypoints").waypoints == (0, 6, 25, 50)  # 51 snapshots or 4
    p = plan(methods={"mct": {}}, network="convnet-d2-w8")
    assert p.expert_epochs("waypoints") == 50
    one = p.config.experts.count * 4 * network.num_parameters
    (row,) = (row for row in Forecast(p).rows if row.stage == "experts waypoints")
    assert row.disk == 4 * one


def test_what_way_points_cannot_be(blobs: Dataset, network: Network, tmp_path: Path) -> None:
    for wrong in ((1, 2), (0, 3, 2), (0, 2, 2)):
        with pytest.raises(ValueError, match="allowed are ascending epochs from 0 on"):
            Recipe(waypoints=wrong)
    with pytest.raises(ValueError, match="way-points end at epoch 4, so epochs is 4, not 6"):
        recorded(blobs, network, tmp_path / "s", waypoints=(0, 4))
    short = {"recipes": {"waypoints": {"waypoints": [0, 5]}}}
    with pytest.raises(ValueError, match=r"waypoints: end at 5, epoch 10 is needed"):
        plan(methods={"mct": {}}, experts=short).expert_epochs("waypoints")


def test_a_killed_shard_of_way_points_goes_on(
    blobs: Dataset, network: Network, tmp_path: Path
) -> None:
    whole = recorded(blobs, network, tmp_path / "whole", waypoints=(0, 2, 6))

    class Killed(Exception):
        pass

    def kill(done: int, total: int, note: str) -> None:
        raise Killed

    recipe, path = Recipe(step_size=0.05, batch=32, waypoints=(0, 2, 6)), tmp_path / "s"
    how: dict[str, Any] = {"epochs": 6, "experts": range(2), "seed": 0, "path": path}
    with pytest.raises(Killed):
        record_shard(blobs, network, recipe, progress=kill, **how)
    trained: list[int] = []
    record_shard(blobs, network, recipe, progress=lambda done, *_: trained.append(done), **how)
    again = Experts([path], expert_spec(blobs, network, recipe, 6, 0))
    assert trained == [2]  # the first was taken up
    assert all(torch.equal(whole.snapshot(e, 3.3), again.snapshot(e, 3.3)) for e in range(2))


def test_mct_draws_real_epochs(blobs: Dataset, network: Network, tmp_path: Path) -> None:
    experts = recorded(blobs, network, tmp_path / "few", waypoints=(0, 2, 6))
    task = replace(small_problem(tmp_path, blobs), experts=experts)
    method = make("mct", task, max_start=3, expert_epochs=2)
    asked: list[float] = []
    snapshot = experts.snapshot

    def watch(expert: int, epoch: float) -> torch.Tensor:
        asked.append(epoch)
        return snapshot(expert, epoch)

    experts.snapshot = watch  # type: ignore[method-assign]
    for k in range(40):
        start, target = method.draw_expert(SEEDS.generator("iteration", k), k)
        assert not torch.equal(start, target)
    starts, ends = asked[::2], asked[1::2]
    assert all(b == pytest.approx(a + 2) for a, b in zip(starts, ends, strict=True))
    assert min(starts) < 0.5 and max(starts) > 2.5 and any(s != int(s) for s in starts)
    assert method.params.reach == 5
    result = methods.distill(method, SEEDS)
    assert result.status == "ok"
