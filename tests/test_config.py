"""Configuration: bad keys and values refused in one line; the plan's files, specs, reruns."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from iadd.pipeline.config import Config, load_config, parse_config
from iadd.pipeline.plan import Plan, source_of

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


def plan(**changes: Any) -> Plan:
    return Plan(parse_config(plain(**changes), "x"))


def test_expert_epochs_are_those_that_can_be_reached() -> None:
    assert plan().expert_epochs == 7 - 1 + 2
    assert plan(methods={"random": None}).expert_epochs == 0


def test_shards_share_the_experts_out() -> None:
    p = plan(experts={"count": 7, "per_shard": 3})
    assert len(p.shards("blobs")) == 3
    assert [list(p.shard_experts(k)) for k in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_only_what_depends_on_a_change_changes() -> None:
    before = plan()
    after = plan(methods={"random": None, "mtt": {"params": {"max_start": 7, "lr_img": 5}}})
    run = ("blobs", "mtt", 2, 0)
    assert before.distill_spec(*run) != after.distill_spec(*run)
    other = ("blobs", "random", 2, 0)
    assert before.distill_spec(*other) == after.distill_spec(*other)
    assert before.experts_spec("blobs") == after.experts_spec("blobs")
    judged = plan(evaluations=[{"networks": {"mlp": 2}}])
    assert before.distill_spec(*run) == judged.distill_spec(*run)
    assert before.evaluation_spec("blobs") != judged.evaluation_spec("blobs")


def test_source_of_a_method_covers_its_own_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from iadd.pipeline import plan as room

    copy = tmp_path / "iadd"
    shutil.copytree(room.PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    monkeypatch.setattr(room, "PACKAGE", copy)
    before = {m: source_of("methods", m) for m in ("mtt", "random")}
    with (copy / "methods" / "mtt.py").open("a") as file:
        file.write("# edited\n")
    assert source_of("methods", "mtt") != before["mtt"]
    assert source_of("methods", "random") == before["random"]
    with (copy / "train.py").open("a") as file:
        file.write("# edited\n")
    assert source_of("methods", "random") != before["random"]


def test_source_of_what_is_computed_covers_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "iadd.pipeline.plan.PACKAGE", tmp_path / "iadd"
    )  # installed: no kernels beside it
    kernel = tmp_path / "csrc" / "kernel.h"
    stages = ("experts", "methods", "evaluate", "tables")
    found = [[source_of(stage) for stage in stages]]
    kernel.parent.mkdir()
    for text in ("first", "second"):
        kernel.write_text(text)
        found.append([source_of(stage) for stage in stages])
    *computed, tables = zip(*found, strict=True)
    assert all(len(set(hashes)) == 3 for hashes in computed)
    assert len(set(tables)) == 1


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
