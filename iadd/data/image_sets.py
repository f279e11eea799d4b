"""Published sets of image files in their own layouts: Tiny ImageNet, ten classes of ImageNet,
COVID-19 radiographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from iadd.data.folder import Tree, collect, raw_of
from iadd.data.image_file import SUFFIXES
from iadd.data.raw import Part, Progress, Raw, Source

TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
COVID_URL = "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database"
COVID_CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
VALIDATED = 50  # images a class in ImageNet's own val/

SUBSETS: dict[str, dict[str, str]] = {
    # Classes and their order: Cazenavette et al. 2022, arXiv 2203.11932, and the code of that
    # paper, which counts ImageNet's classes in the order of their WordNet numbers.
    "imagenette": {
        "n01440764": "tench",
        "n02102040": "English springer",
        "n02979186": "cassette player",
        "n03000684": "chain saw",
        "n03028079": "church",
        "n03394916": "French horn",
        "n03417042": "garbage truck",
        "n03425413": "gas pump",
        "n03445777": "golf ball",
        "n03888257": "parachute",
    },
    "imagewoof": {
        "n02096294": "Australian terrier",
        "n02093754": "Border terrier",
        "n02111889": "Samoyed",
        "n02088364": "beagle",
        "n02086240": "Shih-Tzu",
        "n02089973": "English foxhound",
        "n02087394": "Rhodesian ridgeback",
        "n02115641": "dingo",
        "n02099601": "golden retriever",
        "n02105641": "Old English sheepdog",
    },
    "imagefruit": {
        "n07753275": "pineapple",
        "n07753592": "banana",
        "n07745940": "strawberry",
        "n07747607": "orange",
        "n07749582": "lemon",
        "n07768694": "pomegranate",
        "n07753113": "fig",
        "n07720875": "bell pepper",
        "n07718472": "cucumber",
        "n07742313": "Granny Smith",
    },
    "imageyellow": {
        "n02206856": "bee",
        "n12057211": "yellow lady's slipper",
        "n07753592": "banana",
        "n07749582": "lemon",
        "n12144580": "corn",
        "n04146614": "school bus",
        "n03530642": "honeycomb",
        "n02129165": "lion",
        "n01773157": "black and gold garden spider",
        "n01531178": "goldfinch",
    },
    "imagemeow": {
        "n02123045": "tabby",
        "n02123159": "tiger cat",
        "n02123394": "Persian cat",
        "n02123597": "Siamese cat",
        "n02124075": "Egyptian cat",
        "n02129165": "lion",
        "n02129604": "tiger",
        "n02128925": "jaguar",
        "n02128757": "snow leopard",
        "n02127052": "lynx",
    },
    "imagesquawk": {
        "n01806143": "peacock",
        "n02007558": "flamingo",
        "n01818515": "macaw",
        "n02051845": "pelican",
        "n02056570": "king penguin",
        "n01614925": "bald eagle",
        "n01843383": "toucan",
        "n01518878": "ostrich",
        "n01860187": "black swan",
        "n01819313": "sulphur-crested cockatoo",
    },
}


def imagenet(
    source: Source, part: Part, like: Raw | None = None, progress: Progress | None = None
) -> Raw:
    """Ten classes of an ImageNet tree, `train/<wnid>/` and, as the test part, `val/<wnid>/`."""
    names = tuple(SUBSETS[source.name].values())
    wanted = "train" if part == "train" else "val"
    folders = [place for place in places(source) if place.parent.name == wanted]
    missing = [place for place in folders if not place.is_dir()]
    if missing:
        raise ValueError(
            f"{source.title}: {missing[0]} is no folder; root must hold ImageNet's "
            "train/<wnid>/ and val/<wnid>/ (https://image-net.org, or fast.ai's imagenette2 and "
            "imagewoof2), with the images of val/ sorted into their classes' folders"
        )
    tree = _tree(folders, names)
    raw = raw_of(source, tree, part, like, progress, 3)
    if part == "train" or (np.bincount(tree.labels) == VALIDATED).all():
        return raw
    remark = f"val/ is not ImageNet's own, which has {VALIDATED} images a class"
    return replace(raw, remarks=(remark,))


def places(source: Source) -> list[Path]:
    """The folders of a subset's classes, of all that a tree of ImageNet holds."""
    parts = (source.folder / part for part in ("train", "val"))
    return [part / wnid for part in parts for wnid in SUBSETS[source.name]]


def tiny_imagenet(
    source: Source, part: Part, like: Raw | None = None, progress: Progress | None = None
) -> Raw:
    """Tiny ImageNet as it was published; `val/` is the test part.

    Classes are in the order of their WordNet numbers, as in the field's code; `wnids.txt` has
    another one.
    """
    root = source.folder
    get = f"root must be the folder tiny-imagenet-200 of {TINY_URL}"
    wnids = sorted(line.strip() for line in _lines(root / "wnids.txt", get) if line.strip())
    names = _words(root / "words.txt", wnids)
    if part == "train":
        places = [root / "train" / wnid / "images" for wnid in wnids]
        for place in places:
            if not place.is_dir():
                raise ValueError(f"{place}: no such folder of a class of wnids.txt; {get}")
        tree = _tree(places, names)
    else:
        tree = replace(_annotated(root / "val", wnids, get), class_names=names)
    return raw_of(source, tree, part, like, progress, 3)


def _annotated(folder: Path, wnids: Sequence[str], get: str) -> Tree:
    """The images of `val/images` and their classes in `val_annotations.txt`."""
    table = folder / "val_annotations.txt"
    rows = {wnid: row for row, wnid in enumerate(wnids)}
    labels: dict[str, int] = {}
    for number, line in enumerate(_lines(table, get), 1):
        if not line.strip():
            continue
        file, wnid = (*line.split("\t"), "")[:2]
        if wnid not in rows:
            raise ValueError(f"{table}: line {number}: class {wnid!r} is not in wnids.txt")
        labels[file] = rows[wnid]
    images = folder / "images"
    if not images.is_dir():
        raise ValueError(f"{images}: no such folder; {get}")
    found = {path.name for path in images.iterdir() if path.suffix.lower() in SUFFIXES}
    for file in sorted(found ^ labels.keys()):
        lacks = f"has no line for {file}" if file in found else f"names {file}, which is not there"
        raise ValueError(f"{table}: {lacks}")
    files = sorted(found)
    order = np.array([labels[file] for file in files], dtype=np.int64)
    return Tree([images / file for file in files], order, (), Counter())


def _words(path: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    """The first word for each class, or its number where there is none or several share one."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    known = dict(line.split("\t", 1) for line in lines if "\t" in line)
    words = [known.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    count = Counter(words)
    return tuple(w if count[w] == 1 else wnid for w, wnid in zip(words, wnids, strict=True))


def covid19(
    source: Source, part: Part, like: Raw | None = None, progress: Progress | None = None
) -> Raw | None:
    """The COVID-19 Radiography Database, grey; a test part is cut, since it has none."""
    if part == "test":
        return None
    places = [source.folder / name / "images" for name in COVID_CLASSES]
    for place in places:
        if not place.is_dir():
            raise ValueError(
                f"covid19: {place} is no folder; root must be the folder "
                f"COVID-19_Radiography_Dataset of {COVID_URL}"
            )
    tree = _tree(places, COVID_CLASSES)
    raw = raw_of(source, tree, part, like, progress, source.channels or 1)
    if source.groups is not None:
        return raw
    return replace(raw, remarks=("which images are of one patient is not known (key groups)",))


def _tree(places: Sequence[Path], names: tuple[str, ...]) -> Tree:
    tree = Tree([], np.empty(0, dtype=np.int64), names, Counter())
    counts = []
    for place in places:
        before = len(tree.files)
        collect(place, tree.files, tree.left_out)
        counts.append(len(tree.files) - before)
        if not counts[-1]:
            raise ValueError(f"{place}: holds no images")
    return replace(tree, labels=np.repeat(np.arange(len(places)), counts))


def _lines(path: Path, get: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read; {get}") from error


READERS: Mapping[str, Callable[..., Raw | None]] = {
    "tinyimagenet": tiny_imagenet,
    **dict.fromkeys(SUBSETS, imagenet),
    "covid19": covid19,
}
