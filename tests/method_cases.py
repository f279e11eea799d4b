"""Small problems and quick settings for tests of methods: none of them names a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd import methods
from iadd.augment import Augmentation
from iadd.data import Dataset, load_dataset
from iadd.experts import Experts, Recipe, expert_spec, record_shard
from iadd.networks import build_network
from iadd.seeds import Seeds

SEEDS = Seeds((0, "blobs", 2, 0))
TRAJECTORY: dict[str, Any] = {
    **{"iterations": 6, "validations": 2, "unrolled_steps": 3, "expert_epochs": 1},
    **{"max_start": 2, "lr_img": 5.0, "clip": 1.0, "step_size": 0.05, "lr_lr": 1e-5},
}


def small_problem(folder: Path, dataset: Dataset | None = None, ipc: int = 2) -> methods.Problem:
    """Blobs, a narrow ConvNet, two experts kept to epoch 6."""
    data = dataset or load_dataset("blobs")
    network = build_network("convnet-d2-w8", 1, 8, data.classes)
    path, recipe = folder / "shard0.safetensors", Recipe(step_size=0.05, batch=32)
    record_shard(data, network, recipe, epochs=6, experts=range(2), seed=0, path=path)
    experts = Experts([path], expert_spec(data, network, recipe, 6, 0))
    return methods.Problem(data, network, ipc, experts)


def tiny(name: str) -> dict[str, Any]:
    """Settings of any method that let it end in a moment: every count at most 3."""
    fields = methods.find(name).Params.model_fields
    numbers = {key: field.default for key, field in fields.items() if type(field.default) is int}
    return {key: min(value, 3) for key, value in numbers.items()}


def make(name: str, problem: methods.Problem, **changes: Any) -> Any:
    """A method with quick settings over a problem."""
    kind = methods.find(name)
    quick = TRAJECTORY if "unrolled_steps" in kind.Params.model_fields else tiny(name)
    return kind(kind.Params(**(quick | changes)), problem)


class Exact(NamedTuple):
    """A student in float64 by plain autograd: its states theta_0..theta_J (P,), what it learns from
    (leaves), and its teacher's snapshots."""

    states: list[Tensor]
    images: Tensor
    rate: Tensor
    start: Tensor
    target: Tensor


def without_augmentation(task: methods.Problem) -> methods.Problem:
    """The same problem, with images seen as they are."""
    return replace(task, dataset=replace(task.dataset, augmentation=Augmentation(())))


def first_look(method: Any) -> tuple[dict[str, Tensor], torch.Generator]:
    """A method's variables before any update, and the first iteration's generator."""
    variables = method.variables(method.initial(SEEDS.generator("initial")))
    return {name: v.value for name, v in variables.items()}, SEEDS.generator("iteration", 0)


def exact_student(
    method: Any, variables: Mapping[str, Tensor], generator: torch.Generator, constant: bool = False
) -> Exact:
    """theta_{j+1} = theta_j - alpha dCE/dtheta at (theta_j, images), on full batches.

    `constant`: every gradient is taken at theta_j as a constant (TESLA).
    """
    start, target = (z.double() for z in method.draw_expert(generator))
    images = variables["images"].double().requires_grad_()
    rate, labels = variables["step_size"].double().requires_grad_(), method.problem.labels()
    states = [start.clone().requires_grad_()]
    for _ in range(method.params.unrolled_steps):
        now = states[-1].detach().requires_grad_() if constant else states[-1]
        loss = F.cross_entropy(method.problem.network.apply(now, images), labels)
        (gradient,) = torch.autograd.grad(loss, now, create_graph=True)
        states.append(states[-1] - rate * gradient)
    return Exact(states, images, rate, start, target)


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Float32 against float64, by the largest value."""
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())
