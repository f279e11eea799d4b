"""The engine against autograd through the unroll, in float64: every network and augmentation."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iadd.augment import FAMILIES, TOGETHER_BYTES, Augmentation, Draw
from iadd.engine.autograd import AutogradBackend
from iadd.engine.backend import Backend, choose_backend
from iadd.engine.student import Unrolled, draw_steps
from iadd.engine.unroll import unroll
from iadd.networks import build_network
from iadd.seeds import generator_for

CPU = torch.device("cpu")
NETWORKS = (
    "convnet-d2-w8",
    "convnet-d2-w8-batchnorm",
    "convnet-d2-w8-nonorm-maxpool",
    "convnet-d2-w8-layernorm-leakyrelu",
    "mlp-w16",
    "lenet",
    "alexnet-w4",
    "vgg11-w4",
    "resnet18-w4",
    "resnet18-w4-batchnorm",
    "vit-tiny-d2-w16",
)


def run(
    network_name: str,
    mode: str,
    *,
    families: tuple[str, ...] = (),
    steps: int = 4,
    ipc: int = 2,
    batch: int | None = None,
    resolution: int = 8,
    channels: int = 1,
    soft: bool = False,
    step_size: float = 0.05,
    dtype: torch.dtype = torch.float64,
    backend: Callable[..., Backend] = choose_backend,
    compared: tuple[int, ...] = (),
    truncated: bool = False,
) -> Unrolled:
    g = generator_for(network_name, "unroll")
    network = build_network(network_name, channels, resolution, 3)
    start = network.init(g).to(dtype)
    target = start + 0.01 * torch.randn(len(start), generator=g, dtype=torch.float64).to(dtype)
    shape = (3 * ipc, channels, resolution, resolution)
    images = torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
    targets = torch.eye(3, dtype=dtype).repeat_interleave(ipc, 0)
    if soft:
        targets = torch.rand(3 * ipc, 3, generator=g, dtype=torch.float64).softmax(1).to(dtype)
    augmentation = Augmentation(families)

    def draw(count: int) -> Draw | None:
        return augmentation.draw(g, count)

    plan = draw_steps(steps, len(images), batch, draw, g)

    def endpoint(student: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (student - target).square().sum(), 2 * (student - target)

    seen: dict[int, torch.Tensor] = {0: start}

    def watch(t: int, state: torch.Tensor) -> None:
        assert t == max(seen) + 1  # of every step, in order
        seen[t] = state

    def of_states(end: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        assert torch.equal(end, seen[steps])
        apart = {t: t * (seen[t] - target) for t in compared}
        loss = sum((z.square().sum() / t / 2 for t, z in apart.items()), start.new_zeros(()))
        return loss, apart

    passes = backend(network, start.device, dtype)
    loss = of_states if compared else endpoint
    given = (passes, start, images, targets, step_size, plan, loss, mode)
    return unroll(*given, watch=watch, truncated=truncated)


def assert_same(a: Unrolled, b: Unrolled, tolerance: float = 1e-9) -> None:
    for name in ("loss", "images", "targets", "step_size", "end"):
        left, right = getattr(a, name), getattr(b, name)
        scale = float(right.abs().max()) or 1.0
        assert float((left - right).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize("name", NETWORKS)
def test_replay_is_the_exact_gradient_of_every_network(name: str) -> None:
    graph = run(name, "graph", families=("scale", "crop"))
    assert float(graph.images.abs().max()) > 0 and float(graph.step_size.abs()) > 0
    assert_same(run(name, "replay", families=("scale", "crop")), graph)


@pytest.mark.parametrize("family", FAMILIES)
def test_replay_is_exact_under_every_augmentation(family: str) -> None:
    options = {"families": (family,), "channels": 3}
    assert_same(run("convnet-d2-w8", "replay", **options), run("convnet-d2-w8", "graph", **options))


@pytest.mark.parametrize("mode", ["replay", "checkpoint", "captured"])
@pytest.mark.parametrize("steps", [1, 2, 7, 9])
def test_minibatches_soft_labels_and_checkpoints(mode: str, steps: int) -> None:
    options = {"steps": steps, "batch": 4, "soft": True, "families": ("rotate", "color")}
    assert_same(run("mlp-w16", mode, **options), run("mlp-w16", "graph", **options))
    assert_same(run("convnet-d2-w8", mode, **options), run("convnet-d2-w8", "graph", **options))


@pytest.mark.parametrize("mode", ["replay", "checkpoint", "captured"])
@pytest.mark.parametrize("compared", [(9,), (4, 9), (1, 5), (6,), (3,), (1,)])
def test_a_loss_of_any_states(mode: str, compared: tuple[int, ...]) -> None:
    """Steps after the last state that is compared leave no gradient."""
    options = {"steps": 9, "batch": 4, "families": ("rotate", "color"), "compared": compared}
    assert_same(run("convnet-d2-w8", mode, **options), run("convnet-d2-w8", "graph", **options))


@pytest.mark.parametrize("mode", ["replay", "checkpoint", "captured"])
@pytest.mark.parametrize("compared", [(), (2, 7)])
def test_truncated_gradient(mode: str, compared: tuple[int, ...]) -> None:
    options = {"steps": 7, "batch": 4, "soft": True, "families": ("scale",), "compared": compared}
    exact = run("convnet-d2-w8", mode, **options)
    found = run("convnet-d2-w8", mode, truncated=True, **options)
    assert torch.equal(found.end, exact.end) and torch.equal(found.loss, exact.loss)
    assert not torch.equal(found.images, exact.images)
    assert_same(found, run("convnet-d2-w8", "graph", truncated=True, **options))


@settings(max_examples=15, deadline=None)
@given(
    resolution=st.integers(8, 19),
    channels=st.sampled_from([1, 3]),
    ipc=st.integers(1, 3),
    steps=st.integers(1, 4),
    name=st.sampled_from(["convnet-d1-w5", "convnet-d2-w17", "convnet-d3-w4-nonorm"]),
)
def test_replay_is_exact_for_random_shapes(
    resolution: int, channels: int, ipc: int, steps: int, name: str
) -> None:
    options = {"resolution": resolution, "channels": channels, "ipc": ipc, "steps": steps}
    assert_same(run(name, "replay", **options), run(name, "graph", **options), 1e-8)


def test_backends_give_the_same_gradient() -> None:
    network = build_network("convnet-d2-w8", 1, 8, 3)
    found = [
        run("convnet-d2-w8", "auto", steps=3, families=("rotate",)),
        run("convnet-d2-w8", "auto", steps=3, families=("rotate",), backend=AutogradBackend),
    ]
    assert found[0].path == f"replay {choose_backend(network, CPU, torch.float64).name}"
    assert found[1].path == "replay autograd"
    assert_same(found[0], found[1])


@pytest.mark.parametrize("mode", ["replay", "checkpoint"])
def test_float32_is_near_float64_where_no_sign_differs(mode: str) -> None:
    """A network without ReLU has no signs to differ."""
    exact, single = (
        run("convnet-d2-w8-linear", mode, steps=10, dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    assert_same(single, exact, 1e-4)


def test_checkpoints_replace_states_that_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("mlp-w16", "auto", steps=7)
    assert whole.path == "replay autograd"
    monkeypatch.setattr("iadd.engine.checkpoints.KEPT_BYTES", 0)
    sparse = run("mlp-w16", "auto", steps=7)
    assert sparse.path == "replay/3 autograd"
    assert all(torch.equal(a, b) for a, b in zip(whole[:5], sparse[:5], strict=True))


def test_gradient_of_step_size_by_finite_differences() -> None:
    h = 1e-6
    options = {"families": ("scale",), "steps": 3}
    slope = (
        run("mlp-w16", "replay", step_size=0.05 + h, **options).loss
        - run("mlp-w16", "replay", step_size=0.05 - h, **options).loss
    ) / (2 * h)
    exact = run("mlp-w16", "replay", **options).step_size
    assert float(exact) == pytest.approx(float(slope), rel=1e-5)


@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize("mode", ["replay", "checkpoint"])
def test_how_many_steps_are_augmented_together_changes_no_bit(
    mode: str, batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for together in (1, 7_000, 1 << 20):  # one step's images, two steps', all
        monkeypatch.setitem(TOGETHER_BYTES, "cpu", together)
        found.append(run("mlp-w16", mode, families=FAMILIES, steps=7, batch=batch))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0][:5], other[:5], strict=True))


def test_nan_propagates() -> None:
    def with_nan(mode: str) -> Unrolled:
        return run("convnet-d2-w8", mode, step_size=float("nan"))

    assert not bool(torch.isfinite(with_nan("replay").loss))
    assert not bool(torch.isfinite(with_nan("replay").images).all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run("mlp-w16", "tesla"), "unroll mode 'tesla': allowed are auto, replay"),
        (lambda: run("mlp-w16", "replay", steps=0), "0 student steps"),
    ],
)
def test_errors(call: Callable[[], Unrolled], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
