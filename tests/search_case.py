"""A tiny benchmark with a search, shared by the tests of the search."""

from pathlib import Path
from typing import Any

from iadd.artifacts import canonical_json
from iadd.pipeline.config import parse_config
from iadd.pipeline.plan import Plan
from iadd.search.trial import Task

MTT = {
    "iterations": 18,
    "unrolled_steps": 3,
    "expert_epochs": 1,
    "max_start": 2,
    "lr_img": 30,
    "clip": 1.0,
    "step_size": 0.05,
    "lr_lr": 1e-5,
    "validations": 2,
}


def benchmark(**search_keys: Any) -> dict[str, Any]:
    tiny = {
        "methods": ["mtt"],
        "trials": 6,
        "confirm_seeds": 1,
        "confirm_networks": 1,
        "finalists": 1,
        "space": {"mtt": {"unrolled_steps": {"int": [1, 4]}, "max_start": {"int": [1, 3]}}},
    }
    return {
        "benchmark": "b",
        "seeds": 1,
        "ipc": [1],
        "datasets": [{"name": "blobs"}],
        "network": "mlp",
        "experts": {"count": 2, "per_shard": 2, "recipe": {"step_size": 0.05, "batch": 32}},
        "validation": {"networks": 1, "epochs": 6},
        "evaluations": [{"networks": {"mlp": 2}, "epochs": 6, "whole_epochs": 2}],
        "methods": {"random": None, "mtt": {"params": MTT}},
        "search": tiny | search_keys,
    }


def plan_of(**search_keys: Any) -> Plan:
    return Plan(parse_config(benchmark(**search_keys), "x"))


def task_of(plan: Plan, folder: Path) -> Task:
    text = canonical_json(plan.config.model_dump(mode="json"))
    return Task(text, str(folder), "blobs", "mtt", 1)
