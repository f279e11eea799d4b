"""The iteration over fixed buffers, uncaptured on the CPU, against plain autograd through it."""

import contextlib

import pytest
import torch
from torch import Tensor

from iadd.augment import FAMILIES, Augmentation, Draw
from iadd.engine import cuda_graph
from iadd.engine.backend import choose_backend
from iadd.engine.student import Step, Unrolled, draw_steps
from iadd.engine.unroll import unroll
from iadd.networks import build_network
from iadd.seeds import generator_for


def run(
    mode: str,
    seed: int = 0,
    *,
    families: tuple[str, ...] = (),
    batch: int | None = None,
    name: str = "convnet-d2-w6",
    device: str = "cpu",
    alpha: float = 0.05,
    steps: list[Step] | None = None,
) -> Unrolled:
    g = generator_for("graphs", seed)
    network = build_network(name, 3, 8, 3)
    start = network.init(g).double()
    target = start + 0.01 * torch.randn(len(start), generator=g, dtype=torch.float64)
    images = torch.randn(6, 3, 8, 8, generator=g, dtype=torch.float64)
    targets = torch.rand(6, 3, generator=g, dtype=torch.float64).softmax(1)
    augmentation = Augmentation(families)

    def draw(count: int) -> Draw | None:
        return augmentation.draw(g, count)

    steps = steps or draw_steps(5, 6, batch, draw, g)
    start, target, images, targets = (z.to(device) for z in (start, target, images, targets))

    def endpoint(student: Tensor) -> tuple[Tensor, Tensor]:
        return (student - target).square().sum(), 2 * (student - target)

    backend = choose_backend(network, start.device, start.dtype)
    return unroll(backend, start, images, targets, alpha, steps, endpoint, mode)


def assert_same(a: Unrolled, b: Unrolled) -> None:
    for name in ("loss", "images", "targets", "step_size", "end"):
        left, right = getattr(a, name).cpu(), getattr(b, name).cpu()
        assert left.shape == right.shape
        assert float((left - right).abs().max()) <= 1e-9 * float(right.abs().max()), name


@pytest.mark.parametrize("families", [(), FAMILIES, ("color",), ("cutout", "rotate")])
@pytest.mark.parametrize("batch", [None, 4])
def test_fixed_buffers_give_the_exact_gradient(
    families: tuple[str, ...], batch: int | None
) -> None:
    cuda_graph._iteration.cache_clear()
    for seed in (0, 1):  # the second goes through the first one's buffers
        options = {"families": families, "batch": batch, "alpha": 0.05 + 0.02 * seed}
        assert_same(run("captured", seed, **options), run("graph", seed, **options))
    assert cuda_graph._iteration.cache_info().misses == 1


@pytest.mark.parametrize("name", ["mlp-w16", "convnet-d1-w4-batchnorm", "lenet"])
def test_networks_outside_the_family(name: str) -> None:
    options = {"name": name, "families": ("scale", "crop")}
    assert_same(run("captured", **options), run("graph", **options))


def test_results_outlive_the_next_iteration() -> None:
    first = run("captured", 0)
    kept = [z.clone() for z in first[:5]]
    run("captured", 1)
    assert all(torch.equal(a, b) for a, b in zip(first[:5], kept, strict=True))


def test_a_new_shape_gets_new_buffers() -> None:
    cuda_graph._iteration.cache_clear()
    run("captured")
    run("captured", batch=4)
    assert cuda_graph._iteration.cache_info().misses == 2


def test_steps_of_unequal_size_are_replayed_one_by_one() -> None:
    steps = [Step(torch.tensor([0, 1]), None), Step(torch.tensor([2, 3, 4]), None)]
    assert_same(run("captured", steps=steps), run("graph", steps=steps))


def test_what_is_too_large_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iadd.engine.unroll.KEPT_BYTES", 100)
    monkeypatch.setattr("iadd.engine.checkpoints.KEPT_BYTES", 100)
    result = run("captured")
    assert result.path.startswith("replay/3 ")
    assert_same(result, run("graph"))


def test_capture_that_fails_is_said_once_and_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "Stream", refuse)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    assert cuda_graph.captured(lambda: None, torch.device("cpu")) is None
    assert cuda_graph.captured(lambda: None, torch.device("cuda")) is None
    assert [r.message for r in caplog.records] == [
        "no CUDA graph, launching one by one: operation not permitted when stream is capturing"
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("families", [(), FAMILIES])
@pytest.mark.parametrize("batch", [None, 4])
def test_cuda_graphs_give_the_exact_gradient(families: tuple[str, ...], batch: int | None) -> None:
    for seed in (0, 1, 2):
        options = {"families": families, "batch": batch}
        found = run("captured", seed, device="cuda", **options)
        assert found.path.startswith("captured cuda-convnet-fused")
        assert_same(found, run("graph", seed, **options))
