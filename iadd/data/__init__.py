"""Named datasets as normalised tensors, cut for honest work and prepared once for all jobs.

Train and validation are loaded; the test split is opened by `open_test` alone, which only the
evaluation calls. torchvision, scikit-learn and Pillow are imported by the readers that need them.
"""

from iadd.data.about import About, read_about
from iadd.data.assemble import inspect
from iadd.data.catalog import AUGMENTATIONS, DATASETS
from iadd.data.dataset import Dataset, Split, open_test
from iadd.data.image_rows import ImageRows
from iadd.data.prepare import load_dataset, open_dataset, prepare
from iadd.data.raw import Source
from iadd.data.sources import stamp
from iadd.data.transform import Transform
