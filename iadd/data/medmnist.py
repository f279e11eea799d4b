"""MedMNIST v2 and MedMNIST+ (Yang et al. 2023, Scientific Data 10:41): one `.npz` file a set."""

from __future__ import annotations

from iadd.data.arrays import Opened, read_arrays
from iadd.data.raw import Part, Progress, Raw, Source

URL = "https://zenodo.org/records/10519652"
STORED = (28, 64, 128, 224)
_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver"),
    *("lung-left", "lung-right", "pancreas", "spleen"),
)
CLASSES: dict[str, tuple[str, ...]] = {
    # Classes in the order of their labels: medmnist.INFO of the official package.
    "pathmnist": (
        *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle"),
        *("normal colon mucosa", "cancer-associated stroma"),
        "colorectal adenocarcinoma epithelium",
    ),
    "dermamnist": (
        *("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma"),
        *("benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi"),
        "vascular lesions",
    ),
    "bloodmnist": (
        *("basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte"),
        *("monocyte", "neutrophil", "platelet"),
    ),
    "tissuemnist": (
        *("collecting duct, connecting tubule", "distal convoluted tubule"),
        *("glomerular endothelial cells", "interstitial endothelial cells", "leukocytes"),
        *("podocytes", "proximal tubule segments", "thick ascending limb"),
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("0", "1", "2", "3", "4"),
    "breastmnist": ("malignant", "normal, benign"),
    "chestmnist": (),  # Several labels an image: refused when its labels are seen.
    **dict.fromkeys(("organamnist", "organcmnist", "organsmnist"), _ORGANS),
}


def medmnist(
    source: Source, part: Part, like: Raw | None = None, progress: Progress | None = None
) -> Raw | None:
    """A set of MedMNIST, `<name>.npz` or `<name>_<side>.npz`, with its own three parts.

    The file is the largest one of 28, 64, 128 or 224 pixels that is not above `resolution`: images
    of 32 pixels are made from those of 28, as published results have it.
    """
    wanted = max(source.resolution or 0, STORED[0])
    side = max(side for side in STORED if side <= wanted)
    path = source.folder / f"{source.name}{'' if side == STORED[0] else f'_{side}'}.npz"
    if not path.exists():
        raise ValueError(f"{path}: no such file; it is published at {URL}")
    return read_arrays(Opened(path), source, part, like, progress, CLASSES[source.name])


READERS = dict.fromkeys(CLASSES, medmnist)
