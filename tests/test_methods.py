"""Every method's contract, and the losses of ours against float64 and by hand."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_cases import SEEDS, make, small_problem, tiny
from torch import Tensor

from iadd import methods
from iadd.augment import Augmentation, augment
from iadd.engine.distance import Distance
from iadd.leaderboard.published_settings import published
from iadd.methods._gradient import gradient_distance
from iadd.methods.iadd import IADDParams, relative_distance
from iadd.networks import build_network
from iadd.seeds import Seeds, generator_for


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return small_problem(tmp_path_factory.mktemp("experts"))


# The contract, for every method found in the folder.


def check_contract(name: str, task: methods.Problem) -> methods.Distilled:
    """What every method promises; plug-ins are held to it too."""
    kind = methods.find(name)
    assert kind.__doc__ and len(kind.__doc__) > 60
    for key in kind.Params.model_fields:
        assert kind.Params.model_fields[key].description, f"{name}.{key} has no sentence"
    assert set(kind.space) <= set(kind.Params.model_fields)
    assert all(len(sentence) > 5 for sentence in kind.trace_columns.values())
    params = kind.Params(**tiny(name))
    work = methods.Workload(len(task.dataset.train), 4, task.ipc, 1e-6)
    assert kind.forecast(params, work) >= 0
    state = torch.random.get_rng_state()
    before = task.dataset.train.images.clone()
    first = methods.distill(kind(params, task), SEEDS)
    again = methods.distill(kind(params, task), SEEDS)
    assert torch.equal(first.images, again.images), "not a function of its seeds"
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(state, torch.random.get_rng_state()), "touched the global generator"
    assert torch.equal(before, task.dataset.train.images), "changed the data"
    assert first.status == "ok" and bool(torch.isfinite(first.images).all())
    count = len(task.dataset.train) if kind.by_reference else task.ipc * task.dataset.classes
    assert first.images.shape == (count, 1, 8, 8)
    soft = kind.label_kind == "soft"
    assert first.labels.shape == ((count, task.dataset.classes) if soft else (count,))
    general = {"iteration", "loss", "loss_unweighted", "step_size", "validation_accuracy"}
    for row in first.trace:
        assert set(row) - general - {"seconds", "event", "path"} <= set(kind.trace_columns)
    return first


@pytest.mark.parametrize("name", methods.names())
def test_contract(name: str, task: methods.Problem) -> None:
    check_contract(name, task)


def test_reconstructions_say_so() -> None:
    """Rule: ours are called reconstructions by their own declaration."""
    found = {name for name in methods.names() if methods.find(name).reconstruction}
    assert found >= {"iadd", "ddpp"} and "mtt" not in found


@pytest.mark.parametrize("name", [n for n in methods.names() if n != "whole"])
def test_ipc_larger_than_a_class(name: str, task: methods.Problem) -> None:
    greedy = methods.Problem(task.dataset, task.network, 10_000, task.experts)
    with pytest.raises(ValueError, match=r"ipc 10000 is larger than class .* training images"):
        methods.distill(make(name, greedy), SEEDS)


@pytest.mark.parametrize("name", ["random", "herding", "kcenter", "forgetting"])
def test_selections_choose_distinct_real_images_of_the_right_class(
    name: str, task: methods.Problem
) -> None:
    result = methods.distill(make(name, task), SEEDS)
    data = task.dataset.train
    assert result.rows is not None and torch.equal(data.images[result.rows], result.images)
    for image, label in zip(result.images, result.labels, strict=True):
        rows = (data.images == image).flatten(1).all(1).nonzero().flatten()
        assert label in data.labels[rows]
    assert len({tuple(image.flatten().tolist()) for image in result.images}) == len(result.images)


def test_unknown_method_and_parameter() -> None:
    with pytest.raises(ValueError, match="unknown method 'mtx'; known: att"):
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
    net = task.network.init(generator_for("net"))
    images = task.dataset.train.images[task.random_rows(generator_for("rows"))]
    own = images[: task.ipc]
    targets = F.one_hot(torch.zeros(task.ipc, dtype=torch.long), 4).float()
    value, gradient = method.match(task.backend, net, 0, own, targets, generator_for("match"))

    # The same in float64 with autograd through the gradient, the draws from the same generator.
    g = generator_for("match")
    rows = task.dataset.class_rows[0]
    rows = rows[torch.randperm(len(rows), generator=g)]
    draw = task.augmentation.draw(g) if name == "dsa" else None
    net = net.double().requires_grad_()
    leaf = own.double().requires_grad_()

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
    plain = replace(task.dataset, augmentation=Augmentation(()))
    method.problem = methods.Problem(plain, task.network, 2)
    images = task.dataset.train.images[task.random_rows(generator_for("rows"))]
    found = method.gradients(0, {"images": images}, generator_for("dm"))
    net = task.network.init(generator_for("dm")).double()
    leaf = images.double().requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for c in range(4):
        own_class = task.dataset.train.images[task.dataset.class_rows[c]]
        real = task.network.embed(net, own_class.double())
        own = task.network.embed(net, leaf[2 * c : 2 * c + 2])
        loss = loss + (real.mean(0) - own.mean(0)).square().sum()
    (expected,) = torch.autograd.grad(loss, leaf)
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    assert torch.allclose(found.by["images"].double(), expected, rtol=1e-3, atol=1e-5)


# Trajectory matching.


def three(seed: int = 0, size: int = 1000) -> tuple[Tensor, Tensor, Tensor]:
    g = generator_for("three", seed)
    student, start, target = torch.randn(3, size, generator=g)
    return student, start, target


def test_mtt_loss(task: methods.Problem) -> None:
    student, start, target = three()
    s, o, t = (z.double().numpy() for z in (student, start, target))
    expected = np.square(s - t).sum() / np.square(o - t).sum()
    found = make("mtt", task).loss(student, start, target, {})
    assert float(found.weighted) == pytest.approx(expected, rel=1e-6)
    assert torch.equal(found.weighted, found.unweighted)


@pytest.mark.parametrize(
    "off", [{"lr_w": 0}, {"update": "off"}, {"update": "off", "granularity": "tensor"}]
)
def test_iadd_without_updates_is_mtt_bit_for_bit(
    off: dict[str, Any], task: methods.Problem
) -> None:
    mtt = methods.distill(make("mtt", task), SEEDS)
    iadd = methods.distill(make("iadd", task, **off), SEEDS)
    assert torch.equal(mtt.images, iadd.images) and mtt.step_size == iadd.step_size
    assert [row["loss"] for row in mtt.trace] == [row["loss"] for row in iadd.trace]


def test_iadd_starts_as_mtt_and_learns_weights(task: methods.Problem) -> None:
    mtt = methods.distill(make("mtt", task), SEEDS)
    iadd = methods.distill(make("iadd", task, lr_w=0.05), SEEDS)
    assert mtt.trace[0]["loss"] == iadd.trace[0]["loss"]
    last = iadd.trace[-1]
    assert last["weight_mean"] == pytest.approx(1, abs=1e-3) and last["weight_std"] > 0.01
    assert last["weight_effective"] < 1 and last["loss"] != last["loss_unweighted"]


@pytest.mark.parametrize("denominator", ["plain", "weighted"])
@pytest.mark.parametrize("reading", ["R1", "R2", "R3"])
@pytest.mark.parametrize("granularity", ["scalar", "filter", "tensor"])
def test_iadd_weight_gradient_equals_float64_autograd(
    reading: str, granularity: str, denominator: str, task: methods.Problem
) -> None:
    method = make("iadd", task, reading=reading, granularity=granularity, denominator=denominator)
    size = task.network.num_parameters
    student, start, target = three(size=size)
    given = method.own_variables()["weights"].value
    given = given + 0.3 * torch.rand(len(given), generator=generator_for("v"))
    own = {"weights": (given / given.mean() if reading == "R2" else given).requires_grad_()}
    leaf = student.clone().requires_grad_()
    found = method.loss(leaf, start, target, own)
    loss = found.weighted if isinstance(found, Distance) else found
    by_student, by_own = torch.autograd.grad(loss, [leaf, own["weights"]])

    v = given.detach().double().requires_grad_()
    s = student.double().requires_grad_()
    raw = v.exp() if reading == "R3" else v
    w = v if reading == "R1" else (raw / raw.mean()).clamp(0, 10)
    mismatch, movement = (s - target.double()).square(), (start - target).double().square()
    if granularity == "scalar":
        below = w.square() * movement if denominator == "weighted" else movement
        expected = (w.square() * mismatch).sum() / below.sum()
    else:
        bounds = task.network.offsets(granularity).tolist()
        pieces = [slice(a, b) for a, b in pairwise(bounds)]
        ratios = torch.stack([mismatch[p].sum() / movement[p].sum() for p in pieces])
        total = w.square().sum() if denominator == "weighted" else len(ratios)
        expected = (w.square() * ratios).sum() / total
    # R2 hands the gradient by w to the fused step, which knows the derivative of w by v.
    e_student, e_own = torch.autograd.grad(expected, [s, w if reading == "R2" else v])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for got, want in ((by_student, e_student), (by_own, e_own)):
        assert float((got - want).abs().max()) <= 2e-5 * float(want.abs().max())


def weights_after(method: Any, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The importance weights after updates on given end points."""
    variable, memory = method.own_variables()["weights"], {}
    for student, start, target in steps:
        own = {"weights": variable.value.detach().requires_grad_()}
        found = method.loss(student.clone().requires_grad_(), start, target, own)
        loss = found.weighted if isinstance(found, Distance) else found
        (gradient,) = torch.autograd.grad(loss, own["weights"])
        variable.optimiser.update(variable.value, gradient, memory)
    return method.weights({"weights": variable.value})


@pytest.mark.parametrize("granularity", ["scalar", "filter"])
def test_shuffled_weights_are_felt_by_others_and_learn_from_their_own(
    granularity: str, task: methods.Problem
) -> None:
    plain, shuffled = (
        make("iadd", task, weights=kind, granularity=granularity)
        for kind in ("learned", "shuffled")
    )
    student, start, target = three(size=task.network.num_parameters)
    order, w = shuffled.order, 1 + torch.rand(shuffled.count, generator=generator_for("w"))
    assert not torch.equal(order, order.sort().values) and torch.equal(
        order.sort().values, torch.arange(shuffled.count)
    )

    def gradients(method: Any, weights: Tensor) -> list[Tensor]:
        own, leaf = {"weights": weights.requires_grad_()}, student.clone().requires_grad_()
        found = method.loss(leaf, start, target, own)
        loss = found.weighted if isinstance(found, Distance) else found
        return [loss.detach(), *torch.autograd.grad(loss, [leaf, own["weights"]])]

    loss, by_student, by_weights = gradients(shuffled, w.clone())
    felt, own = gradients(plain, w[order]), gradients(plain, w.clone())
    assert float(loss) == pytest.approx(float(felt[0]), rel=1e-6) and float(loss) != float(own[0])
    assert torch.allclose(by_student, felt[1]) and torch.equal(by_weights, own[2])


def test_final_weights_are_learned_once_and_then_fixed(
    task: methods.Problem,
) -> None:
    """The first run has draws of its own; what it ends with is in the state, also after a kill."""
    method = make("iadd", task, weights="final", lr_w=0.1, reading="R3")
    result = methods.distill(method, SEEDS)
    first = make("iadd", task, lr_w=0.1, reading="R3")
    seed = SEEDS.generator("iteration", 0).initial_seed()
    learned = first.weights(methods.distill(first, Seeds((seed, "first run"))).variables)
    assert torch.equal(result.variables["weights"], learned) and float(learned.std()) > 0.01
    spread = {row["weight_std"] for row in result.trace}
    assert spread == {float(learned.double().std(correction=0))}
    assert not torch.equal(result.images, methods.distill(first, SEEDS).images)
    kind, params = type(method), method.params
    work = methods.Workload(100, 4, 2, 1e-6)
    assert kind.forecast(params, work) == 2 * kind.forecast(first.params, work)


def test_iadd_default_steps_equal_autograd_and_adam(task: methods.Problem) -> None:
    """Several steps of R2 through the fused kernel against torch's Adam on v in float64."""
    size = task.network.num_parameters
    steps = [three(k, size) for k in range(4)]
    v = torch.ones(size, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([v], lr=0.05)
    for student, start, target in steps:
        w = (v / v.mean()).clamp(0, 10)
        mismatch = (student - target).double().square()
        adam.zero_grad()
        ((w.square() * mismatch).sum() / (start - target).double().square().sum()).backward()
        adam.step()
    expected = (v / v.mean()).clamp(0, 10).detach()
    # Adam's first steps are signs of the gradient: where it is nearly 0, rounding decides.
    apart = (weights_after(make("iadd", task, lr_w=0.05), steps) - expected).abs()
    assert float(apart.median()) < 1e-5 and float((apart > 1e-3).double().mean()) < 0.01


def test_iadd_directions_of_the_readings(task: methods.Problem) -> None:
    """Descent moves weight away from what is hard to match, ascent towards it."""
    size = task.network.num_parameters
    start, target = torch.zeros(size), torch.ones(size)
    student = target.clone()
    student[: size // 2] = 3.0  # the first half is hard
    for reading, hard_is_lower in (("R1", True), ("R2", True), ("R3", False)):
        w = weights_after(make("iadd", task, reading=reading), [(student, start, target)])
        assert bool(w[0] < w[-1]) == hard_is_lower, reading


def test_the_searched_weights_rate_reaches_what_each_reading_needs() -> None:
    """Rule: R1's rate of 1 to 30 a scalar is within the searched range, where R1 is not MTT."""
    kind, low_high = methods.find("iadd"), {}
    _, low, high = kind.space["lr_w_factor"]
    for reading in ("R1", "R2"):
        lr_w = kind.Params(reading=reading).lr_w
        low_high[reading] = lr_w * low, lr_w * high
    assert low_high["R1"][0] <= 1 and low_high["R1"][1] >= 30
    assert low_high["R2"] == pytest.approx((1e-4, 1e-1))


def test_the_experts_are_the_same_for_all_trajectory_methods(task: methods.Problem) -> None:
    """Rule: seeds are paired: the method's name is in no stream."""
    drawn = {}
    for name in ("mtt", "ddpp", "iadd"):
        method = make(name, task)
        draws = [method.draw_expert(SEEDS.generator("iteration", k)) for k in range(8)]
        drawn[name] = torch.stack([torch.stack(pair) for pair in draws])
        start = method.initial(SEEDS.generator("initial"))
        rows = make("random", task).rows(SEEDS.generator("initial"))
        assert torch.equal(start, task.dataset.train.images[rows])
    assert torch.equal(drawn["mtt"], drawn["ddpp"]) and torch.equal(drawn["mtt"], drawn["iadd"])


def test_dc_trains_its_network_on_the_updated_images(
    task: methods.Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Algorithm 1 of arXiv 2006.05929: update the images, then train the network on them."""
    method = make("dc", task, iterations=2, outer_steps=3, inner_epochs=1, lr_img=0.5)
    looked: list[Tensor] = []
    trained_on: list[tuple[int, Tensor]] = []
    gradients, trained = method.gradients, method.trained

    def look(iteration: int, variables: Any, generator: torch.Generator) -> Any:
        looked.append(variables["images"].clone())
        return gradients(iteration, variables, generator)

    def train(net: Tensor, images: Tensor, *rest: Any) -> Tensor:
        trained_on.append((len(looked) - 1, images.clone()))
        return trained(net, images, *rest)

    monkeypatch.setattr(method, "gradients", look)
    monkeypatch.setattr(method, "trained", train)
    result = methods.distill(method, SEEDS)
    # 2 networks x 3 updates and the last look; the first update of each network is on a fresh one.
    assert [row["iteration"] for row in result.trace] == list(range(7))
    assert [k for k, _ in trained_on] == [1, 2, 4, 5]
    for k, images in trained_on:
        assert torch.equal(images, looked[k]) and not torch.equal(images, looked[k - 1])


@pytest.mark.parametrize(("ipc", "updates"), [(1, 1000), (10, 10_000), (50, 50_000)])
def test_dc_makes_the_published_number_of_updates(ipc: int, updates: int) -> None:
    for name in ("dc", "dsa"):
        params: Any = methods.find(name).Params(**published(name, "cifar10", ipc))
        assert params.updates == updates


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
    with pytest.raises(ValueError, match="settings reach epoch 10, experts were kept to 6"):
        make("mtt", task, max_start=10)
    with pytest.raises(ValueError, match="method softlabel: its settings reach epoch 20"):
        make("softlabel", task, expert_epoch=20)
    alone = methods.Problem(task.dataset, task.network, 2)
    with pytest.raises(ValueError, match="method mtt needs expert trajectories"):
        make("mtt", alone)


@pytest.mark.parametrize("value", [1e39, float("inf"), float("nan"), 0.0])
def test_a_learning_rate_that_cannot_be(value: float) -> None:
    """Rule: ends in one line, never in an OverflowError of the update."""
    with pytest.raises(ValueError, match="lr_img") as caught:
        methods.find("mtt").Params(lr_img=value)
    assert len(caught.value.errors()) == 1  # type: ignore[attr-defined]
