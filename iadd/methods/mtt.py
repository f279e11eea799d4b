from __future__ import annotations

from iadd.methods._trajectory import Trajectory


class MTT(Trajectory):
    """Dataset Distillation by Matching Training Trajectories.

    Cazenavette, Wang, Torralba, Efros, Zhu; CVPR 2022; arXiv 2203.11932, equation 2.
    Differs: the step size is positive by construction (its logarithm is learned), and the
    checkpoint is chosen on validation data.
    """
