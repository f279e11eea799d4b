"""The distilled set, a value and a file (`set`), and how its images are decoded (`decoding`)."""

from iadd.synthetic.picture import picture_of as picture_of
from iadd.synthetic.set import TENSORS as TENSORS
from iadd.synthetic.set import SyntheticSet as SyntheticSet
from iadd.synthetic.set import probabilities as probabilities
