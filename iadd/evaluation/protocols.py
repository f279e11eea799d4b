"""Protocols as data: how a network that judges a distilled set is trained. SPEC.md, section 3.

A protocol that has published results is never edited; another one gets another name.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iadd.augment import Augmentation
from iadd.data import Dataset
from iadd.synthetic import probabilities
from iadd.train import TrainingPlan


@dataclass(frozen=True)
class Protocol:
    """Training by SGD with momentum 0.9 and weight decay 5e-4, its rate x0.1 at half the epochs."""

    augmented: bool = True
    """Images go through the data set's augmentation."""
    learned_step_size: bool = True
    """Use the set's own step size where it has one; else the configured one."""
    epochs: int = 1000
    """Where a benchmark does not say otherwise."""
    batch: int = 256
    """Likewise."""
    hard: bool = False
    """Labels are classes; of soft ones the largest."""
    rates: tuple[float, ...] = ()
    """Step sizes for a set that brings none: the best on validation data is taken."""
    teacher: bool = False
    """Every augmented image is labelled by an expert that was trained on the real data."""
    optimistic: bool = False
    """The best of several states of the set by *test* accuracy, each of which is tested."""

    def plan(
        self, step_size: float | None, epochs: int, batch: int, default: float
    ) -> TrainingPlan:
        """The training of a network on a set that brings this step size, or None."""
        rate = step_size if self.learned_step_size and step_size else default
        drops = (epochs // 2,) if epochs > 1 else ()
        return TrainingPlan(epochs, batch, rate, 0.9, 5e-4, drops)

    def families(self, dataset: Dataset) -> Augmentation:
        """What training images go through."""
        return dataset.augmentation if self.augmented else Augmentation(())

    def targets(self, labels: Tensor, classes: int) -> Tensor:
        """Label probabilities (N, K) of classes int64 (N,) or logits (N, K)."""
        hard = self.hard and labels.ndim == 2
        return probabilities(labels.argmax(1) if hard else labels, classes)

    def regime(self, label_kind: str) -> str:
        """The label regime of its rows: hard, soft, or soft+teacher."""
        return "soft+teacher" if self.teacher else "hard" if self.hard else label_kind


PROTOCOLS = {
    # Cazenavette et al. 2022, but the checkpoint was chosen on validation data.
    "mtt-v1": Protocol(),
    # The same without augmentation: the other half of the augmentation-robust score.
    "mtt-v1-noaug": Protocol(augmented=False),
    # What the literature reports: the checkpoint was chosen on test data.
    "mtt-best-on-test-v1": Protocol(optimistic=True),
    # Zhao et al. 2021: no augmentation, one fixed step size for every method.
    "dc-v1": Protocol(augmented=False, learned_step_size=False, epochs=300),
    # Guo et al. 2024 (DATM, arXiv 2310.05773), code: smaller batches; soft labels as they are.
    "datm-v1": Protocol(batch=128),
    # DD-Ranking (arXiv 2505.13300), hard labels; but step sizes are chosen on validation data.
    "ddranking-v1": Protocol(hard=True, rates=(0.001, 0.005, 0.01, 0.05, 0.1)),
    # Soft labels of a teacher at training time, for each augmented image (Shen & Xing 2022, arXiv
    # 2112.01528; DD-Ranking's soft-label mode M), in MTT's training.
    "teacher-v1": Protocol(teacher=True),
}


def find_protocol(name: str) -> Protocol:
    """The named protocol; ValueError with the known ones otherwise."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
