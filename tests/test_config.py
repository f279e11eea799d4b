"""Configuration: bad keys and values are refused in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from iadd.pipeline.config import Config, load_config, parse_config, refuse_shell
from iadd.pipeline.config.file import read_yaml
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
        ({"controls": {"mtt": ["mtx"]}}, "controls: mtx is none of the ranked entries: mtt, r"),
        ({"controls": {"mtt": ["mtt"]}}, r"controls.mtt: \['mtt'\]: allowed are other entries"),
        ({"controls": {"mtt": []}}, r"controls.mtt: \[\]: allowed are other entries"),
        ({"methods": {"mtx": None}}, "unknown method 'mtx'; known: att"),
        ({"methods": {"mtt": {"params": {"lr_image": 1}}}}, "methods.mtt: unknown key 'lr_image'"),
        (
            {"methods": {"mtt": {"params": {"lr_img": -1}}}},
            r"lr_img: must be above 0 \(given: -1\)",
        ),
        ({"datasets": [{"name": "digitz"}]}, "unknown data set 'digitz'; known: digits"),
        ({"datasets": [{"name": "blobs"}, {"name": "blobs"}]}, "not distinct"),
        ({"network": "convmet"}, "network: unknown network 'convmet'"),
        ({"evaluations": [{"networks": {"mlq": 1}}]}, "unknown network 'mlq'"),
        ({"evaluations": [{"protocol": "p", "networks": {"mlp": 1}}]}, "unknown protocol 'p'"),
        ({"ipc": [0]}, "ipc .0.: allowed are distinct numbers from 1 on"),
        ({"ipc": []}, r"x.yaml: ipc: must not be empty \(given: \[\]\)"),
        ({"methods": {}}, r"x.yaml: methods: must not be empty \(given: {}\)"),
        ({"seeds": 0}, r"x.yaml: seeds: must be at least 1 \(given: 0\)"),
        ({"seeds": "three"}, r"x.yaml: seeds: must be a whole number \(given: 'three'\)"),
        ({"seeds": 1.5}, r"x.yaml: seeds: must be a whole number \(given: 1.5\)"),
        ({"precision": "half"}, "precision: must be 'float32', 'tf32' or 'bf16' .given: 'half'"),
        ({"datasets": [{"name": "blobs", "zca": "maybe"}]}, "zca: must be true or false"),
        (
            {"datasets": [{"name": "blobs", "validation_fraction": 0.6}]},
            "datasets.0.validation_fraction: must be at most 0.5",
        ),
        ({"evaluations": [{}]}, "x.yaml: evaluations.0.networks: is missing"),
        (
            {"datasets": [{"name": "folder", "label": "xrays"}]},
            "x.yaml: datasets.0: xrays: needs root, the folder that holds the data",
        ),
        ({"ipc": 1}, r"x.yaml: ipc: must be a list in brackets, even of one \(given: 1\)"),
        ({"validation": 3}, r"validation: must be a mapping"),
        ({"validation": {"protocol": "p"}}, "validation.protocol: unknown protocol 'p'"),
        ({"benchmark": ".."}, "benchmark: must be letters"),
        ({"benchmark": "a/b"}, "benchmark: must be letters"),
        ({"datasets": [{"name": "blobs", "label": "."}]}, "label: must be letters"),
        ({"methods": {"mtt": {"params": {"lr_img": 1e39}}}}, "lr_img: 1e.39 is no float32 number"),
        (
            {"search": {"methods": ["mtt"], "points": {"mtt": [{"lr_img": "30"}]}}},
            "search.points.mtt: lr_img: '30' is text",
        ),
        ({"experts": {"recipe": {"dtype": "int8"}}}, "experts.recipe.dtype"),
        ({"datasets": [{"name": "blobs", "augmentation": ["mirror"]}]}, "unknown family 'mirror'"),
        ({"seeds": True}, r"x.yaml: seeds: must be a number .given: true"),
        ({"ipc": [True]}, r"x.yaml: ipc: must be a number .given: true"),
        ({"evaluations": [{"networks": {"mlp": True}}]}, r"networks.mlp: must be a number"),
        ({"experts": {"recipe": {"momentum": False}}}, r"recipe.momentum: must be a number"),
        ({"experts": {"recipes": {"flat": {"rho": True}}}}, r"recipes.flat.rho: must be a number"),
        ({"methods": {"mtt": {"params": {"clip": True}}}}, r"methods.mtt.clip: must be a number"),
        (
            {"methods": {"a": {"method": "mtx"}}},
            "methods.a.method: mtx: unknown method; known: att",
        ),
        ({"methods": {"../a": {"method": "mtt"}}}, "methods: name '../a' must be letters, digits"),
        ({"methods": {"dm": {"method": "mtt"}}}, "methods.dm.method: mtt: dm is a method itself"),
        ({"methods": {"a": {"method": "whole"}}}, "methods.a.method: whole: has no parameters"),
        (
            {"methods": {"a": {"method": "mtt", "params": {"lr_image": 1}}}},
            "methods.a: unknown key 'lr_image'; allowed: iterations",
        ),
    ],
)
def test_bad_values_name_the_key_and_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_config(plain(**changes), "x.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is no readable YAML"),
        (b"a:\n\t- b", r"is no readable YAML .line 2: .*; indent with spaces, not tabs.$"),
        (b"a: [b\nc: 3", r"is no readable YAML .line 2: expected ',' or ']', but got ':'.$"),
        (b"- 1", "must be a mapping"),
        (b"", "must be a mapping"),
        (b"# r\xe9sum\xe9", "line 1 is not UTF-8"),
        (b"seeds: 3\nipc: [1]\nseeds: 5", "line 3: key 'seeds' is given twice"),
        (b"methods:\n  dm: {}\n  dm: {}", "line 3: key 'dm' is given twice"),
        (b"{[1]: 2}", "line 1: a key must be a word"),
        (b"a: &a [1, *a]", "contains itself by an alias"),
        (b"[" * 5000, "is nested too deeply"),
        (
            b"k0: &k0 [x]\n"
            + b"".join(b"k%d: &k%d [%s]\n" % (k, k, b"*k%d, " % (k - 1) * 9) for k in range(1, 9)),
            "its aliases unfold to more than 100000 values",
        ),
    ],
)  # fmt: skip
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.yaml: .*{message}") as caught:
        load_config(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["c$(touch x).yaml", "`x`.yaml", 'a"b.yaml', "a'b.yaml", "a\\b", "{x}", "a\nb", "-x.yaml"],
)
def test_a_path_that_a_shell_would_read_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="which jobs' commands cannot name; rename it"):
        refuse_shell(name)


def test_other_paths_may_be_called_anything() -> None:
    for name in ("config/my set (2).yaml", "../ü/a&b;c.yaml", "~/a #1.yaml"):
        refuse_shell(name)


def test_a_file_of_endless_length_or_of_huge_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: 1\n" * 100_000)
    with pytest.raises(ValueError, match=r"c\.yaml: is larger than 262,144 bytes"):
        load_config(path)
    with pytest.raises(ValueError, match=r"seed: .* has more than 64 bits"):
        parse_config(plain(seed=10**400), "c.yaml")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"c\.yaml: cannot be read \(no such file"):
        load_config("c.yaml")


def test_plain_words_are_read_as_yaml_1_2_has_them(tmp_path: Path) -> None:
    words = (
        "off: on\nno: yes\nx: [1e-3, 1.0e+2, .5, 010, 0x1f, true, False, ~, 2026-01-01, 1:30, -7]"
    )
    (tmp_path / "w.yaml").write_text(words)
    assert read_yaml(tmp_path / "w.yaml") == {
        "off": "on",
        "no": "yes",
        "x": [1e-3, 100.0, 0.5, 10, 31, True, False, None, "2026-01-01", "1:30", -7],
    }


def test_one_method_with_several_settings() -> None:
    entries = {"iadd": None, "iadd-R1": {"method": "iadd", "params": {"reading": "R1"}}}
    config = parse_config(plain(methods=entries), "x")
    assert [config.params(name, 1).model_dump()["reading"] for name in entries] == ["R2", "R1"]
    assert [config.kind(name).reconstruction for name in entries] == [True, True]


def test_a_section_of_comments_has_its_defaults() -> None:
    config = parse_config(plain(search=None, validation=None), "x")
    assert config.search.methods == () and config.validation.networks == 2


def test_anchors_may_live_under_dotted_keys() -> None:
    text = yaml.safe_load(".shared: &s {max_start: 4}\nmethods: {mtt: {params: *s}}")
    config = parse_config(plain() | text, "x")
    assert isinstance(config, Config)
    assert config.params("mtt", 1).model_dump()["max_start"] == 4


def test_the_reference_page_tells_values_and_its_example_is_a_benchmark() -> None:
    from iadd.pipeline.config.docs import render

    page = render()
    config = parse_config(yaml.safe_load(page.split("```yaml\n")[1].split("```")[0]), "example")
    assert config.given("mtt", 10) == {
        "lr_img": 30, "clip": 1.0, "iterations": 120, "max_start": 20
    }  # fmt: skip
    assert len(config.points("mtt", 1)) == 3 and "lr_lr" not in config.space("mtt", 1)
    assert "None |" not in page, "a key has no description"
    for row in (
        "| `init` | `real`, `noise` | `real` |",
        "| `searcher` | `tpe`, `random` | `tpe` |",
        "| `validation_fraction` | number above 0, up to 0.5 | `null` |",
        "| `momentum` | number from 0, below 1 | `0.5` |",
        "| `ema` | number from 0, below 1, or `null` | `0.9999` |",
        "| `download` | `true` or `false` | `false` |",
        "| `ipc` | list: whole number | **required** |",
    ):
        assert row in page


def test_the_reference_page_is_in_step_with_the_code() -> None:
    from iadd.pipeline.config.docs import render

    page = Path(__file__).parent.parent / "config" / "README.md"
    assert page.read_text() == render(), (
        "run: python -m iadd.pipeline.config.docs > config/README.md"
    )
