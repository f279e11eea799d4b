"""How good a network's answers are: accuracies, and each class against all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

IMBALANCED = 1.5
"""Images whose most frequent class is more than so many times as frequent as its rarest: from here
on accuracy and balanced accuracy say different things."""


def measure_for(counts: Sequence[int]) -> Literal["accuracy", "balanced_accuracy"]:
    """What ranks the methods on a test set with so many images of each class, and what settings and
    states of a set are chosen by on validation data."""
    return "balanced_accuracy" if max(counts) > IMBALANCED * min(counts) else "accuracy"


@dataclass(frozen=True)
class Score:
    """What a network reached on a split; fractions, lists with an entry a class.

    `recall`, `specificity`, `auroc`: of each class against all others; None for a class without
    images (and for the specificity of one that all images have). `confusion`: K*K counts, row =
    true class, column = predicted; None for a network whose outputs are not finite. Such a network
    counts as one that guesses uniformly: it gets 1/K of each class right, whatever their shares.
    """

    accuracy: float
    balanced_accuracy: float
    recall: list[float | None]
    specificity: list[float | None]
    auroc: list[float | None]
    confusion: list[int] | None


def score_of(logits: Tensor, labels: Tensor) -> Score:
    """The score of logits (N, K) for images of classes int64 (N,).

    Classes without images have no part in the balanced accuracy.
    """
    classes = logits.shape[1]
    if not bool(torch.isfinite(logits).all()):
        guess = 1 / classes
        recall, specificity, auroc = (
            _known(torch.full((classes,), value, dtype=torch.float64))
            for value in (guess, 1 - guess, 0.5)
        )
        return Score(guess, guess, recall, specificity, auroc, None)
    cells = labels.to(logits.device) * classes + logits.argmax(1)
    counts = torch.bincount(cells, minlength=classes**2).view(classes, classes).double().cpu()
    right, total, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    recalls, others = right / total, len(labels) - total
    return Score(
        float(right.sum() / total.sum()),
        float(recalls[total > 0].mean()),
        _known(recalls),
        _known(1 - (said - right) / others),
        _known(class_auroc(logits, labels)),
        counts.long().flatten().tolist(),
    )


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    """The accuracy alone, as `score_of` has it."""
    if not bool(torch.isfinite(logits).all()):
        return 1 / logits.shape[1]
    return float((logits.argmax(1) == labels.to(logits.device)).double().mean())


def choice_of(logits: Tensor, labels: Tensor) -> float:
    """What is chosen by on validation data: the accuracy, or where the classes are unequal
    (`measure_for`) the balanced accuracy; classes without images have no part in it."""
    counts = labels.bincount(minlength=logits.shape[1])
    equal = not len(labels) or measure_for(counts[counts > 0].tolist()) == "accuracy"
    if equal or not bool(torch.isfinite(logits).all()):
        return accuracy_of(logits, labels)
    right = labels[logits.argmax(1).to(labels.device) == labels].bincount(minlength=len(counts))
    return float((right.double() / counts)[counts > 0].mean())


def class_auroc(logits: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve of each class against all others, (K,) float64 on the CPU.

    The share of pairs, one image of the class and one of another, that the probability of the class
    puts in the right order, ties counting one half (Mann and Whitney's statistic; Hanley and
    McNeil, Radiology 143(1), 1982). logits: (N, K); labels: (N,) int64. NaN without such a pair.
    """
    scores = logits.double().log_softmax(1).cpu()  # ordered as probabilities, fewer ties near 1
    found = []
    for label, column in enumerate(scores.T):
        own = labels.cpu() == label
        _, place, counts = column.unique(return_inverse=True, return_counts=True)
        ranks = (counts.cumsum(0) - (counts - 1) / 2)[place].double()  # tied scores share a rank
        n, others = int(own.sum()), int((~own).sum())
        above = ranks[own].sum() - n * (n + 1) / 2
        found.append(above / (n * others))
    return torch.stack(found)


def _known(values: Tensor) -> list[float | None]:
    """As numbers, NaN as None."""
    return [None if value != value else value for value in values.tolist()]
