"""Can a benchmark's experts be trusted? What they reached on validation data, beside what networks
trained on all the data reach as published."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from iadd.artifacts import TensorFile
from iadd.leaderboard.published import same_side, whole_accuracy
from iadd.pipeline.plan import Plan

FAR = 0.03
"""Below the published accuracy by more than this, experts are far from it."""
FULL_EPOCHS = 50
"""Of published experts (arXiv 2203.11932); ours go as far as the methods' settings reach."""


def expert_lines(plan: Plan, dataset: str) -> list[str]:
    """A line for each recipe of which experts are recorded, by the code that is here."""
    lines = []
    for recipe in plan.recipes:
        own = plan.config.experts.named(recipe).imported is None
        expect = {"source": plan.experts_source()} if own else {}
        found: list[float] = []
        for path in plan.shards(dataset, recipe):
            with suppress(ValueError):  # not there, or another's: it will be recorded anew
                reached = TensorFile(path, expect).attributes.get("validation_accuracy", [])
                found += [accuracy for accuracy in reached if accuracy is not None]
        if found:
            lines.append(expert_line(plan, dataset, recipe, found))
    return lines


def expert_line(plan: Plan, dataset: str, recipe: str, accuracies: Sequence[float]) -> str:
    """What experts reached, and a warning where that is far below the published value.

    accuracies: of each expert on validation data, fractions.
    """
    network, epochs = plan.config.network, plan.expert_epochs(recipe)
    mean, low, high = sum(accuracies) / len(accuracies), min(accuracies), max(accuracies)
    line = (
        f"experts of {dataset} ({network}, recipe {recipe}) reach {100 * mean:.1f} % on validation "
        f"after {epochs} epochs ({100 * low:.1f} to {100 * high:.1f}; {len(accuracies)} of them)"
    )
    name, about = plan.config.dataset(dataset).published_name, plan.known_about(dataset)
    published = whole_accuracy(name, network)
    if published is None or (about and not same_side(name, about.resolution)):
        return line
    if mean >= published - FAR:
        return f"{line}; near the published {100 * published:.1f} %"
    far = f"far below the published {100 * published:.1f} %"
    if epochs < FULL_EPOCHS:
        return f"{line}; {far}, of {FULL_EPOCHS} epochs: these go as far as the methods' settings"
    return f"{line}; WARNING: {far}; check experts.recipe before you trust what comes of them"
