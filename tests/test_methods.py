"""Every method's contract, losses against float64 and by hand, the outer loop's promises."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iadd import methods
from iadd.augment import Augmentation
from iadd.data import Dataset, Split, load_dataset
from iadd.experts import Experts, Recipe, expert_spec, record_shard
from iadd.methods._gradient import gradient_distance
from iadd.methods.iadd import IADDParams, relative_distance
from iadd.networks import build_network
from iadd.seeds import generator_for

QUICK: dict[str, Any] = {"iterations": 6, "validations": 2}
TRAJECTORY: dict[str, Any] = QUICK | {
    "unrolled_steps": 3,
    "expert_epochs": 1,
    "max_start": 2,
    "lr_img": 5.0,
    "clip": 1.0,
    "step_size": 0.05,
    "lr_lr": 1e-5,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "mtt": TRAJECTORY,
    "ddpp": TRAJECTORY,
    "iadd": TRAJECTORY,
    "dc": QUICK | {"batch_real": 16},
    "dsa": QUICK | {"batch_real": 16},
    "dm": QUICK | {"batch_real": 16},
    "herding": {"epochs": 2},
    "kcenter": {"epochs": 2},
    "forgetting": {"epochs": 3},
}


@pytest.fixture(scope="module")
def blobs() -> Dataset:
    return load_dataset("blobs")


@pytest.fixture(scope="module")
def task(blobs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    network = build_network("convnet-d2-w8", 1, 8, blobs.classes)
    augmentation = Augmentation(blobs.augmentations)
    path = tmp_path_factory.mktemp("experts") / "shard0.safetensors"
    recipe = Recipe(step_size=0.05, batch=32)
    record_shard(
        blobs, network, augmentation, recipe, epochs=3, experts=range(2), seed=0, path=path
    )
    experts = Experts([path], expert_spec(blobs, network, augmentation, recipe, 3, 0))
    return methods.Problem(blobs, network, augmentation, 2, experts)


def make(name: str, task: methods.Problem, **changes: Any) -> Any:
    kind = methods.find(name)
    return kind(kind.Params(**(SETTINGS.get(name, {}) | changes)), task)


# The contract, for every method found in the folder.


@pytest.mark.parametrize("name", methods.names())
def test_contract(name: str, task: methods.Problem) -> None:
    kind = methods.find(name)
    assert kind.__doc__ and len(kind.__doc__) > 60
    for key in kind.Params.model_fields:
        assert kind.Params.model_fields[key].description, f"{name}.{key} has no sentence"
    assert set(kind.space) | kind.Params.changing <= set(kind.Params.model_fields)
    state = torch.random.get_rng_state()
    before = task.dataset.train.images.clone()
    first = methods.distill(make(name, task), generator_for(name))
    again = methods.distill(make(name, task), generator_for(name))
    assert torch.equal(first.images, again.images), "not a function of its generator"
    assert torch.equal(state, torch.random.get_rng_state()), "touched the global generator"
    assert torch.equal(before, task.dataset.train.images), "changed the data"
    assert first.status == "ok" and bool(torch.isfinite(first.images).all())
    count = len(task.dataset.train) if name == "whole" else task.ipc * task.dataset.classes
    assert first.images.shape == (count, 1, 8, 8) and first.labels.shape == (count,)


@pytest.mark.parametrize("name", [n for n in methods.names() if n != "whole"])
def test_ipc_larger_than_a_class(name: str, task: methods.Problem) -> None:
    greedy = methods.Problem(task.dataset, task.network, task.augmentation, 10_000, task.experts)
    with pytest.raises(ValueError, match=r"ipc 10000 is larger than class .* training images"):
        methods.distill(make(name, greedy), generator_for(0))


@pytest.mark.parametrize("name", ["random", "herding", "kcenter", "forgetting"])
def test_selections_choose_distinct_real_images_of_the_right_class(
    name: str, task: methods.Problem
) -> None:
    result = methods.distill(make(name, task), generator_for(name))
    data = task.dataset.train
    for image, label in zip(result.images, result.labels, strict=True):
        rows = (data.images == image).flatten(1).all(1).nonzero().flatten()
        assert label in data.labels[rows]
    assert len({tuple(image.flatten().tolist()) for image in result.images}) == len(result.images)


def test_unknown_method_and_parameter() -> None:
    with pytest.raises(ValueError, match="unknown method 'mtx'; known: dc, ddpp"):
        methods.find("mtx")
    with pytest.raises(ValueError, match="lr_image"):
        methods.find("mtt").Params(lr_image=1)


# Selection, by hand.

LINE = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]])


def test_herding_keeps_the_running_mean_near_the_class_mean(task: methods.Problem) -> None:
    # Mean 3.2: first 3; then (3 + x) / 2 nearest 3.2 is x = 2 (2.5, off 0.7), ahead of 10 (6.5).
    assert make("herding", task).choose(LINE).tolist() == [3, 2]


def test_kcenter_takes_the_farthest(task: methods.Problem) -> None:
    assert make("kcenter", task).choose(LINE).tolist() == [3, 4]


def test_forgetting_takes_the_most_forgotten(task: methods.Problem) -> None:
    assert make("forgetting", task).choose(torch.tensor([0.5, 3.1, 0.2, 7.9])).tolist() == [3, 1]


# Gradient and distribution matching, against float64.


def test_gradient_distance_by_hand() -> None:
    network = build_network("mlp-d1-w2", 1, 8, 2)
    a, b = torch.zeros(network.num_parameters), torch.zeros(network.num_parameters)
    first, _, last, _ = network.split(a)
    other, _, last_b, _ = network.split(b)
    first[0, :2], other[0, :2] = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])  # cos 24/25
    first[1, 0], other[1, 0] = 1.0, -2.0  # cos -1
    last[:], last_b[:] = 1.0, 5.0  # cos 1, twice
    expected = (1 - 24 / 25) + 2 + 0 + 0
    assert float(gradient_distance(network, a, b)) == pytest.approx(expected, abs=1e-5)
    network.split(a)[1][:] = 7.0  # biases are left out
    assert float(gradient_distance(network, a, b)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["dc", "dsa"])
def test_gradient_matching_equals_double_backward(name: str, task: methods.Problem) -> None:
    method = make(name, task, batch_real=1000)
    method.net = task.network.init(generator_for("net"))
    images = task.dataset.train.images[task.random_rows(generator_for("rows"))]
    own = images[: task.ipc]
    targets = F.one_hot(torch.zeros(task.ipc, dtype=torch.long), 4).float()
    value, gradient = method.match(0, own, targets, generator_for("match"))

    # The same in float64 with autograd through the gradient, the draws from the same generator.
    g = generator_for("match")
    rows = task.class_rows(0)
    rows = rows[torch.randperm(len(rows), generator=g)]
    draw = task.augmentation.draw(g) if name == "dsa" else None
    net = method.net.double().requires_grad_()
    leaf = own.double().requires_grad_()
    from iadd.augment import augment

    def grad(x: Tensor, create: bool) -> Tensor:
        labels = torch.zeros(len(x), dtype=torch.long)
        loss = F.cross_entropy(task.network.apply(net, augment(x, draw)), labels)
        return torch.autograd.grad(loss, net, create_graph=create)[0]

    real = grad(task.dataset.train.images[rows].double(), False)
    distance = gradient_distance(task.network, grad(leaf, True), real)
    (expected,) = torch.autograd.grad(distance, leaf)
    assert value == pytest.approx(float(distance.detach()), rel=1e-4)
    assert float((gradient - expected).abs().max()) <= 2e-3 * float(expected.abs().max())


def test_distribution_matching_equals_float64(task: methods.Problem) -> None:
    method = make("dm", task, batch_real=1000)
    plain = methods.Problem(task.dataset, task.network, Augmentation(()), 2, None)
    method.problem = plain
    images = task.dataset.train.images[task.random_rows(generator_for("rows"))]
    outer = method.outer(images, 0.0, generator_for("dm"))
    net = task.network.init(generator_for("dm")).double()
    leaf = images.double().requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for c in range(4):
        real = task.network.embed(net, task.dataset.train.images[task.class_rows(c)].double())
        own = task.network.embed(net, leaf[2 * c : 2 * c + 2])
        loss = loss + (real.mean(0) - own.mean(0)).square().sum()
    (expected,) = torch.autograd.grad(loss, leaf)
    assert outer.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    assert torch.allclose(outer.images.double(), expected, rtol=1e-3, atol=1e-5)


# Trajectory matching.


def three(seed: int = 0, size: int = 1000) -> tuple[Tensor, Tensor, Tensor]:
    g = generator_for("three", seed)
    student, start, target = torch.randn(3, size, generator=g)
    return student, start, target


def test_mtt_loss(task: methods.Problem) -> None:
    student, start, target = three()
    s, o, t = (z.double().numpy() for z in (student, start, target))
    expected = np.square(s - t).sum() / np.square(o - t).sum()
    found = make("mtt", task).loss(student, start, target)
    assert float(found.weighted) == pytest.approx(expected, rel=1e-6)
    assert torch.equal(found.weighted, found.unweighted)


def test_ddpp_prunes_the_hardest_on_both_sides(task: methods.Problem) -> None:
    method = make("ddpp", task, pruned=0.25)
    student, start, target = three(size=8)
    residual = (student - target).square()
    keep = residual.argsort()[:6]
    expected = residual[keep].sum() / (start - target).square()[keep].sum()
    assert float(method.loss(student, start, target)) == pytest.approx(float(expected), rel=1e-5)
    assert method.kept == 0.75
    zero = make("ddpp", task, pruned=0.0)
    assert torch.equal(
        zero.loss(student, start, target), make("mtt", task).loss(student, start, target).weighted
    )


@pytest.mark.parametrize(
    "off", [{"lr_w": 0}, {"update": "off"}, {"update": "off", "granularity": "tensor"}]
)
def test_iadd_without_updates_is_mtt_bit_for_bit(
    off: dict[str, Any], task: methods.Problem
) -> None:
    mtt = methods.distill(make("mtt", task), generator_for("same"))
    iadd = methods.distill(make("iadd", task, **off), generator_for("same"))
    assert torch.equal(mtt.images, iadd.images) and mtt.step_size == iadd.step_size
    assert [row["loss"] for row in mtt.trace] == [row["loss"] for row in iadd.trace]


def test_iadd_starts_as_mtt_and_learns_weights(task: methods.Problem) -> None:
    mtt = methods.distill(make("mtt", task), generator_for("same"))
    iadd = methods.distill(make("iadd", task, lr_w=0.05), generator_for("same"))
    assert mtt.trace[0]["loss"] == iadd.trace[0]["loss"]
    last = iadd.trace[-1]
    assert last["weight_mean"] == pytest.approx(1, abs=1e-3) and last["weight_std"] > 0.01
    assert last["weight_effective"] < 1 and last["loss"] != last["loss_unweighted"]


@pytest.mark.parametrize("reading", ["R1", "R2", "R3"])
@pytest.mark.parametrize("granularity", ["scalar", "filter", "tensor"])
def test_iadd_weight_gradient_equals_float64_autograd(
    reading: str, granularity: str, task: methods.Problem
) -> None:
    method = make("iadd", task, reading=reading, granularity=granularity)
    size = task.network.num_parameters
    student, start, target = three(size=size)
    method.v = method.v + 0.3 * torch.rand(len(method.v), generator=generator_for("v"))
    method.w = method.v / method.v.mean()
    leaf = student.clone().requires_grad_()
    found = method.loss(leaf, start, target)
    loss = getattr(found, "weighted", found)
    by_student, by_own = torch.autograd.grad(loss, [leaf, *method.variables()])

    v = method.v.detach().double().requires_grad_()
    s = student.double().requires_grad_()
    raw = v.exp() if reading == "R3" else v
    w = v if reading == "R1" else (raw / raw.mean()).clamp(0, 10)
    mismatch, movement = (s - target.double()).square(), (start - target).double().square()
    if granularity == "scalar":
        expected = (w.square() * mismatch).sum() / movement.sum()
    else:
        bounds = task.network.offsets(granularity).tolist()
        pieces = [slice(a, b) for a, b in pairwise(bounds)]
        ratios = torch.stack([mismatch[p].sum() / movement[p].sum() for p in pieces])
        expected = (w.square() * ratios).mean()
    # R2 hands the gradient by w to the fused step, which knows the derivative of w by v.
    e_student, e_own = torch.autograd.grad(expected, [s, w if reading == "R2" else v])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for got, want in ((by_student, e_student), (by_own, e_own)):
        assert float((got - want).abs().max()) <= 2e-5 * float(want.abs().max())


def test_iadd_default_steps_equal_autograd_and_adam(task: methods.Problem) -> None:
    """Several steps of R2 through the fused kernel against torch's Adam on v in float64."""
    method = make("iadd", task, lr_w=0.05)
    size = task.network.num_parameters
    v = torch.ones(size, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([v], lr=0.05)
    for k in range(4):
        student, start, target = three(k, size)
        leaf = student.clone().requires_grad_()
        found = method.loss(leaf, start, target)
        method.gradients = torch.autograd.grad(found.weighted, method.variables())
        method.accept()
        w = (v / v.mean()).clamp(0, 10)
        mismatch = (student - target).double().square()
        adam.zero_grad()
        ((w.square() * mismatch).sum() / (start - target).double().square().sum()).backward()
        adam.step()
    expected = (v / v.mean()).clamp(0, 10).detach()
    # Adam's first steps are signs of the gradient: where it is nearly 0, rounding decides.
    apart = (method.weights().detach() - expected).abs()
    assert float(apart.median()) < 1e-5 and float((apart > 1e-3).double().mean()) < 0.01


def test_iadd_directions_of_the_readings(task: methods.Problem) -> None:
    """Descent moves weight away from what is hard to match, ascent towards it."""
    size = task.network.num_parameters
    start, target = torch.zeros(size), torch.ones(size)
    student = target.clone()
    student[: size // 2] = 3.0  # the first half is hard
    for reading, hard_is_lower in (("R1", True), ("R2", True), ("R3", False)):
        method = make("iadd", task, reading=reading)
        leaf = student.clone().requires_grad_()
        found = method.loss(leaf, start, target)
        method.gradients = torch.autograd.grad(found.weighted, method.variables())
        method.accept()
        w = method.weights().detach()
        assert bool(w[0] < w[-1]) == hard_is_lower, reading


def test_readings_fill_what_is_not_given() -> None:
    assert IADDParams().update == "descent" and IADDParams().normalisation == "mean1"
    assert IADDParams(reading="R1").optimiser == "sgd"
    given = IADDParams(reading="R3", lr_w=0.5)
    assert (given.update, given.normalisation, given.lr_w) == ("ascent", "softmax", 0.5)


def test_relative_residuals_do_not_depend_on_a_segments_size() -> None:
    student, start, target = torch.ones(10), torch.zeros(10), torch.full((10,), 2.0)
    offsets = torch.tensor([0, 1, 10])
    even = relative_distance(student, start, target, torch.ones(2), offsets, False)
    assert float(even) == pytest.approx(0.25)  # each segment: 1 / 4


def test_experts_that_do_not_reach(task: methods.Problem) -> None:
    with pytest.raises(ValueError, match="reaches epoch 10, experts were kept to 3"):
        make("mtt", task, max_start=10)
    alone = methods.Problem(task.dataset, task.network, task.augmentation, 2)
    with pytest.raises(ValueError, match="method mtt needs expert trajectories"):
        make("mtt", alone)


# The outer loop.


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["mtt", "iadd", "dsa", "dm"])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_killed_run_resumes_to_the_same_result(
    name: str, after: int, task: methods.Problem, tmp_path: Path
) -> None:
    def validate(images: Tensor, labels: Tensor, step_size: float | None) -> float:
        return 1 / (1 + float(images.square().mean()))

    def kill(done: int, total: int, note: str) -> None:
        if done == after + 1:
            raise Killed

    whole = methods.distill(make(name, task), generator_for("k"), methods.Hooks(validate=validate))
    hooks = methods.Hooks(
        validate=validate,
        progress=kill,
        checkpoint=tmp_path / "c.safetensors",
        checkpoint_seconds=0,
    )
    with pytest.raises(Killed):
        methods.distill(make(name, task), generator_for("k"), hooks)
    hooks.progress = None
    resumed = methods.distill(make(name, task), generator_for("k"), hooks)
    assert torch.equal(whole.images, resumed.images)
    assert whole.step_size == resumed.step_size and whole.iteration == resumed.iteration
    assert [r["loss"] for r in whole.trace] == [r["loss"] for r in resumed.trace]


def test_a_checkpoint_of_another_run_is_ignored(task: methods.Problem, tmp_path: Path) -> None:
    hooks = methods.Hooks(checkpoint=tmp_path / "c.safetensors", checkpoint_seconds=0)
    methods.distill(make("mtt", task), generator_for("a"), hooks)
    fresh = methods.distill(make("mtt", task), generator_for("b"))
    other = methods.distill(make("mtt", task), generator_for("b"), hooks)
    assert torch.equal(fresh.images, other.images)


def test_the_best_on_validation_is_kept(task: methods.Problem) -> None:
    scores = iter([0.9, 0.5])
    hooks = methods.Hooks(validate=lambda images, labels, step: next(scores))
    result = methods.distill(make("mtt", task), generator_for("best"), hooks)
    assert result.iteration == 3
    assert [r["validation_accuracy"] for r in result.trace if r["validation_accuracy"]] == [
        0.9,
        0.5,
    ]
    assert [r["iteration"] for r in result.trace] == list(range(1, 7))


def test_step_size_stays_positive(task: methods.Problem) -> None:
    result = methods.distill(make("mtt", task, lr_lr=1e3, iterations=12), generator_for("lr"))
    sizes = [row["step_size"] for row in result.trace]
    assert all(size > 0 and math.isfinite(size) for size in sizes)


def test_a_run_that_cannot_hold_ends_as_diverged_and_keeps_the_last_sound_images(
    task: methods.Problem,
) -> None:
    method = make("mtt", task, iterations=40)
    sound = method.outer

    def broken(images: Tensor, step_size: float, generator: torch.Generator) -> methods.Outer:
        outer = sound(images, step_size, generator)
        return outer if step_size > 1 else outer._replace(loss=math.nan)

    method.outer = broken
    result = methods.distill(method, generator_for("nan"))
    assert result.status == "diverged" and bool(torch.isfinite(result.images).all())
    events = [row["event"] for row in result.trace]
    assert events == ["rollback"] * 6 + ["diverged"]
    assert result.trace[-1]["loss"] is None
    assert result.trace[5]["step_size"] == pytest.approx(0.05 / 2**6)


def test_an_exploding_loss_rolls_back_and_goes_on(task: methods.Problem) -> None:
    method = make("mtt", task, iterations=15)
    sound, calls = method.outer, iter(range(100))

    def spike(images: Tensor, step_size: float, generator: torch.Generator) -> methods.Outer:
        outer = sound(images, step_size, generator)
        return outer._replace(loss=1e6) if next(calls) == 8 else outer

    method.outer = spike
    result = methods.distill(method, generator_for("spike"))
    assert result.status == "ok"
    assert [row["iteration"] for row in result.trace if row["event"] == "rollback"] == [9]


# Schedules.


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([[3, {"lr_image": 1}]], "at iteration 3: lr_image: unknown parameter; what may change: "),
        ([[3, {"iterations": 9}]], "iterations: cannot change during a run; what may change: batc"),
        ([[3, {"step_size": 0.1}]], "step_size: cannot change during a run"),
        ([[3, {"schedule": []}]], "schedule: cannot change during a run"),
        ([[3, {"lr_img": -1}]], r"at iteration 3: lr_img: .*greater than 0 \(given: -1\)"),
        ([[6, {"lr_img": 1}]], r"at iteration 6: allowed are 0\.\.5, ascending"),
        ([[3, {"lr_img": 1}], [3, {"clip": 1}]], r"at iteration 3: allowed are 4\.\.5, ascending"),
    ],
)
def test_a_schedule_that_cannot_be(schedule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        methods.find("mtt").Params(**QUICK, schedule=schedule)
    assert len(caught.value.errors()) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["granularity", "reading", "normalisation", "optimiser"])
def test_what_the_weights_are_made_from_does_not_change(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: cannot change during a run"):
        IADDParams(schedule=[[1, {name: "R1"}]])


def test_experts_reach_as_far_as_the_schedule(task: methods.Problem) -> None:
    with pytest.raises(
        ValueError, match=r"reaches epoch 10, .* kept to 3 \(schedule at iteration 4"
    ):
        make("mtt", task, schedule=[[2, {"clip": 2.0}], [4, {"max_start": 10}]])


OTHER = {
    **{"lr_img": 2.0, "momentum": 0.2, "clip": 0.01, "unrolled_steps": 2, "expert_epochs": 2},
    **{"max_start": 1, "batch_syn": 3, "lr_lr": 1e-3, "pruned": 0.4, "update": "off"},
    **{"denominator": "weighted", "lr_w": 0.5, "w_max": 1.0001, "batch_real": 8},
    **{"outer_steps": 2, "inner_epochs": 2, "lr_net": 0.5},
}


@pytest.mark.parametrize(
    ("name", "key"),
    [(n, key) for n in methods.names() for key in sorted(methods.find(n).Params.changing)],
)
def test_what_may_change_is_read_anew_in_each_iteration(
    name: str, key: str, task: methods.Problem
) -> None:
    """Changed before the first iteration is given from the start; changed later is neither."""
    more = {"outer_steps": 3} if key in ("inner_epochs", "lr_net") else {}

    def run(**changes: Any) -> list[dict[str, Any]]:
        method = make(name, task, iterations=4, **more | changes)
        trace = methods.distill(method, generator_for("schedule")).trace
        return [{k: v for k, v in row.items() if k != "seconds"} for row in trace]

    plain, given = run(), run(**{key: OTHER[key]})
    assert run(schedule=[[0, {key: OTHER[key]}]]) == given
    late = run(schedule=[[2, {key: OTHER[key]}]])
    assert late[:2] == plain[:2] and late != given
    assert given != plain


def test_a_copied_checkpoint_and_a_schedule_are_the_run_of_that_schedule(
    task: methods.Problem, tmp_path: Path
) -> None:
    """A branch: one run's state, goes on under other settings; the same from scratch, by bits."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"

    def validate(images: Tensor, labels: Tensor, step_size: float | None) -> float:
        return 1 / (1 + float(images.square().mean()))

    def stop(iteration: int, accuracy: float) -> None:
        raise Killed

    schedule = [[1, {"momentum": 0.3}], [3, {"lr_img": 50.0, "lr_w": 0.3, "max_start": 1}]]
    common: dict[str, Any] = {"lr_w": 0.05}
    parent = make("iadd", task, **common, schedule=schedule[:1])
    hooks = methods.Hooks(validate=validate, report=stop, checkpoint=first)
    with pytest.raises(Killed):
        methods.distill(parent, generator_for("pbt"), hooks)
    second.write_bytes(first.read_bytes())
    branch = make("iadd", task, **common, schedule=schedule)
    heard: list[int] = []
    calls: list[int] = []
    hooks = methods.Hooks(
        validate=validate,
        report=lambda iteration, accuracy: heard.append(iteration),
        progress=lambda done, total, note: calls.append(done),
        checkpoint=second,
    )
    branched = methods.distill(branch, generator_for("pbt"), hooks)
    assert calls == [4, 5, 6]  # went on from the copy
    assert heard == [3, 6]  # and told what its origin had measured
    scratch = make("iadd", task, **common, schedule=schedule)
    whole = methods.distill(scratch, generator_for("pbt"), methods.Hooks(validate=validate))
    assert torch.equal(whole.images, branched.images) and whole.step_size == branched.step_size
    assert [r["loss"] for r in whole.trace] == [r["loss"] for r in branched.trace]
    assert torch.equal(scratch.v, branch.v)
    # A run that was another one before the copy was made does not take it.
    other = make("iadd", task, **common, schedule=[[2, {"momentum": 0.3}], *schedule[1:]])
    calls.clear()
    methods.distill(
        other, generator_for("pbt"), methods.Hooks(checkpoint=first, progress=hooks.progress)
    )
    assert calls == [1, 2, 3, 4, 5, 6]


def test_images_are_not_the_training_set_itself(task: methods.Problem) -> None:
    """Real initialisation copies: updating the images must not update the data."""
    data = Split(task.dataset.train.images.clone(), task.dataset.train.labels)
    methods.distill(make("mtt", task), generator_for("copy"))
    assert torch.equal(data.images, task.dataset.train.images)
