"""The judge: protocols, seeds, divergence on record, validation never reads test."""

import pytest
import torch

from iadd import evaluation
from iadd.augment import Augmentation
from iadd.data import Dataset, Split, load_dataset
from iadd.evaluation import PROTOCOLS, evaluate, find_protocol, validation_accuracy
from iadd.networks import build_network
from iadd.synthetic import SyntheticSet


@pytest.fixture(scope="module")
def blobs() -> Dataset:
    return load_dataset("blobs")


def real_set(blobs: Dataset, step_size: float | None = None) -> SyntheticSet:
    rows = torch.cat([blobs.class_rows[c][:5] for c in range(blobs.classes)])
    return SyntheticSet(
        blobs.train.images[rows],
        blobs.train.labels[rows],
        blobs.transform,
        blobs.class_names,
        step_size,
    )


def judge(
    blobs: Dataset,
    synthetic: SyntheticSet,
    protocol: str = "mtt-v1",
    names: object = 0,
    networks: dict[str, int] | None = None,
) -> list[dict[str, object]]:
    return list(
        evaluate(
            synthetic,
            blobs,
            protocol,
            networks or {"mlp-w16": 2, "convnet-d2-w8-batchnorm": 1},
            epochs=30,
            augmentation=Augmentation(blobs.augmentations),
            names=(names,),
        )
    )


def test_rows_are_a_function_of_names(blobs: Dataset) -> None:
    def accuracies(names: object) -> list[object]:
        return [row["accuracy"] for row in judge(blobs, real_set(blobs), names=names)]

    rows = judge(blobs, real_set(blobs))
    assert [(r["network_eval"], r["eval_seed"]) for r in rows] == [
        ("mlp-w16", 0),
        ("mlp-w16", 1),
        ("convnet-d2-w8-batchnorm", 0),
    ]
    assert all(r["status"] == "ok" and 0.4 < float(str(r["accuracy"])) <= 1 for r in rows), rows
    assert accuracies(0) == accuracies(0)
    one = judge(blobs, real_set(blobs), networks={"mlp-w16": 1})
    assert one[0]["accuracy"] == rows[0]["accuracy"]  # independent of what else is judged


def test_protocols_differ_as_they_say(blobs: Dataset) -> None:
    learned = real_set(blobs, step_size=0.2)
    rules = PROTOCOLS["mtt-v1"].schedule(learned, 100, 256, 0.01)
    assert (rules.step_size, rules.drops, rules.momentum, rules.weight_decay) == (
        0.2,
        (50,),
        0.9,
        5e-4,
    )
    assert PROTOCOLS["mtt-v1"].schedule(real_set(blobs), 100, 256, 0.01).step_size == 0.01
    assert PROTOCOLS["dc-v1"].schedule(learned, 100, 256, 0.01).step_size == 0.01
    assert PROTOCOLS["mtt-v1"].augmented and not PROTOCOLS["mtt-v1-noaug"].augmented
    with pytest.raises(ValueError, match="unknown protocol 'mtt'; known: mtt-v1"):
        find_protocol("mtt")


def test_a_network_that_diverges_is_on_record(blobs: Dataset) -> None:
    rows = judge(blobs, real_set(blobs, step_size=1e25), networks={"mlp-w16": 1})
    assert rows[0]["status"] == "diverged" and rows[0]["accuracy"] == 0.25


def test_validation_never_opens_test(blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("test data opened")

    monkeypatch.setattr(evaluation, "open_test", forbidden)
    network = build_network("mlp-w16", 1, 8, blobs.classes)
    options = {
        "dataset": blobs,
        "network": network,
        "augmentation": Augmentation(()),
        "epochs": 30,
        "networks": 2,
        "default_step_size": 0.05,
        "names": (0,),
    }
    chosen = real_set(blobs)
    good = validation_accuracy(chosen.images, chosen.labels, None, **options)
    wrong = validation_accuracy(chosen.images, (chosen.labels + 1) % 4, None, **options)
    assert good > 0.8 and wrong < 0.2
    assert good == validation_accuracy(chosen.images, chosen.labels, None, **options)
    assert validation_accuracy(chosen.images * float("inf"), chosen.labels, None, **options) == 0


def test_the_sets_own_transform_is_used(blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watch(dataset: Dataset, transform: object = None) -> Split:
        seen.append(transform)
        return dataset.validation

    monkeypatch.setattr(evaluation, "open_test", watch)
    synthetic = real_set(blobs)
    judge(blobs, synthetic, networks={"mlp-w16": 1})
    assert seen == [synthetic.transform]
