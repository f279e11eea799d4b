"""Configuration: bad keys and values are refused in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from iadd.pipeline.config import Config, load_config, parse_config
from iadd.pipeline.plan import Plan

SHIPPED = sorted((Path(__file__).parent.parent / "config").glob("*.yaml"))


def plain(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "benchmark": "b",
        "ipc": [1, 2],
        "datasets": [{"name": "blobs"}],
        "network": "mlp",
        "evaluations": [{"networks": {"mlp": 1}}],
        "methods": {
            "random": None,
            "mtt": {"params": {"max_start": 3}, "ipc": {2: {"max_start": 7}}},
        },
    }
    return base | changes


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    plan = Plan(load_config(path))
    assert list(plan.runs())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": 3}, "x.yaml: unknown key 'sedes'; allowed: benchmark, seed"),
        ({"methods": {"mtx": None}}, "unknown method 'mtx'; known: dc"),
        ({"methods": {"mtt": {"params": {"lr_image": 1}}}}, "methods.mtt: unknown key 'lr_image'"),
        (
            {"methods": {"mtt": {"params": {"lr_img": -1}}}},
            r"lr_img: .*greater than 0 \(given: -1\)",
        ),
        ({"datasets": [{"name": "digitz"}]}, "unknown data set 'digitz'; known: digits"),
        ({"datasets": [{"name": "blobs"}, {"name": "blobs"}]}, "not distinct"),
        ({"network": "convmet"}, "network: unknown network 'convmet'"),
        ({"evaluations": [{"networks": {"mlq": 1}}]}, "unknown network 'mlq'"),
        ({"evaluations": [{"protocol": "p", "networks": {"mlp": 1}}]}, "unknown protocol 'p'"),
        ({"ipc": [0]}, "ipc .0.: allowed are distinct numbers from 1 on"),
        ({"ipc": []}, "ipc"),
        ({"experts": {"recipe": {"dtype": "int8"}}}, "experts.recipe.dtype"),
        ({"datasets": [{"name": "blobs", "augmentation": ["mirror"]}]}, "unknown family 'mirror'"),
    ],
)
def test_bad_values_name_the_key_and_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_config(plain(**changes), "x.yaml")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match=r"a\.yaml: is no YAML"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1")
    with pytest.raises(ValueError, match=r"b\.yaml: must be a mapping"):
        load_config(tmp_path / "b.yaml")
    with pytest.raises(ValueError, match=r"c\.yaml: cannot be read \(No such file"):
        load_config(tmp_path / "c.yaml")


def test_anchors_may_live_under_dotted_keys() -> None:
    text = yaml.safe_load(".shared: &s {max_start: 4}\nmethods: {mtt: {params: *s}}")
    config = parse_config(plain() | text, "x")
    assert isinstance(config, Config)
    assert config.params("mtt", 1).model_dump()["max_start"] == 4


def test_the_reference_page_is_in_step_with_the_code() -> None:
    from iadd.pipeline.config_docs import render

    page = Path(__file__).parent.parent / "config" / "README.md"
    assert page.read_text() == render(), (
        "run: python -m iadd.pipeline.config_docs > config/README.md"
    )
