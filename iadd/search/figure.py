"""What a search showed, by Optuna's own figures: how it went, and which parameters mattered."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from iadd.methods import Space
from iadd.search.proposals import distributions
from iadd.search.storage import Trial

if TYPE_CHECKING:
    from optuna import Study

FEWEST = 8
"""Trials below which importances would be made up."""


def _study(trials: Sequence[Trial], space: Space) -> Study:
    """The trials for a figure: one that was stopped counts with what it had reached."""
    import optuna
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, over = optuna.create_study(direction="maximize"), distributions(space)
    for trial in trials:
        if trial.rungs:
            params = trial.settings
            study.add_trial(create_trial(params=params, distributions=over, value=trial.best))
    return study


def _fanova(study: Study) -> Any:
    """Optuna's fANOVA; None where fewer than 8 trials were measured or all reached the same."""
    import optuna

    if len(study.trials) < FEWEST or len({trial.value for trial in study.trials}) < 2:
        return None
    return optuna.importance.FanovaImportanceEvaluator(seed=0)


def importance(trials: Sequence[Trial], space: Space) -> dict[str, float]:
    """Share of the variance of the trials' best accuracy that each parameter explains: fANOVA.

    Hutter, Hoos, Leyton-Brown, ICML 2014, by Optuna. Empty where too few trials differ.
    """
    from optuna.importance import get_param_importances

    study = _study(trials, space)
    judge = _fanova(study)
    found = get_param_importances(study, evaluator=judge) if judge else {}
    return {name: round(float(share), 4) for name, share in found.items()}


def picture(title: str, trials: Sequence[Trial], space: Space) -> bytes:
    """History and, where enough trials differ, importances side by side: a PNG."""
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots

    study, image = _study(trials, space), io.BytesIO()
    judge = _fanova(study)
    plt.switch_backend("agg")
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("ignore")  # Optuna calls these figures experimental
        axes = [plots.plot_optimization_history(study, target_name="Validation accuracy")]
        axes[0].set_title(title)
        if judge:
            axes.append(plots.plot_param_importances(study, evaluator=judge))
        pixels = []
        for one in axes:
            figure: Any = one.get_figure()
            figure.set_size_inches(6.4, 4.2)
            figure.set_dpi(150)
            figure.tight_layout()
            figure.canvas.draw()
            pixels.append(np.asarray(figure.canvas.buffer_rgba()))
            plt.close(figure)
        plt.imsave(image, np.hstack(pixels), format="png")
    return image.getvalue()
