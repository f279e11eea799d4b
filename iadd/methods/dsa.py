from __future__ import annotations

from iadd.methods._gradient import GradientMatching


class DSA(GradientMatching):
    """Dataset Condensation with Differentiable Siamese Augmentation.

    Zhao, Bilen; ICML 2021; arXiv 2102.08259: gradient matching in which a real batch and the
    synthetic images of its class go through the very same draw. Starts from real images.
    """

    siamese = True
