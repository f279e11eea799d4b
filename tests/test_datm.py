"""DATM: what images and labels start from, the start range that grows, skipped updates."""

from pathlib import Path

import numpy as np
import pytest
import torch
from method_cases import SEEDS, make, small_problem

from iadd import methods
from iadd.methods.datm import DATMParams


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return small_problem(tmp_path_factory.mktemp("experts"))


def logits(task: methods.Problem, expert: int, images: torch.Tensor, epoch: int) -> np.ndarray:
    assert task.experts is not None
    params = task.experts.snapshot(expert, epoch).double()
    return task.network.apply(params, images.double()).numpy()


def test_the_start_range_grows_as_published() -> None:
    """U = cur + int((max - cur) it / expansion_end), at most max; arXiv 2310.05773's code."""
    params = DATMParams(min_start=3, first_max_start=10, max_start=20, expansion_end=1000)
    for iteration in (0, 99, 100, 550, 999, 1000, 5000):
        assert params.start_bound(iteration) == min(10 + int(10 * iteration / 1000), 20)
    assert params.reach == 20 - 1 + 2
    assert DATMParams(max_start=4).start_bound(0) == 4
    with pytest.raises(ValueError, match=r"first_max_start 9: allowed is min_start \(9\) < "):
        DATMParams(min_start=9, first_max_start=9, max_start=20)
    with pytest.raises(ValueError, match=r"max_start 2: allowed is min_start \(2\) < max_start"):
        DATMParams(min_start=2, max_start=2)


def test_starts_are_drawn_from_the_range(task: methods.Problem) -> None:
    assert task.experts is not None
    method = make(
        "datm", task, min_start=1, first_max_start=2, max_start=5, expansion_end=10, label_epoch=6
    )
    known = [[task.experts.snapshot(e, k) for k in range(7)] for e in range(2)]

    def epochs(iteration: int) -> set[int]:
        found = set()
        for k in range(40):
            start, target = method.draw_expert(SEEDS.generator("draw", k), iteration)
            ((e, epoch),) = (
                (e, k) for e in range(2) for k in range(7) if torch.equal(known[e][k], start)
            )
            assert torch.equal(known[e][epoch + 1], target)
            found.add(epoch)
        return found

    assert epochs(0) == {1} and epochs(4) == {1, 2} and epochs(10) == {1, 2, 3, 4}


def test_images_start_from_what_an_expert_gets_right(task: methods.Problem) -> None:
    """Rule: the images of `random` in their order, but for those that the first expert misses."""
    method = make("datm", task, label_epoch=1)
    images, data = method.initial(SEEDS.generator("initial")), task.dataset.train
    generator, expected = SEEDS.generator("initial"), []
    for label, rows in enumerate(task.dataset.class_rows):
        rows = rows[torch.randperm(len(rows), generator=generator)]
        right = rows[logits(task, 0, data.images[rows], 1).argmax(1) == label].tolist()
        right += [
            row
            for row in rows[logits(task, 1, data.images[rows], 1).argmax(1) == label].tolist()
            if row not in right
        ]
        right += [row for row in rows.tolist() if row not in right]
        expected += right[: task.ipc]
    assert torch.equal(images, data.images[expected])
    plain = methods.distill(make("random", task), SEEDS).images
    real = make("datm", task, init_right=False).initial(SEEDS.generator("initial"))
    assert torch.equal(real, plain)


def test_labels_start_as_the_mean_logits_of_the_experts_that_are_right(
    task: methods.Problem,
) -> None:
    """Against numpy in float64; where no expert is right, the mean of all."""
    images = task.dataset.train.images[:8]  # of any class: many are not what they stand for
    method = make("datm", task, label_epoch=1)
    found = method.initial_labels(images)
    said = np.stack([logits(task, e, images, 1) for e in range(2)])  # (2, 8, K)
    right = said.argmax(2) == task.labels().numpy()
    counts = right.sum(0)
    assert len(set(counts.tolist())) > 1, "the case tells nothing"
    for n in range(8):
        chosen = said[right[:, n], n] if counts[n] else said[:, n]
        assert np.abs(found[n].numpy() - chosen.mean(0)).max() < 1e-5
    first = make("datm", task, label_epoch=1, init_right=False).initial_labels(images)
    assert np.abs(first.numpy() - logits(task, 0, images, 6)).max() < 1e-5


def test_updates_above_the_threshold_are_skipped(task: methods.Problem) -> None:
    free = methods.distill(make("datm", task, threshold=100.0), SEEDS)
    losses = [row["loss"] for row in free.trace]
    assert not any(row["event"] for row in free.trace)
    never = methods.distill(make("datm", task, threshold=1e-6), SEEDS)
    assert {row["event"] for row in never.trace} == {"skipped"}
    assert never.trace[0]["loss"] == losses[0] and "loss above 1e-06" in never.trace[0]["path"]
    start = make("datm", task).initial(SEEDS.generator("initial"))
    assert torch.equal(never.images, start) and not torch.equal(free.images, start)
    assert not torch.equal(never.labels, free.labels)


def test_datm_reads_experts_as_far_as_its_labels(task: methods.Problem, tmp_path: Path) -> None:
    assert DATMParams(max_start=4, label_epoch=100).reach == 100
    with pytest.raises(ValueError, match="settings reach epoch 7, experts were kept to 6"):
        make("datm", task, label_epoch=7)
