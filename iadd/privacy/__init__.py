"""What a distilled set gives away of the images that it was distilled from.

`nearest` finds the training images that distilled ones lie closest to, `attack` asks networks
trained on the set which images were in the data, `yardstick` holds what both are measured against.
"""

from iadd.privacy.attack import scores as scores
from iadd.privacy.nearest import COPY as COPY
from iadd.privacy.nearest import Nearest as Nearest
from iadd.privacy.nearest import copies as copies
from iadd.privacy.nearest import nearest_features as nearest_features
from iadd.privacy.nearest import nearest_pixels as nearest_pixels
from iadd.privacy.pairs import closest as closest
from iadd.privacy.pairs import picture as picture
from iadd.privacy.yardstick import MOST_IMAGES as MOST_IMAGES
from iadd.privacy.yardstick import Settings as Settings
from iadd.privacy.yardstick import Yardstick as Yardstick
from iadd.privacy.yardstick import make_yardstick as make_yardstick
