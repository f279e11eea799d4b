from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from iadd.engine.distance import Distance, WeightsRule, distance, weights_step
from iadd.methods._base import MethodParams, Problem
from iadd.methods._trajectory import Trajectory, TrajectoryParams

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
    lr_w: float = Field(1e-3, ge=0, description="Learning rate of the weights.")
    w_max: float = Field(10.0, gt=1, description="Weights are clamped to [0, w_max].")

    changing: ClassVar[frozenset[str]] = TrajectoryParams.changing | {
        *("update", "denominator", "lr_w", "w_max")
    }

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

    Params: ClassVar[type[MethodParams]] = IADDParams
    reconstruction = True
    space = Trajectory.space | {
        "lr_w": ("log", 1e-4, 1e-1),
        "granularity": ["scalar", "filter", "tensor"],
        "reading": ["R1", "R2", "R3"],
    }

    def __init__(self, params: Any, problem: Problem) -> None:
        super().__init__(params, problem)
        self.offsets = (
            None
            if params.granularity == "scalar"
            else problem.network.offsets(params.granularity).to(problem.device)
        )
        count = problem.network.num_parameters if self.offsets is None else len(self.offsets) - 1
        self.v = torch.full((count,), 0.0 if params.normalisation == "softmax" else 1.0)
        self.v = self.v.to(problem.device)
        self.mean, self.square = torch.zeros_like(self.v), torch.zeros_like(self.v)
        self.w = torch.ones_like(self.v)
        self.time = 0
        # The fused step has the normalisation's derivative inside: it takes the gradient by w.
        self.fused = params.optimiser == "adam" and params.normalisation == "mean1"

    @property
    def frozen(self) -> bool:
        """Whether the weights stay as they are."""
        return bool(self.params.update == "off" or self.params.lr_w == 0)

    def weights(self) -> Tensor:
        """The importance weights (P,) or (S,) as the loss sees them; differentiable."""
        if self.fused:
            return self.w
        if self.params.normalisation == "none":
            return self.v
        raw = self.v.exp() if self.params.normalisation == "softmax" else self.v
        return (raw / raw.mean()).clamp(0.0, self.params.w_max)

    def variables(self) -> tuple[Tensor, ...]:
        if self.frozen:
            return ()
        return (self.w if self.fused else self.v,)

    def loss(self, student: Tensor, start: Tensor, target: Tensor) -> Tensor | Distance:
        if self.frozen:
            return distance(student, start, target)
        for variable in self.variables():
            variable.requires_grad_()
        weights, weighted = self.weights(), self.params.denominator == "weighted"
        if self.offsets is None:
            return distance(student, start, target, weights, weighted_denominator=weighted)
        return relative_distance(student, start, target, weights, self.offsets, weighted)

    def accept(self) -> None:
        if self.frozen:
            return
        self.v, self.w = self.v.detach(), self.w.detach()
        (gradient,) = self.gradients
        self.time += 1
        ascent = self.params.update == "ascent"
        if self.fused:
            rule = WeightsRule(lr=self.params.lr_w, high=self.params.w_max, maximise=ascent)
            weights_step(self.v, self.w, gradient, self.mean, self.square, self.time, rule)
            return
        sign = 1.0 if ascent else -1.0
        if self.params.optimiser == "sgd":
            self.v = self.v + sign * self.params.lr_w * gradient
            return
        self.mean.lerp_(gradient, 0.1)
        self.square.lerp_(gradient.square(), 0.001)
        step = (self.mean / (1 - 0.9**self.time)) / (
            (self.square / (1 - 0.999**self.time)).sqrt() + 1e-8
        )
        self.v = self.v + sign * self.params.lr_w * step

    def state(self) -> dict[str, Tensor]:
        return {
            "v": self.v.detach(),
            "w": self.w.detach(),
            "mean": self.mean,
            "square": self.square,
            "time": torch.tensor(self.time),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        self.v, self.w = state["v"], state["w"]
        self.mean, self.square = state["mean"], state["square"]
        self.time = int(state["time"])

    def statistics(self) -> dict[str, float]:
        with torch.no_grad():
            w = self.weights().double()
        return {
            "weight_mean": float(w.mean()),
            "weight_std": float(w.std(correction=0)),
            "weight_min": float(w.min()),
            "weight_max": float(w.max()),
            "weight_effective": float(w.sum() ** 2 / w.square().sum() / len(w)),
        }


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
