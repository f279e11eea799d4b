"""What a method is: its parameters, the problem that it sees, and what it must give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from iadd.augment import Augmentation
from iadd.data import Dataset, ImageRows
from iadd.engine.autograd import AutogradBackend
from iadd.engine.backend import Backend, backend_under, choose_backend
from iadd.experts import Experts
from iadd.methods._variables import SGD, Variable
from iadd.networks import Network
from iadd.synthetic.decoding import Decoding
from iadd.train import fixed_statistics, predict

RANGES = ("log", "uniform", "int")
Space = dict[str, tuple[str, Any, Any] | list[Any]]
"""Search ranges as plain data: ("log" | "uniform" | "int", low, high), or a list of choices."""

Rate = Annotated[float, Field(le=1e30)]
"""A learning rate; float32 could not hold what larger ones are multiplied with."""


class MethodParams(BaseModel):
    """Base of every method's parameters: immutable, unknown keys and NaN refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def reach(self) -> int:
        """The last epoch of an expert that these settings may ask for."""
        return 0


class IterativeParams(MethodParams):
    """What every iterative method takes."""

    iterations: int = Field(5000, ge=1, description="Outer iterations: updates of the images.")
    lr_img: Rate = Field(100.0, gt=0, description="Learning rate of the pixels (SGD).")
    momentum: float = Field(0.5, ge=0, lt=1, description="Momentum of the pixels' updates.")
    clip: float | None = Field(
        None, gt=0, description="Largest L2 norm of the image gradient an iteration; none: free."
    )
    init: Literal["real", "noise"] = Field("real", description="What the images start from.")
    ema: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Decay of an exponential moving average of the images, which then is what is "
        "validated and kept; none: the images themselves.",
    )
    validations: int = Field(
        5, ge=0, description="Validation measurements, evenly spaced; the best set is kept."
    )

    @property
    def updates(self) -> int:
        """Updates of the images in the whole run."""
        return self.iterations

    @property
    def rungs(self) -> list[int]:
        """The updates after which validation accuracy is measured, ascending, evenly spaced."""
        every = max(1, self.updates // max(1, self.validations))
        found = (self.updates - every * k for k in range(self.validations))
        return sorted(update for update in found if update > 0)


@dataclass(frozen=True)
class Problem:
    """What a method works on: the data's train and validation splits, network, ipc, experts."""

    dataset: Dataset
    network: Network
    ipc: int
    experts: Experts | None = None

    @property
    def device(self) -> torch.device:
        """Where the data lie, and so where the work is done."""
        return self.dataset.train.images.device

    @property
    def augmentation(self) -> Augmentation:
        """The data set's."""
        return self.dataset.augmentation

    @cached_property
    def backend(self) -> Backend:
        """What computes the network's passes here."""
        return choose_backend(self.network, self.device)

    def labels(self) -> Tensor:
        """The synthetic set's hard labels int64 (N,), class after class, on the CPU."""
        return torch.arange(self.dataset.classes).repeat_interleave(self.ipc)

    def one_hot(self) -> Tensor:
        """These labels as probabilities (N, K) float32 on the device."""
        probabilities = torch.nn.functional.one_hot(self.labels(), self.dataset.classes)
        return probabilities.float().to(self.device)

    def batch(self, label: int, size: int, generator: torch.Generator) -> Tensor:
        """At most `size` random training images (n, C, H, W) of one class, none twice."""
        rows = self.dataset.class_rows[label]
        return self.dataset.train.images[_some(rows, size, generator)]

    def for_classes(self, params: Tensor, generator: torch.Generator) -> Backend:
        """What computes the passes of parameters (P,) over batches of a single class.

        Batch norms, where there are some, have statistics over 16 real images of each class (at
        most), as in DC's code: the moments of one class would take away what tells it from others.
        """
        if not self.network.has_batch_norm:
            return self.backend
        classes = range(self.dataset.classes)
        seen = torch.cat([self.batch(label, 16, generator) for label in classes])
        backend = AutogradBackend(self.network, self.device, params.dtype)
        statistics = backend.batch_statistics(params, seen)
        return backend_under(statistics, self.network, params)

    def random_rows(self, generator: torch.Generator) -> Tensor:
        """`ipc` random training rows of each class without replacement, (N,)."""
        return torch.cat([_some(rows, self.ipc, generator) for rows in self.dataset.class_rows])

    def expert_logits(self, expert: int, epoch: int, images: ImageRows) -> Tensor:
        """What an expert said of images (N, C, H, W) after an epoch: logits (N, K)."""
        assert self.experts is not None
        params = self.experts.snapshot(expert, epoch)
        statistics = fixed_statistics(self.network, params, self.dataset.train.images)
        return predict(self.network, params, images, statistics)

    def check(self) -> None:
        """Raise ValueError where a class has fewer training images than ipc."""
        counts = torch.bincount(self.dataset.train.labels, minlength=self.dataset.classes)
        smallest = int(counts.argmin())
        if self.ipc > counts[smallest]:
            raise ValueError(
                f"ipc {self.ipc} is larger than class {self.dataset.class_names[smallest]!r} of "
                f"{self.dataset.title}, which has {int(counts[smallest])} training images"
            )


def _some(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:count]]


@dataclass(frozen=True)
class Workload:
    """What a forecast is made from: the data's and the set's size, and a measured rate."""

    images: int
    """Training images."""
    classes: int
    ipc: int
    seconds_per_image: float
    """Of one first-order pass (forward and gradient) of the network, an image."""

    @property
    def synthetic(self) -> int:
        """Images in the distilled set."""
        return self.classes * self.ipc


class Method(ABC):
    """A distillation method; `name` is its file's name, its docstring the citation."""

    Params: ClassVar[type[MethodParams]] = MethodParams
    space: ClassVar[Space] = {}
    experts: ClassVar[str | None] = None
    """Which of `iadd.experts.RECIPES` its expert trajectories come from; None: it needs none."""
    reconstruction: ClassVar[bool] = False
    """True where the published description leaves gaps that ours fills by choice."""
    label_kind: ClassVar[Literal["hard", "soft"]] = "hard"
    """Whether its sets carry classes or learned logits."""
    by_reference: ClassVar[bool] = False
    """True where the distilled set is stored as rows of the data, not as a copy of the images."""
    trace_columns: ClassVar[dict[str, str]] = {}
    """Columns of the trace that only this method has, each with a sentence that explains it."""
    params: Any

    def __init__(self, params: MethodParams, problem: Problem) -> None:
        self.params, self.problem = params, problem
        if self.experts is None:
            return
        if problem.experts is None:
            raise ValueError(f"method {self.name} needs expert trajectories; none were given")
        if params.reach > problem.experts.epochs:
            raise ValueError(
                f"method {self.name}: its settings reach epoch {params.reach}, experts were kept "
                f"to {problem.experts.epochs}"
            )

    @property
    def decoding(self) -> Decoding | None:
        """How its images are decoded before networks are trained on them; None: not at all."""
        return None

    @property
    def trajectories(self) -> Experts:
        """The experts, of a method that asks for some."""
        assert self.problem.experts is not None
        return self.problem.experts

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @classmethod
    def forecast(cls, params: Any, work: Workload) -> float:
        """Estimated seconds of one distillation without its validations."""
        return 0.0


class Selection(Method):
    """A method that chooses real images, and may label them anew."""

    @abstractmethod
    def rows(self, generator: torch.Generator) -> Tensor:
        """Rows (N,) int64 of the training split, on the CPU, class after class."""

    def labels(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The labels of these rows: their classes int64 (N,), or logits float32 (N, K)."""
        return self.problem.dataset.train.labels[rows]


@dataclass(frozen=True)
class Gradients:
    """One outer iteration: the loss at the present variables and its gradients."""

    loss: float
    by: Mapping[str, Tensor]
    """The gradient by each variable that has an optimiser, shaped like it."""
    path: str
    """Which implementation ran, for the trace."""
    loss_unweighted: float | None = None
    """The loss without the method's own weights; None: there are none."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Values of the method's `trace_columns`."""
    weights: Sequence[Mapping[str, Any]] = ()
    """What `_importance.describe` tells of its weights, where it has some and they are due."""


@dataclass(frozen=True)
class Skip:
    """This update is left out, for a reason in words; the loss where it was seen."""

    reason: str
    loss: float | None = None


class Iterative(Method):
    """A method that improves images step by step; the loop (`distill`) moves its variables."""

    Params: ClassVar[type[MethodParams]] = IterativeParams
    least_loss: float = 1e-3
    """Past losses count as at least this much where the loop looks for an explosion, so that a
    loss near zero may fluctuate."""

    def initial(self, generator: torch.Generator) -> Tensor:
        """The images (N, C, H, W) that the run starts from, in the order of `Problem.labels`."""
        real = self.problem.dataset.train.images[self.problem.random_rows(generator)]
        if self.params.init == "noise":
            return torch.randn(real.shape, generator=generator).to(real.device)
        return real.clone()

    def variables(self, images: Tensor) -> dict[str, Variable]:
        """All that a run changes, by name; `images` is among them.

        Names with a meaning for the loop: `images` (N, C, H, W); `labels`, logits (N, K), where
        the method learns them; `step_size`, a positive number () float64 on the CPU, where it
        learns the student's.
        """
        p = self.params
        return {"images": Variable(images, SGD(p.lr_img, p.momentum, p.clip))}

    @abstractmethod
    def gradients(
        self, iteration: int, variables: Mapping[str, Tensor], generator: torch.Generator
    ) -> Gradients | Skip:
        """Loss and gradients at the present variables, a function of the arguments alone.

        Variables without an optimiser may be written here, in place.
        """
