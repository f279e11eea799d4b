"""The judge: protocols, seeds, divergence on record, validation never reads test."""

from dataclasses import replace

import pytest
import torch

from iadd.data import Dataset, Split, load_dataset
from iadd.evaluation import (
    PROTOCOLS,
    Validation,
    accuracy,
    evaluate,
    find_protocol,
    score,
    validation_accuracy,
)
from iadd.evaluation import judge as judging
from iadd.networks import build_network
from iadd.seeds import Seeds, generator_for
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
            seeds=Seeds((names,)),
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
    assert all(r["status"] == "ok" and 0.3 < float(str(r["accuracy"])) <= 1 for r in rows), rows
    assert accuracies(0) == accuracies(0)
    one = judge(blobs, real_set(blobs), networks={"mlp-w16": 1})
    assert one[0]["accuracy"] == rows[0]["accuracy"]  # independent of what else is judged


def test_protocols_differ_as_they_say(blobs: Dataset) -> None:
    learned = real_set(blobs, step_size=0.2)
    rules = PROTOCOLS["mtt-v1"].plan(learned.step_size, 100, 256, 0.01)
    assert (rules.step_size, rules.drops, rules.momentum, rules.weight_decay) == (
        0.2,
        (50,),
        0.9,
        5e-4,
    )
    assert PROTOCOLS["mtt-v1"].plan(None, 100, 256, 0.01).step_size == 0.01
    assert PROTOCOLS["dc-v1"].plan(0.2, 100, 256, 0.01).step_size == 0.01
    assert PROTOCOLS["mtt-v1"].augmented and not PROTOCOLS["mtt-v1-noaug"].augmented
    with pytest.raises(ValueError, match="unknown protocol 'mtt'; known: mtt-v1"):
        find_protocol("mtt")


def test_a_network_that_diverges_is_on_record(blobs: Dataset) -> None:
    rows = judge(blobs, real_set(blobs, step_size=1e25), networks={"mlp-w16": 1})
    row = rows[0]
    assert row["status"] == "diverged" and row["confusion"] is None
    assert row["accuracy"] == row["balanced_accuracy"] == row["train_accuracy"] == 0.25


def test_the_confusion_matrix_gives_both_accuracies(blobs: Dataset) -> None:
    """Rule: rows are true classes, columns predictions; balanced accuracy is the mean recall."""
    network = build_network("mlp-w16", 1, 8, blobs.classes)
    params = network.init(generator_for("confusion"))
    part = blobs.train
    uneven = Split(part.images[:90], part.labels[:90])
    uneven = Split(uneven.images[uneven.labels < 3], uneven.labels[uneven.labels < 3])
    found = score(network, params, uneven)
    predicted = network.apply(params, uneven.images).argmax(1)
    by_hand = [
        int(((uneven.labels == true) & (predicted == said)).sum())
        for true in range(4)
        for said in range(4)
    ]
    assert found.confusion == by_hand
    assert found.accuracy == pytest.approx(float((predicted == uneven.labels).double().mean()))
    recalls = [float((predicted == c)[uneven.labels == c].double().mean()) for c in range(3)]
    assert found.balanced_accuracy == pytest.approx(sum(recalls) / 3)  # class 3 has no images
    assert found.recall == [pytest.approx(recall) for recall in recalls] + [None]
    kept = [float((predicted != c)[uneven.labels != c].double().mean()) for c in range(4)]
    assert found.specificity == [pytest.approx(share) for share in kept]
    assert found.auroc[3] is None and all(0 <= area <= 1 for area in found.auroc[:3])
    assert accuracy(network, params, uneven) == found.accuracy
    broken = score(network, params * float("nan"), uneven)
    assert (broken.accuracy, broken.balanced_accuracy, broken.confusion) == (0.25, 0.25, None)
    lists = broken.recall, broken.specificity, broken.auroc
    assert lists == ([0.25] * 4, [0.75] * 4, [0.5] * 4)
    assert accuracy(network, params * float("nan"), uneven) == 0.25


def test_a_network_is_judged_by_itself_not_by_its_distillation(blobs: Dataset) -> None:
    """Rule: a diverged distillation does not mark sound evaluation networks as diverged."""
    rows = judge(blobs, replace(real_set(blobs), status="diverged"), networks={"mlp-w16": 1})
    assert rows[0]["status"] == "ok"


def test_label_regimes(blobs: Dataset) -> None:
    hard = real_set(blobs)
    soft = replace(hard, labels=5.0 * torch.eye(4)[hard.labels])
    assert (hard.label_kind, soft.label_kind) == ("hard", "soft")
    assert float(str(judge(blobs, soft, networks={"mlp-w16": 1})[0]["accuracy"])) > 0.4


def test_rows_of_the_data_are_judged_like_their_images(blobs: Dataset) -> None:
    """Rule: a set of real images may be a reference to the data, and only to that data."""
    images = real_set(blobs)
    rows = torch.cat([blobs.class_rows[c][:5] for c in range(blobs.classes)])
    stored = replace(images, images=images.images[:0], rows=rows, fingerprint=blobs.fingerprint)
    assert (len(stored), stored.image_bytes) == (len(images), images.image_bytes)
    with pytest.raises(ValueError, match="resolve it first"):
        stored.pixels()
    a, b = (judge(blobs, s, networks={"mlp-w16": 1})[0]["accuracy"] for s in (images, stored))
    assert a == b
    with pytest.raises(
        ValueError, match="rows are of data with fingerprint other, those of blobs have"
    ):
        replace(stored, fingerprint="other").resolve(blobs)


def test_a_set_whose_classes_are_others_or_in_another_order_is_refused(blobs: Dataset) -> None:
    """Rule: labels are positions; a folder's classes, sorted by name, may stand in other ones."""
    for names in (blobs.class_names[::-1], (*blobs.class_names, "more")):
        with pytest.raises(ValueError, match="are not those of blobs in their order"):
            judge(blobs, replace(real_set(blobs), class_names=names))
    renamed = replace(real_set(blobs), class_names=("0_a", "1_b", "2_c", "3_d"))
    assert judge(blobs, renamed, networks={"mlp-w16": 1})[0]["status"] == "ok"


def test_validation_never_opens_test(blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("test data opened")

    monkeypatch.setattr(judging, "open_test", forbidden)
    network = build_network("mlp-w16", 1, 8, blobs.classes)
    options = {
        "dataset": blobs,
        "network": network,
        "validation": Validation("mtt-v1-noaug", epochs=30, step_size=0.05),
        "seeds": Seeds((0,)),
    }
    chosen = real_set(blobs)
    good = validation_accuracy(chosen.images, chosen.labels, None, **options)
    wrong = validation_accuracy(chosen.images, (chosen.labels + 1) % 4, None, **options)
    assert good > 0.8 and wrong < 0.2
    assert good == validation_accuracy(chosen.images, chosen.labels, None, **options)
    assert validation_accuracy(chosen.images * float("inf"), chosen.labels, None, **options) == 0


def test_validation_goes_by_balanced_accuracy_where_classes_are_unequal(blobs: Dataset) -> None:
    """Rule: a set of the common class alone is no better than one of any other."""
    rows = torch.cat([blobs.class_rows[c][: 10 if c == 0 else 5] for c in range(4)])
    few = Split(blobs.train.images[rows], blobs.train.labels[rows])
    options = {
        "dataset": replace(blobs, validation=few),
        "network": build_network("mlp-w16", 1, 8, blobs.classes),
        "validation": Validation("mtt-v1-noaug", epochs=30, step_size=0.05),
        "seeds": Seeds((0,)),
    }
    images = real_set(blobs).images
    one = torch.zeros(len(images), dtype=torch.int64)  # all are said to be of the common class
    assert few.labels.bincount().tolist() == [10, 5, 5, 5]  # of which accuracy would be 0.4
    assert validation_accuracy(images, one, None, **options) == pytest.approx(1 / 4)


def test_the_sets_own_transform_is_used(blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watch(dataset: Dataset, transform: object = None) -> Split:
        seen.append(transform)
        return dataset.validation

    monkeypatch.setattr(judging, "open_test", watch)
    synthetic = real_set(blobs)
    judge(blobs, synthetic, networks={"mlp-w16": 1})
    assert seen == [synthetic.transform]
