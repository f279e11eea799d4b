"""Shipped benchmarks use the published settings of their methods, where there are any."""

from pathlib import Path

import pytest

from iadd import methods
from iadd.experts import named_recipe
from iadd.leaderboard.published_settings import PUBLISHED, published
from iadd.pipeline.config import load_config

CONFIGS = sorted((Path(__file__).parent.parent / "config").glob("*.yaml"))


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.method}-{row.dataset}-{row.ipc}")
def test_a_published_row_is_a_setting_of_its_method(row: object) -> None:
    method, dataset, ipc, _, source, params, experts = row  # type: ignore[misc]
    methods.find(method).Params(**params)
    assert not experts or (methods.find(method).experts and named_recipe("standard", experts))
    assert "arXiv" in source and published(method, dataset, ipc) is params


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_benchmark_uses_the_published_settings(path: Path) -> None:
    """Rule: a recipe of a data set that has published settings is these settings."""
    config, compared = load_config(path), 0
    for row in PUBLISHED:
        for dataset in config.datasets:
            if row.dataset != dataset.name or row.method not in config.methods:
                continue
            if row.ipc in config.ipcs(row.method):
                given = config.params(row.method, row.ipc).model_dump()
                found = {key: given[key] for key in row.params}
                assert found == row.params, f"{path.name}: {row.method} at ipc {row.ipc}"
                assert row.zca in (None, dataset.zca), f"{path.name}: zca of {dataset.name}"
                recipe = config.experts.named(config.recipe(row.method) or "standard")
                assert row.experts.items() <= recipe.model_dump().items(), f"{path.name}: experts"
                compared += 1
    assert compared >= 8 or path.stem != "cifar10"
