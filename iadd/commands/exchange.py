"""The commands that bring distilled sets in and out: what has to be said of them is an option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Dataset = Annotated[str | None, typer.Option(help="Data set key; default: the first.")]
Source = Annotated[
    Path,
    typer.Argument(
        help="A folder (exported, of images a class, or with images_best.pt), a .pt file of "
        "MTT, FTD, TESLA, DATM (images_*.pt) or DC, DSA, DM (res_*.pt), .npz, .safetensors."
    ),
]
Pixels = Annotated[
    bool, typer.Option("--pixels", help="Images are pixels in [0, 1], as images_zca_*.pt are.")
]
Mean = Annotated[
    str | None, typer.Option(help="Images are normalised by this mean a channel: 0.49,0.48,0.45")
]
Std = Annotated[str | None, typer.Option(help="And by this standard deviation.")]
Zca = Annotated[
    bool, typer.Option("--zca", help="Images are whitened as the benchmark's data are.")
]
Classes = Annotated[
    str | None,
    typer.Option(
        help="What labels 0, 1, ... are: names with commas, a file with a name a line, or same: as "
        "in the benchmark."
    ),
]
Labels = Annotated[
    str | None, typer.Option(help="A .pt file of labels; or sorted: by class, equally many each.")
]
Probabilities = Annotated[
    bool | None,
    typer.Option("--probabilities/--logits", help="What soft labels are (TESLA's, DATM's)."),
]
Experiment = Annotated[int | None, typer.Option(help="Which experiment of a res_*.pt, from 0.")]
StepSize = Annotated[
    str | None, typer.Option(help="Its learned step size: a number, or DATM's lr_best.pt.")
]
Form = Annotated[
    str,
    typer.Option(
        help="folder: PNG files, a folder a class, with the exact set; mtt: images_best.pt and "
        "labels_best.pt, soft labels as DATM's logits; tesla: the same with probabilities; "
        "dc: one res_*.pt; npz: a numpy archive."
    ),
]


def export_set(
    distilled: Annotated[Path, typer.Argument(help="A distilled set (.safetensors).")],
    out: Annotated[Path, typer.Argument(help="New folder, or file for the forms dc and npz.")],
    form: Form = "folder",
) -> None:
    """Write a distilled set in another form of the field.

    The transform of its numbers is written too.
    """
    from iadd.exchange import write_set
    from iadd.synthetic import SyntheticSet

    held = SyntheticSet.load(distilled)
    write_set(held, out, form)
    shown = len(held.decoded())
    several = "" if shown == len(held) else f"; {len(held)} stored images are decoded into {shown}"
    print(f"{out}: written{several}")


def import_set(
    source: Source,
    out: Annotated[Path, typer.Argument(help="The distilled set to write (.safetensors).")],
    config: Annotated[Path, typer.Option(help="Benchmark whose data set it is for.")],
    dataset: Dataset = None,
    pixels: Pixels = False,
    mean: Mean = None,
    std: Std = None,
    zca: Zca = False,
    classes: Classes = None,
    labels: Labels = None,
    probabilities: Probabilities = None,
    experiment: Experiment = None,
    step_size: StepSize = None,
) -> None:
    """Read a distilled set of others, in any form of the field.

    Nothing is guessed and nothing executed.
    """
    from iadd.pipeline import foreign

    words: dict[str, Any] = {"pixels": pixels, "mean": mean, "std": std, "zca": zca}
    words |= {"classes": classes, "probabilities": probabilities}
    words["step_size"] = foreign.step_size(step_size)
    foreign.import_set(source, out, config, dataset, labels, experiment, **words)
