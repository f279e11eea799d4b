from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from iadd.engine.distance import Distance, distance
from iadd.methods._base import Gradients, Problem, Rate, Workload
from iadd.methods._loop import distill
from iadd.methods._trajectory import Trajectory, TrajectoryParams
from iadd.methods._variables import SGD, Adam, MeanOneAdam, Optimiser, Variable
from iadd.seeds import Seeds, generator_for

READINGS: dict[str, dict[str, Any]] = {
    "R1": {"update": "descent", "normalisation": "none", "optimiser": "sgd", "lr_w": 1.0},
    "R2": {"update": "descent", "normalisation": "mean1", "optimiser": "adam", "lr_w": 1e-3},
    "R3": {"update": "ascent", "normalisation": "softmax", "optimiser": "adam", "lr_w": 1e-3},
}


class IADDParams(TrajectoryParams):
    """MTT's settings and how the importance weights live. A reading fills what is not given."""

    reading: Literal["R1", "R2", "R3"] = Field(
        "R2",
        description="R2: mean-one weights, joint descent. R1: the literal reading, free weights by "
        "plain descent, which may collapse. R3: self-attention, ascent on mean-one exp weights.",
    )
    granularity: Literal["scalar", "filter", "tensor"] = Field(
        "scalar", description="What one weight covers."
    )
    update: Literal["descent", "ascent", "off"] = Field(
        "descent", description="How the weights move; off keeps them at 1."
    )
    normalisation: Literal["none", "mean1", "softmax"] = Field(
        "mean1", description="w = v, w = v / mean(v), or w = exp(v) / mean(exp(v))."
    )
    denominator: Literal["plain", "weighted"] = Field(
        "plain", description="Whether the weights enter the denominator too."
    )
    optimiser: Literal["adam", "sgd"] = Field("adam", description="Optimiser of the weights.")
    lr_w: Rate = Field(1e-3, ge=0, description="Learning rate of the weights.")
    lr_w_factor: Rate = Field(
        1.0, gt=0, description="Multiplies lr_w; searches vary it, as good lr_w differ by reading."
    )
    w_max: float = Field(10.0, gt=1, description="Weights are clamped to [0, w_max].")
    weights: Literal["learned", "shuffled", "final"] = Field(
        "learned",
        description="The weights by which images are matched. For ablations, shuffled: learned as "
        "usual, but each parameter gets another's weight, by one fixed permutation. final: those "
        "that a first run of its own ended with, fixed from the start.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_reading(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return READINGS.get(given.get("reading", "R2"), {}) | given
        return given


class IADD(Trajectory):
    """Importance-Aware Adaptive Dataset Distillation: MTT with a learned weight on each parameter.

    Li, Togo, Ogawa, Haseyama; Neural Networks 172, 2024; arXiv 2401.15863. A reconstruction: the
    paper leaves granularity, initial value, normalisation and step size of W open. Here
    `L = sum_p w_p^2 (s_p - t_p)^2 / sum_p (o_p - t_p)^2` with weights from v, all 1 at the start.
    With weights a filter or tensor, residuals are relative (a segment's mismatch over its own
    movement), or the largest tensors would dominate.
    """

    Params = IADDParams
    reconstruction = True
    trace_columns: ClassVar = {
        "weight_mean": "Mean of the importance weights.",
        "weight_std": "Their standard deviation.",
        "weight_min": "The smallest.",
        "weight_max": "The largest.",
        "weight_effective": "Effective share of weights, (sum w)^2 / sum w^2 / n.",
    }
    space = Trajectory.space | {
        "lr_w_factor": ("log", 0.1, 100.0),  # of R1's lr_w: 0.1 to 100; of R2's: 1e-4 to 0.1
        "granularity": ["scalar", "filter", "tensor"],
        "reading": ["R1", "R2", "R3"],
    }

    def __init__(self, params: Any, problem: Problem) -> None:
        super().__init__(params, problem)
        self.lr_w = params.lr_w * params.lr_w_factor
        self.frozen = params.update == "off" or self.lr_w == 0
        # The fused step has the normalisation's derivative inside: it takes the gradient by w.
        self.fused = params.optimiser == "adam" and params.normalisation == "mean1"
        self.offsets: Tensor | None = None
        if params.granularity != "scalar":
            self.offsets = problem.network.offsets(params.granularity).to(problem.device)
        size = problem.network.num_parameters
        self.count = size if self.offsets is None else len(self.offsets) - 1
        order = torch.randperm(self.count, generator=generator_for("shuffled weights"))
        self.order = order.to(problem.device)

    def own_variables(self) -> dict[str, Variable]:
        if self.frozen:
            return {}
        if self.params.weights == "final":  # 0: the first run was not made yet
            return {"weights": Variable(torch.zeros(self.count, device=self.problem.device), None)}
        ascent = self.params.update == "ascent"
        start = 0.0 if self.params.normalisation == "softmax" else 1.0
        optimiser: Optimiser = SGD(self.lr_w, maximise=ascent)
        if self.params.optimiser == "adam":
            optimiser = Adam(self.lr_w, ascent)
        if self.fused:
            optimiser = MeanOneAdam(self.lr_w, self.params.w_max, ascent)
        value = torch.full((self.count,), start, device=self.problem.device)
        return {"weights": Variable(value, optimiser)}

    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients:
        if self.params.weights == "final" and not (self.frozen or variables["weights"].any()):
            first = IADD(self.params.model_copy(update={"weights": "learned"}), self.problem)
            ended = distill(first, Seeds((generator.initial_seed(), "first run")))
            variables["weights"].copy_(first.weights(ended.variables))
        return super().gradients(iteration, variables, generator)

    def weights(self, own: Mapping[str, Tensor]) -> Tensor:
        """The importance weights (P,) or (S,) as the loss sees them; differentiable."""
        v = own["weights"]
        made = self.params.weights == "final"
        if made or self.fused or self.params.normalisation == "none":
            return v
        raw = v.exp() if self.params.normalisation == "softmax" else v
        return (raw / raw.mean()).clamp(0.0, self.params.w_max)

    def loss(
        self, student: Tensor, start: Tensor, target: Tensor, own: Mapping[str, Tensor]
    ) -> Tensor | Distance:
        if self.frozen:
            return super().loss(student, start, target, own)
        weights = self.weights(own)
        if self.params.weights != "shuffled":
            return self.compared(student, start, target, weights)
        # The images feel another parameter's weight; a weight learns from its own parameter.
        felt = self.compared(student, start, target, weights.detach()[self.order])
        own_loss = self.compared(student.detach(), start, target, weights)
        felt, own_loss = (x.weighted if isinstance(x, Distance) else x for x in (felt, own_loss))
        return felt + own_loss - own_loss.detach()

    def compared(
        self, student: Tensor, start: Tensor, target: Tensor, weights: Tensor
    ) -> Tensor | Distance:
        """The distance with given weights (P,) or (S,)."""
        weighted = self.params.denominator == "weighted"
        if self.offsets is None:
            return distance(student, start, target, weights, weighted_denominator=weighted)
        return relative_distance(student, start, target, weights, self.offsets, weighted)

    def columns(self, variables: Mapping[str, Tensor]) -> dict[str, float]:
        if self.frozen:
            return {}
        w = self.weights(variables).detach().double()
        return {
            "weight_mean": float(w.mean()),
            "weight_std": float(w.std(correction=0)),
            "weight_min": float(w.min()),
            "weight_max": float(w.max()),
            "weight_effective": float(w.sum() ** 2 / w.square().sum() / len(w)),
        }

    def importance(self, variables: Mapping[str, Tensor]) -> Tensor | None:
        if self.frozen:
            return None
        weights = self.weights(variables)
        if self.params.weights == "shuffled":  # what the images feel
            weights = weights[self.order]
        return weights if self.offsets is None else weights.repeat_interleave(self.offsets.diff())

    @classmethod
    def forecast(cls, params: Any, work: Workload) -> float:
        return super().forecast(params, work) * (2 if params.weights == "final" else 1)


def relative_distance(
    student: Tensor, start: Tensor, target: Tensor, weights: Tensor, offsets: Tensor, weighted: bool
) -> Tensor:
    """`sum_g w_g^2 r_g / G` (or `/ sum_g w_g^2`), r_g the segment's mismatch over its movement."""
    lengths = offsets.diff()
    segment = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    zeros = student.new_zeros(len(lengths))
    mismatch = zeros.index_add(0, segment, (student - target).square())
    movement = zeros.index_add(0, segment, (start - target).square())
    squares = weights.square()
    total = squares.sum() if weighted else float(len(lengths))
    return (squares * mismatch / (movement + 1e-12)).sum() / total
