"""The snippets of docs/analysis.md run as they stand, and agree with each other."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_tables import runs
from test_importance import statistic, traced

from iadd.leaderboard.results import table_of, write_table
from iadd.leaderboard.rows import EVALUATIONS
from iadd.leaderboard.weights import TRACE_FILE, WEIGHTS, weights_of

PAGE = Path(__file__).parent.parent / "docs" / "analysis.md"
SNIPPETS = dict(
    re.findall(r"^## ([^\n]+)\n.*?```python\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
)
RANDOM, MTT = [[0.5, 0.6], [0.6, 0.7], [0.5, 0.5]], [[0.8, 0.9], [0.8, 0.8], [0.9, 0.9]]
GAINS = np.array([0.85 - 0.55, 0.8 - 0.65, 0.9 - 0.5])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    rows = [
        *runs("random", RANDOM),
        *runs("mtt", MTT),
        *runs("datm", MTT, label_regime="soft"),
        *runs("mtt", [[0.1, 0.1]] * 3, tuned=True),
        *runs("mtt", [[0.2, 0.2]] * 3, protocol="dc-v1"),
        *runs("whole", [[0.99]], ipc=0),
    ]
    write_table(rows, folder / "evaluations.parquet", EVALUATIONS, {})
    looks = [
        traced(k, statistic(), statistic(1, name="conv.weight", mean=m, low_share=0.6), seed=s)
        for s, m in ((0, 0.5), (1, 1.5))
        for k in (0, 10)
    ]
    write_table(weights_of(table_of(looks, TRACE_FILE)), folder / "weights.parquet", WEIGHTS, {})
    return folder


def answer(tool: str, results: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"results": results}
    exec(SNIPPETS[tool], names)
    return names


@pytest.mark.parametrize(
    ("tool", "module"), [("pandas", "pandas"), ("polars", "polars"), ("DuckDB", "duckdb")]
)
def test_how_far_methods_are_above_random(tool: str, module: str, results: Path) -> None:
    pytest.importorskip(module)
    found = answer(tool, results)["answer"]
    if tool == "pandas":
        rows = found.to_dict("records")
    else:
        rows = found.to_dicts() if tool == "polars" else found.fetchdf().to_dict("records")
    by_method = {(row["method"], row["label_regime"]): row for row in rows}
    assert set(by_method) == {("mtt", "hard"), ("datm", "soft"), ("random", "hard")}
    for key in (("mtt", "hard"), ("datm", "soft")):
        assert by_method[key]["mean"] == pytest.approx(GAINS.mean())
        assert (
            by_method[key]["std"] == pytest.approx(GAINS.std(ddof=1))
            and by_method[key]["count"] == 3
        )
    assert by_method["random", "hard"]["mean"] == pytest.approx(0)


def test_weights_layer_by_layer(results: Path) -> None:
    names = answer("What IADD found important", results)
    assert names["mean"].loc[(1, "conv.weight")].to_dict() == {0: 1.0, 10: 1.0}
    assert names["collapsed"].to_dict() == {("iadd", 1, 0): 0, ("iadd", 1, 1): 0}


def test_the_page_names_every_table() -> None:
    from iadd.pipeline.workflow import TABLES

    assert set(re.findall(r"`(\w+)\.parquet`", PAGE.read_text())) == set(TABLES)
