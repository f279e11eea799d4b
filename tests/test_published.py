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
    """Rule: a recipe of a data set that has published settings is these settings, unless it says in
    its name that its budget is small. A data set is whitened where MTT's was.
    """
    config, compared = load_config(path), set()
    for row in PUBLISHED:
        for dataset in config.datasets:
            if row.dataset != dataset.name or row.method not in config.methods:
                continue
            if row.ipc not in config.ipcs(row.method, dataset.key) or path.stem.endswith("-small"):
                continue
            given = config.params(row.method, row.ipc).model_dump()
            found = {key: given[key] for key in row.params}
            assert found == row.params, f"{path.name}: {row.method} at ipc {row.ipc}"
            recipe = config.experts.named(config.recipe(row.method) or "standard")
            assert row.experts.items() <= recipe.model_dump().items(), f"{path.name}: experts"
            if row.method == "mtt":
                assert row.zca == dataset.zca, f"{path.name}: zca of {dataset.key}"
            compared.add((row.method, row.ipc))
    at_least = {"cifar10": 30, "cifar100": 14, "tinyimagenet": 3, "covid19": 2}
    assert len(compared) >= at_least.get(path.stem, 0)


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem.endswith("-small")], ids=str)
def test_a_small_sibling_says_what_it_costs(path: Path) -> None:
    assert "small budget" in (first := path.read_text().splitlines()[0]) and "on 2 cores" in first
    assert path.with_name(path.name.replace("-small", "")).exists()
