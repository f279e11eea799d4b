"""Scores of each class: by hand, and as scikit-learn has them."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from iadd.evaluation.scores import choice_of, class_auroc, measure_for, score_of
from iadd.seeds import generator_for


def test_auroc_by_hand() -> None:
    """Rule: the share of pairs in the right order, a tie counting one half."""
    labels = torch.tensor([1, 1, 0, 0, 0])
    # Class 1 leads by 3, 0 against -1, 0, 1: 3 + 1.5 of 6 pairs are right.
    lead = torch.tensor([3.0, 0.0, -1.0, 0.0, 1.0])
    logits = torch.stack([torch.zeros(5), lead], 1)
    assert class_auroc(logits, labels).tolist() == pytest.approx([0.75, 0.75])
    assert class_auroc(-logits, labels).tolist() == pytest.approx([0.25, 0.25])
    flat = class_auroc(torch.zeros(5, 2), labels)
    assert flat.tolist() == [0.5, 0.5]  # all tied
    # Sure networks: in float32 both probabilities of class 1 would be 1.0 and tie.
    sure = torch.tensor([[0.0, 22.0], [0.0, 21.0]])
    assert class_auroc(sure, torch.tensor([1, 0])).tolist() == [1.0, 1.0]


def test_what_is_chosen_by_on_validation_data() -> None:
    """Rule: the measure that ranks; of 6 and 3 images a class the balanced accuracy, of 4 and 3
    the accuracy. Classes without images have no part in it."""
    for counts, wanted in (([6, 3, 0], (5 / 6 + 1 / 3) / 2), ([4, 3, 0], 4 / 7)):
        labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
        said = labels.clone()
        said[[0, -1, -2]] = torch.tensor([1, 2, 0])  # 1 and 2 wrong ones
        logits = torch.nn.functional.one_hot(said, 3).float()
        assert choice_of(logits, labels) == pytest.approx(wanted)
        score, measure = score_of(logits, labels), measure_for(counts[:2])
        assert choice_of(logits, labels) == pytest.approx(getattr(score, measure))
        assert choice_of(logits * torch.inf, labels) == pytest.approx(1 / 3)


def test_auroc_of_several_classes_is_scikit_learn_s() -> None:
    generator = generator_for("auroc")
    labels = torch.randint(4, (200,), generator=generator)
    logits = torch.randn(200, 4, generator=generator).mul(4).round() / 4  # with ties
    probabilities = logits.double().softmax(1).numpy()
    expected = [roc_auc_score(labels.numpy() == c, probabilities[:, c]) for c in range(4)]
    assert class_auroc(logits, labels).tolist() == pytest.approx(expected, abs=1e-3)
