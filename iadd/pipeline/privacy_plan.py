"""The report on privacy in the plan: its jobs, what identifies their results, what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iadd.pipeline.config import PrivacyConfig
from iadd.pipeline.plan import Plan, Run
from iadd.privacy import MOST_IMAGES

RULES = ("yardstick", "privacy")


def asked_of(plan: Plan) -> PrivacyConfig:
    """The section of the configuration; ValueError where there is none."""
    if plan.config.privacy is None:
        raise ValueError("privacy: is not in this benchmark; put `privacy: {}` into its file")
    return plan.config.privacy


def exposed(plan: Plan) -> Iterator[Run]:
    """The runs whose sets are asked what they give away; without the section, none."""
    return (run for run in plan.runs() if plan.config.privacy and run.method != "whole")


def yardsticks(plan: Plan) -> list[tuple[str, int]]:
    """All (dataset, ipc) of these runs."""
    return sorted({(run.dataset, run.ipc) for run in exposed(plan)})


def yardstick_job_spec(plan: Plan, ipc: int) -> dict[str, Any]:
    """How real images are measured, as far as it is known when the workflow's graph is drawn."""
    asked = asked_of(plan).model_dump(mode="json", exclude={"networks", "pictures"})
    return {
        "kind": "yardstick",
        "asked": asked,
        "network": plan.config.network,
        "ipc": ipc,
        "base_seed": plan.config.seed,
        "source": plan.code("privacy"),
    }


def yardstick_spec(plan: Plan, dataset: str, ipc: int) -> dict[str, Any]:
    """What made a yardstick."""
    return yardstick_job_spec(plan, ipc) | plan.data_identity(dataset)


def privacy_job_spec(plan: Plan) -> dict[str, Any]:
    """What is asked of a set, as far as it is known when the workflow's graph is drawn."""
    asked = asked_of(plan).model_dump(mode="json")
    return {"asked": asked, "source": plan.code("privacy")}


def privacy_spec(plan: Plan, run: Run) -> dict[str, Any]:
    """What made a run's row: the set, the yardstick, and what was asked."""
    yardstick = yardstick_spec(plan, run.dataset, run.ipc)
    return {"spec": plan.spec(run), "yardstick": yardstick, "privacy": privacy_job_spec(plan)}


def jobs_of(plan: Plan, dataset: str) -> dict[str, list[int]]:
    """The ipc of each job of each rule on one data set."""
    sets = [run.ipc for run in exposed(plan) if run.dataset == dataset]
    rulers = [ipc for key, ipc in yardsticks(plan) if key == dataset]
    return {"yardstick": rulers, "privacy": sets} if sets else {}


def passes(plan: Plan, rule: str, images: int, classes: int, ipc: int) -> float:
    """Image gradients of one job; asking for an answer counts as a third of one.

    images: training and validation images.
    """
    asked = asked_of(plan)
    first = rule == "yardstick"
    networks = asked.shadows if first else asked.networks
    features = asked.feature_epochs * min(images, MOST_IMAGES) if first else 0
    return features + networks * (asked.epochs * ipc * classes + images / 3)
