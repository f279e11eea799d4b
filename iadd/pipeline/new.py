"""`iadd new`: a benchmark of one's own images, with what was found in them in comments."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from statistics import median
from textwrap import indent

from iadd import data
from iadd.artifacts import atomic_write
from iadd.data.folder import files_of, layout
from iadd.data.image_file import header

SIDES = (8, 16, 32, 64, 128)
"""Resolutions that are proposed; a ConvNet halves each down to 4 pixels."""
LARGEST = 64
"""Larger ones are for a card."""
LOOKED_AT = 500
"""Images whose size is read."""

TEXT = """# A benchmark of the images in {root}, written by `iadd new`.
# All keys: python -m iadd.pipeline.config.docs. What it will cost: iadd plan {file}
# To make it cheaper: fewer `seeds` for a first try, fewer `iterations`, a smaller `experts.count`,
# fewer `epochs`, a smaller `resolution` (and one block less in `convnet-d...` for each halving).
#
# What was found, as it will be read:
{found}
benchmark: {name}
seeds: 5 # with 3, hardly a difference can be told from chance
ipc: {ipcs} # images per class; at most {least}, the rarest class's training images
datasets:
  - name: folder
    label: {label}
    root: {root}
    resolution: {resolution} # {sizes}
    # channels: 1 # grey; default: as found
    # zca: true # whitening, for colour photographs
    # augmentation: [crop, scale, rotate, flip] # what leaves a label true; no flip by default
    # positive: {positive} # the class whose sensitivity and specificity stand in the tables
    # groups: {table} # columns file,group: no patient's images on two sides of a cut
network: convnet-d{depth}-w32 # published results use -w128, which is for a card
experts:
  count: 20 # networks trained on the real data
  per_shard: 5
  recipe: {{step_size: 0.01, batch: 128}}
validation: {{networks: 2, epochs: 150}}
evaluations:
  - protocol: mtt-v1
    networks: {{convnet-d{depth}-w32: 5}}
    epochs: 300
    whole_epochs: 50 # too few if `whole` stays below a method
# Settings to begin with; a search finds better ones (key `search`). A much larger lr_img drives
# most pixels out of the range that images have; clip bounds the gradient that it multiplies.
.trajectory: &trajectory
  {{iterations: 300, lr_img: 10, clip: 1.0, unrolled_steps: 20, expert_epochs: 2, max_start: 5}}
methods:
  whole: # the upper bound: all training images
  random: # the lower bound
  dm: {{params: {{iterations: 1000, lr_img: 1.0, batch_real: 64}}}}
  mtt: {{params: *trajectory}}
  iadd: {{params: *trajectory}}
"""


def new(folder: Path, images: Path) -> Path:
    """Write `folder`/benchmark.yaml for a folder of images, one subfolder a class.

    Raises:
        ValueError: one line for images that cannot be a benchmark, or a file that is there.
    """
    file = folder / "benchmark.yaml"
    if file.exists():
        raise ValueError(f"{file}: is there already; name another folder")
    root = images.expanduser().absolute()
    if root.is_file():
        entry = f"{{name: arrays, root: {images}}}"
        raise ValueError(f"{images}: is no folder of images; write a file's entry by hand: {entry}")
    resolution, sizes = _sizes(root)
    label = _word(folder.absolute().name).replace("-", "_")
    about = data.inspect(data.Source("folder", root=root, resolution=resolution, label=label))
    least = min(about.counts["train"])
    text = TEXT.format(
        root=_quoted(str(root)),
        file=file,
        found=indent("\n".join(about.lines()), "#   ", lambda _: True),
        name=_word(folder.absolute().name),
        label=label,
        ipcs=[ipc for ipc in (1, 10) if ipc <= least],
        least=least,
        positive=_quoted(about.class_names[0]),
        table=_quoted(str(root / "patients.csv")),
        resolution=resolution,
        sizes=sizes,
        depth=SIDES.index(resolution) + 1,
    )
    atomic_write(file, text.encode())
    return file


def _sizes(root: Path) -> tuple[int, str]:
    """The resolution to propose, and the sizes found in words."""
    found = set()
    files = files_of(*layout(root).train).files
    for path in files[:: -(-len(files) // LOOKED_AT) or 1]:
        with suppress(ValueError):  # The reader names all that it cannot.
            found.add(header(path).size)
    found = found or {(SIDES[0], SIDES[0])}
    sides = [min(size) for size in found]
    fitting = [side for side in SIDES if side <= min(median(sides), LARGEST)]
    low, high = min(found), max(found)
    words = f"{low[0]}x{low[1]}" + ("" if low == high else f" to {high[0]}x{high[1]}")
    return (fitting or [SIDES[0]])[-1], f"the images are {words}"


def _word(name: str) -> str:
    """A name that a benchmark may have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:64] or "images"


def _quoted(text: str) -> str:
    """Text as YAML takes it."""
    return text if re.fullmatch(r"[A-Za-z0-9_./-]+", text) else "'" + text.replace("'", "''") + "'"
