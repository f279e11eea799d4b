"""The named data sets: what may be done to their images, and what may be set for them."""

from iadd.augment import FAMILIES

IMAGENET = ("imagenette", "imagewoof", "imagefruit", "imageyellow", "imagemeow", "imagesquawk")
"""Ten classes of ImageNet each."""
_UNMIRRORED = ("color", "crop", "cutout", "scale", "rotate")
_MIRRORED_MEDMNIST = ("pathmnist", "dermamnist", "bloodmnist", "tissuemnist")
_UNMIRRORED_MEDMNIST = (
    *("octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "chestmnist"),
    *("organamnist", "organcmnist", "organsmnist"),
)
MEDMNIST = (*_MIRRORED_MEDMNIST, *_UNMIRRORED_MEDMNIST)
AUGMENTATIONS: dict[str, tuple[str, ...]] = {
    # A mirrored digit is no digit. At 8x8 a cutout of half the side takes the stroke away, and
    # brightness, contrast and saturation add little to grey values of one scanner.
    "digits": ("crop", "scale", "rotate"),
    # The place is the class: nothing that moves it across the middle.
    "blobs": ("crop", "scale"),
    "mnist": _UNMIRRORED,
    "fashionmnist": FAMILIES,  # Clothes may be mirrored,
    "svhn": _UNMIRRORED,
    "cifar10": FAMILIES,  # and so may animals and vehicles.
    "cifar100": FAMILIES,
    "tinyimagenet": FAMILIES,
    **dict.fromkeys(IMAGENET, FAMILIES),
    "covid19": _UNMIRRORED,  # The heart is on the left.
    # Tissue, skin and blood cells have no left and right; bodies have.
    **dict.fromkeys(_MIRRORED_MEDMNIST, FAMILIES),
    **dict.fromkeys(_UNMIRRORED_MEDMNIST, _UNMIRRORED),
    # Unknown images: X-rays must not be mirrored, photographs may.
    "folder": _UNMIRRORED,
    "arrays": _UNMIRRORED,
}
"""The augmentation families that leave a label true."""
DATASETS = tuple(AUGMENTATIONS)
BUILT_IN = ("digits", "blobs")
"""Sets that come with the program, so that they have no `root`."""
SIDES = {**dict.fromkeys(IMAGENET, 128), "covid19": 112}
"""Resolutions of sets whose images have several sizes, or too many pixels."""
OPEN = ("folder", "arrays", "covid19")
"""Sets whose channels and groups are for the user to say."""
