"""The engine against autograd through the unroll, in float64: every network and augmentation."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import iadd
from iadd.augment import FAMILIES, Augmentation, Draw
from iadd.engine.student import Step, Unrolled, draw_steps
from iadd.engine.unroll import Schedule, _schedule, unroll
from iadd.evaluation import validation_accuracy
from iadd.methods import Hooks
from iadd.networks import build_network
from iadd.seeds import generator_for
from iadd.synthetic import SyntheticSet

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

    return unroll(network, start, images, targets, step_size, plan, endpoint, mode)


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


@pytest.mark.parametrize("name", ["convnet-d2-w8-batchnorm", "vgg11-w4", "resnet18-w4-batchnorm"])
@pytest.mark.parametrize("stride, tapes", [(1, 1), (3, 1), (3, 2), (3, 3), (7, 5), (7, 7)])
def test_every_schedule_is_exact(
    name: str, stride: int, tapes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven steps: whole and broken segments, graphs kept of none, some and all of their steps."""
    options = {"steps": 7, "batch": 4, "families": ("scale",), "step_size": 0.02}
    graph = run(name, "graph", **options)
    monkeypatch.setattr("iadd.engine.unroll._schedule", lambda *_: Schedule(stride, tapes))
    assert_same(run(name, "auto", **options), graph)


def test_auto_keeps_what_a_sixth_of_the_graph_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    def schedule(name: str, count: int) -> Schedule:
        network = build_network(name, 1, 16, 3)
        start = torch.zeros(network.num_parameters)
        return _schedule("auto", network, start, torch.zeros(4, 1, 16, 16), count)

    assert schedule("vgg11-w4", 20) == Schedule(20, 20)  # within what is free: the whole graph
    assert run("vgg11-w4", "auto").path == "replay/4/4 autograd"
    monkeypatch.setattr("iadd.engine.unroll.FREE_BYTES", 0)
    many, few = schedule("vgg11-w4", 60), schedule("vgg11-w4", 3)
    assert 1 < many.tapes <= 10 and many.stride >= many.tapes
    assert few.tapes == 1
    monkeypatch.setattr("iadd.engine.unroll.REPLAY_BYTES", 0)
    assert schedule("vgg11-w4", 60).tapes == 1  # nothing fits: the least there is


def float32_errors(name: str, seeds: int) -> tuple[float, float]:
    """Median relative L2 errors of the float32 image gradient against float64.

    The engine's, and that of the plain way in channels_last.
    """

    def images(
        mode: str, seed: int, layout: torch.memory_format, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        g = generator_for(name, "float32", seed)
        network = build_network(name, 3, 8, 10)
        start = network.init(g)
        target = (start + 0.02 * torch.randn(len(start), generator=g)).to(dtype)
        pictures = torch.randn(10, 3, 8, 8, generator=g).to(dtype, memory_format=layout)

        def endpoint(student: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (student - target).square().sum(), 2 * (student - target)

        plan, labels = [Step(None, None)] * 10, torch.eye(10, dtype=dtype)
        start = start.to(dtype)
        return unroll(network, start, pictures, labels, 0.02, plan, endpoint, mode).images

    engine, other = [], []
    for seed in range(seeds):
        exact = images("graph", seed, torch.contiguous_format, torch.float64)
        found = images("auto", seed, torch.contiguous_format)
        moved = images("graph", seed, torch.channels_last)
        engine.append(float((found - exact).norm() / exact.norm()))
        other.append(float((moved - exact).norm() / exact.norm()))
    return statistics.median(engine), statistics.median(other)


@pytest.mark.parametrize("name", ["convnet-d2-w16", "convnet-d2-w16-batchnorm", "lenet"])
def test_float32_errs_no_more_than_the_plain_way_in_another_layout(name: str) -> None:
    """The median of nine seeds: a ReLU that changes sides in a few of them does not move it."""
    engine, channels_last = float32_errors(name, 9)
    assert engine <= channels_last
    assert engine < 1e-5


@pytest.mark.parametrize("mode", ["replay", "checkpoint", "captured"])
@pytest.mark.parametrize("name", ["convnet-d2-w8", "mlp-w16"])
def test_steps_too_small_for_float32_add_up(name: str, mode: str) -> None:
    """Steps that one by one are less than the parameters' last bit."""
    single, double = (
        run(name, mode, steps=64, step_size=1e-7, dtype=dtype).end
        for dtype in (torch.float32, torch.float64)
    )
    start = run(name, mode, steps=1, step_size=1e-30, dtype=torch.float64).end
    assert float((single - double).norm()) < 0.3 * float((double - start).norm())


def test_digits_are_distilled_as_well_by_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits, name = iadd.load_dataset("digits"), "convnet-d2-w16"
    experts = iadd.record_experts(
        digits, name, tmp_path / "e.safetensors", count=3, epochs=6, step_size=0.05, batch=64
    )
    settings = {"iterations": 40, "unrolled_steps": 8, "max_start": 3, "lr_img": 30, "clip": 1.0}

    def distilled() -> tuple[str, SyntheticSet]:
        paths = []

        def told(*args: object, **options: str) -> Unrolled:
            result = unroll(*args, **options | forced)  # type: ignore[arg-type]
            paths.append(result.path)
            return result

        monkeypatch.setattr("iadd.methods._trajectory.unroll", told)
        found = iadd.distill("mtt", digits, name, 1, experts=experts, hooks=Hooks(), **settings)
        assert len(set(paths)) == 1 and len(paths) == 40
        return paths[0], found

    forced: dict[str, str] = {}
    sets = [distilled()]
    with monkeypatch.context() as patch:
        patch.setattr("iadd.engine.cpu_convnet.path", lambda network, params: None)
        sets.append(distilled())
        forced = {"mode": "replay"}
        sets.append(distilled())
        forced = {"mode": "graph"}
        sets.append(distilled())
    assert [path for path, _ in sets][1:] == [
        "replay/8/8 autograd",
        "replay autograd",
        "graph autograd",
    ]
    network = build_network(name, 1, 8, 10)
    accuracies = [
        validation_accuracy(
            found.images,
            found.labels,
            found.step_size,
            dataset=digits,
            network=network,
            augmentation=Augmentation(digits.augmentations),
            epochs=150,
            networks=5,
            default_step_size=0.01,
            names=("paths",),
        )
        for _, found in sets
    ]
    assert min(accuracies) > 0.7
    assert max(accuracies) - min(accuracies) < 0.03, accuracies


@pytest.mark.parametrize("mode", ["replay", "checkpoint"])
@pytest.mark.parametrize("name", ["mlp-w16", "convnet-d2-w8"])
def test_an_unroll_leaves_the_last_ones_results_alone(name: str, mode: str) -> None:
    """Thetas lie where those of the last unroll lay: of any number, size and kind."""
    first = run(name, mode, steps=6)
    kept = Unrolled(*(z.clone() if isinstance(z, torch.Tensor) else z for z in first))
    for other, steps in (("lenet", 9), (name, 3), ("mlp-w4", 2)):
        run(other, mode, steps=steps)
    assert_same(first, kept, 0.0)
    assert_same(run(name, mode, steps=6), kept, 0.0)


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
        monkeypatch.setattr("iadd.augment.TOGETHER_BYTES", together)
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
