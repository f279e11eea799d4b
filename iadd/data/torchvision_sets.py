"""Standard sets in torchvision's file formats, read where they lie or downloaded once."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from iadd.artifacts import locked
from iadd.data.cuts import digests_of
from iadd.data.raw import Part, Raw, Source


@dataclass(frozen=True)
class Reader:
    """Reads torchvision's class `kind`, whose files lie under `root/where`.

    CIFAR's files are pickles; torchvision opens them only after their published checksums match.
    """

    kind: str
    where: str

    def __call__(self, source: Source, part: Part, **_: object) -> Raw:
        with ExitStack() as stack:
            if source.download:  # One process looks for the files and fetches them.
                with suppress(ValueError):  # A folder that nobody can write is only read.
                    stack.enter_context(locked(source.folder / ".download.lock"))
            loaded = self._load(source, part)
        images = np.asarray(loaded.data)
        if images.ndim == 3:
            images = images[:, None]  # (N, 1, H, W)
        elif images.shape[-1] == 3:
            images = images.transpose(0, 3, 1, 2)  # (N, 3, H, W)
        images = np.ascontiguousarray(images)
        svhn = self.kind == "SVHN"
        labels = np.asarray(loaded.labels if svhn else loaded.targets, dtype=np.int64)
        names = tuple(str(digit) for digit in range(10)) if svhn else tuple(loaded.classes)
        return Raw(images, labels, digests_of(images), names)

    def _load(self, source: Source, part: Part) -> Any:
        from torchvision import datasets  # Seconds: not before it is needed.

        root, kind = source.folder, self.kind
        choice = {"split": part} if kind == "SVHN" else {"train": part == "train"}
        try:
            return getattr(datasets, kind)(str(root), download=source.download, **choice)
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            place = f"{source.title}: files under {root / self.where}"
            if source.download:
                reason = str(error).partition("\n")[0].rstrip(": ") or type(error).__name__
                raise ValueError(
                    f"{place} cannot be read or downloaded ({reason}); check the network, and "
                    "remove files there that are only partly written"
                ) from error
            raise ValueError(
                f"{place} cannot be read (missing or damaged); put torchvision's {kind} files "
                "there, or set download: true to fetch them"
            ) from error


READERS = {
    "mnist": Reader("MNIST", "MNIST/raw"),
    "fashionmnist": Reader("FashionMNIST", "FashionMNIST/raw"),
    "svhn": Reader("SVHN", ""),
    "cifar10": Reader("CIFAR10", "cifar-10-batches-py"),
    "cifar100": Reader("CIFAR100", "cifar-100-python"),
}
