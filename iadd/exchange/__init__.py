"""Distilled sets and experts of others, in and out: a module a form.

`read_set` and `write_set` know the forms of sets (`pictures`, `torch_files`, `arrays`), `statement`
what has to be said of their numbers, `buffers` the field's expert trajectories. Nothing is guessed,
and nothing that is read is ever executed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from iadd.artifacts.tensors import AGAIN
from iadd.data import Dataset
from iadd.exchange import arrays, pictures, torch_files
from iadd.exchange.statement import Statement, fitted, settled, state
from iadd.synthetic import TENSORS, SyntheticSet

__all__ = ["ENDINGS", "FORMS", "Statement", "read_set", "state", "write_set"]

FORMS: dict[str, Callable[[SyntheticSet, Path], None]] = {
    "folder": pictures.write,
    "mtt": torch_files.write_mtt,
    "tesla": torch_files.write_tesla,
    "dc": torch_files.write_dc,
    "npz": arrays.write,
}
"""What `write_set` writes: PNG files, a folder a class; `images_best.pt` and `labels_best.pt` (soft
labels as DATM's logits, or TESLA's probabilities); DC's `res_*.pt`; a numpy archive."""
ENDINGS = {"dc": ".pt", "npz": ".npz"}
"""Of the files among them, by which they are known again."""


def read_set(
    source: str | Path,
    dataset: Dataset,
    said: Statement = Statement(),  # noqa: B008 (immutable)
    *,
    labels: str | None = None,
    experiment: int | None = None,
) -> SyntheticSet:
    """Read a distilled set in any known form, its labels in the order of `dataset`'s classes.

    Args:
        dataset: what the set stands for.
        said: what the form itself does not say of its numbers.
        labels: of a tensor of images: a `.pt` file, or "sorted": by class, equally many each.
        experiment: of DC's files, which hold several.

    Raises:
        ValueError: one line for what is unreadable, would run code, does not say what its numbers
            are, or does not fit the data set in classes, channels, side or rows.
    """
    source = Path(source)
    torch_file = source.suffix in (".pt", ".pth") or (source / torch_files.IMAGES).exists()
    if not torch_file and (labels is not None or experiment is not None):
        raise ValueError(f"{source}: brings its own labels; leave --labels and --experiment out")
    exact = source / TENSORS if source.is_dir() else source
    if exact.suffix == ".safetensors" and exact.exists():
        for given in (said.transform, said.class_names, said.probabilities):
            if given is not None:
                raise ValueError(f"{source}: says itself what its numbers are; leave that out")
        try:
            found = SyntheticSet.load(exact)
        except ValueError as error:  # The file may be somebody else's, and no run makes it again.
            raise ValueError(str(error).removesuffix(AGAIN)) from None
        rate = found.step_size if said.step_size is None else said.step_size
        return fitted(replace(found, step_size=rate), dataset, source)
    if torch_file:
        read = torch_files.read(source, labels, experiment)
    elif source.is_dir():
        read = pictures.read(source)
    elif source.suffix == ".npz":
        read = arrays.read(source)
    else:
        known = "a folder, .safetensors, .npz, .pt, .pth"
        there = "known are" if source.exists() else "no such file; known are"
        raise ValueError(f"{source}: {there} {known}")
    return settled(read, dataset, said, source)


def write_set(distilled: SyntheticSet, out: str | Path, form: str = "folder") -> None:
    """Write a distilled set in one of `FORMS`, with its transform; whole or not at all.

    Others know of no decoding: images are written as networks are trained on them; a folder holds
    the exact set besides.

    Raises:
        ValueError: one line for an unknown form, a file without the form's ending, rows of the
            data instead of images, or if `out` has something in it.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; known: {', '.join(FORMS)}")
    out = Path(out)
    if out.suffix != ENDINGS.get(form, out.suffix):
        raise ValueError(f"{out}: a file of form {form} must end in {ENDINGS[form]}")
    if distilled.rows is not None:
        raise ValueError(f"{out}: not written: the set is real images, kept as rows of the data")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists and is not an empty folder; choose another")
    FORMS[form](distilled if form == "folder" else distilled.decoded(), out)
