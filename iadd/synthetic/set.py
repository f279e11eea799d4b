"""The distilled set: images, labels, step size, and all that is needed to use them elsewhere."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from iadd.artifacts import atomic_write, load_tensors, parsing, save_tensors
from iadd.data import Dataset, ImageRows, Transform
from iadd.synthetic import decoding
from iadd.synthetic.decoding import Decoding
from iadd.synthetic.picture import draw

TENSORS = "set.safetensors"  # The exact set inside an exported folder.


def probabilities(labels: Tensor, classes: int) -> Tensor:
    """Class probabilities (N, K) float32 of hard labels int64 (N,) or of logits (N, K)."""
    if labels.ndim == 2:
        return labels.softmax(1)
    return torch.nn.functional.one_hot(labels, classes).float()


StepSize = Annotated[float, Field(gt=0, lt=1e30)] | None


class _Told(BaseModel):
    """What a file tells beside the tensors, with its types."""

    class_names: tuple[str, ...] = Field(min_length=1)
    status: str
    step_size: StepSize
    transform: str
    run: dict[str, int | float | str | None]
    fingerprint: str | None = None
    decoding: dict[str, str | int] | None = None
    states: tuple[StepSize, ...] = ()


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """A small training set that stands for a large one.

    `images`: (N, C, H, W) float32, normalised by `transform`, which is kept with them.
    `labels`: (N,) int64 classes (hard), or (N, K) float32 logits (soft).
    `step_size`: the learning rate that was learned along, if one was.
    `spec`: what made the set; the identity that `load` checks.
    `run`: what making it cost (seconds, bytes); no part of the identity.
    `status`: `diverged` where the optimisation did not end well; the set is the last good one.
    `rows`, `fingerprint`: a set of real images may hold their rows (N,) int64 in the training split
    of the data with this fingerprint instead; `images` is then (0, C, H, W) until `resolve`.
    `decoding`: how the images are decoded before networks are trained on them (`decoding`).
    `states`: the set at several points of its distillation, for protocols that choose among them.
    """

    images: Tensor
    labels: Tensor
    transform: Transform
    class_names: tuple[str, ...]
    step_size: float | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    status: str = "ok"
    run: dict[str, Any] = field(default_factory=dict)
    rows: Tensor | None = None
    fingerprint: str | None = None
    decoding: Decoding | None = None
    states: tuple[SyntheticSet, ...] = ()

    def __post_init__(self) -> None:
        if self.rows is not None and (len(self.images) or self.fingerprint is None):
            raise ValueError("synthetic rows: must come with a fingerprint and without images")
        if self.rows is not None and (self.rows.ndim != 1 or self.rows.dtype != torch.int64):
            raise ValueError(f"synthetic rows: must be int64 (N,), not {self.rows.dtype}")
        count, classes = len(self), len(self.class_names)
        if self.images.ndim != 4 or self.images.dtype != torch.float32:
            raise ValueError(
                f"synthetic images: must be float32 (N, C, H, W), not {self.images.dtype} "
                f"{tuple(self.images.shape)}"
            )
        decoding.check(self.decoding, self.images.shape[-1])
        hard = self.labels.shape == (count,) and self.labels.dtype == torch.int64
        soft = self.labels.shape == (count, classes) and self.labels.dtype == torch.float32
        if not hard and not soft:
            raise ValueError(
                f"synthetic labels: must be int64 ({count},) or float32 ({count}, {classes}), not "
                f"{self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if hard and count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < classes:
            raise ValueError(f"synthetic labels: a label is outside 0..{classes - 1}")
        if self.status not in ("ok", "diverged"):
            raise ValueError(f"synthetic status: {self.status!r}, must be ok or diverged")

    def __len__(self) -> int:
        return len(self.images) if self.rows is None else len(self.rows)

    def resolve(self, dataset: Dataset) -> SyntheticSet:
        """The set with its images: itself, or with those that its rows name in `dataset`.

        Raises:
            ValueError: the rows belong to other data.
        """
        if self.rows is None:
            return self
        return replace(self, images=self.images_of(dataset)[:].cpu(), rows=None, fingerprint=None)

    def images_of(self, dataset: Dataset, where: str | Path = "synthetic set") -> ImageRows:
        """Its images, or those that its rows name in `dataset`, where they lie: they may be many.

        `where` names the set in errors.

        Raises:
            ValueError: the rows belong to other data.
        """
        if self.rows is None:
            return self.images
        if dataset.fingerprint != self.fingerprint:
            raise ValueError(
                f"{where}: its rows are of data with fingerprint {self.fingerprint}, those of "
                f"{dataset.title} have {dataset.fingerprint}"
            )
        if int(self.rows.min()) < 0 or int(self.rows.max()) >= len(dataset.train):
            last = len(dataset.train) - 1
            raise ValueError(f"{where}: its rows go beyond those of {dataset.title}, 0..{last}")
        return dataset.train.pick(self.rows)

    def decoded(self) -> SyntheticSet:
        """The set that networks are trained on: itself, or with its images decoded."""
        images, labels = decoding.decode(self.images, self.labels, self.decoding)
        states = tuple(state.decoded() for state in self.states)
        return replace(self, images=images, labels=labels, decoding=None, states=states)

    @property
    def label_kind(self) -> Literal["hard", "soft"]:
        """Whether labels are classes or logits."""
        return "hard" if self.labels.ndim == 1 else "soft"

    @property
    def classes(self) -> Tensor:
        """The class of each image (N,) int64: the label, or the largest logit."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(1)

    @property
    def image_bytes(self) -> int:
        """Bytes of the images as they are stored, also of those that rows stand for."""
        return len(self) * prod(self.images.shape[1:]) * self.images.itemsize

    @property
    def label_bytes(self) -> int:
        """Bytes of the labels."""
        return self.labels.nbytes

    def targets(self) -> Tensor:
        """Return class probabilities (N, K) float32: one-hot hard labels or softmax of logits."""
        return probabilities(self.labels, len(self.class_names))

    def pixels(self) -> Tensor:
        """Return the images as pixels (N, C, H, W) in [0, 1], what lies outside clamped.

        Raises:
            ValueError: the set holds rows of the data; `resolve` it first.
        """
        if self.rows is not None:
            raise ValueError("synthetic set: holds rows of the data, no images; resolve it first")
        return self.transform.invert(self.images).clamp(0, 1)

    def save(self, path: str | Path) -> None:
        """Write the set to one safetensors file, whole or not at all.

        Raises:
            ValueError: one line, for NaN, a full disk, a read-only folder.
        """
        for name, tensor in (("images", self.images), ("labels", self.labels)):
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"{path}: not written, {name} have NaN or infinite values")
        attributes: dict[str, Any] = {
            "class_names": list(self.class_names),
            "status": self.status,
            "step_size": self.step_size,
            "transform": self.transform.kind,
            "run": self.run,
            "fingerprint": self.fingerprint,
            "decoding": self.decoding and dict(self.decoding),
        }
        tensors = {"images": self.images, "labels": self.labels, **self.transform.tensors()}
        if self.rows is not None:
            tensors["rows"] = self.rows
        for k, state in enumerate(self.states):
            tensors |= {f"state{k}.images": state.images, f"state{k}.labels": state.labels}
        attributes["states"] = [state.step_size for state in self.states]
        save_tensors(path, tensors, self.spec, attributes)

    @classmethod
    def load(cls, path: str | Path, expect: Mapping[str, Any] | None = None) -> SyntheticSet:
        """Read a set that `save` wrote.

        Args:
            expect: keys of the spec with the values they must have; None: no check.

        Raises:
            ValueError: one line, for a truncated file, NaN, or another spec (first differing key
                and both sides).
        """
        stored = load_tensors(path, expect)
        with parsing(path, "distilled set"):
            tensors, told = stored.tensors, _Told(**stored.attributes)
            found = cls(
                images=tensors["images"],
                labels=tensors["labels"],
                transform=Transform.from_tensors(told.transform, tensors),
                class_names=told.class_names,
                step_size=told.step_size,
                spec=stored.spec,
                status=told.status,
                run=told.run,
                rows=tensors.get("rows"),
                fingerprint=told.fingerprint,
                decoding=told.decoding,
            )
            if not len(found):
                raise ValueError("it holds no images")
            states = (
                replace(
                    found,
                    images=tensors[f"state{k}.images"],
                    labels=tensors[f"state{k}.labels"],
                    step_size=step_size,
                )
                for k, step_size in enumerate(told.states)
            )
            return replace(found, states=tuple(states))

    def picture(
        self,
        path: str | Path,
        dataset: Dataset | None = None,
        columns: int = 10,
        start: Tensor | None = None,
    ) -> None:
        """Draw a PNG: a row a class with up to `columns` images, as pixels, enlarged, with names.

        A soft-labelled image stands in the row of its largest logit. dataset: that of a set's rows.
        start: the images (N, C, H, W) that these were made from, which stand to the right of them.
        """
        images = self.images_of(dataset) if dataset else self.images
        blocks = [images, *([] if start is None else [start])]
        content = io.BytesIO()
        draw(blocks, self.classes, self.class_names, self.transform, columns).save(content, "PNG")
        atomic_write(path, content.getvalue())
