"""What a set gives away, where the truth is known: real images are found, noise betrays nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from iadd import privacy
from iadd.data import Dataset, Transform, load_dataset
from iadd.evaluation import Validation
from iadd.leaderboard.exposure import PRIVACY, PrivacyRow, auc, true_positives
from iadd.leaderboard.results import read_rows, read_table
from iadd.networks import Network, build_network
from iadd.pipeline.config import load_config
from iadd.pipeline.forecast import Forecast
from iadd.pipeline.plan import Plan, Run
from iadd.pipeline.privacy_plan import privacy_spec
from iadd.pipeline.workflow import Jobs
from iadd.privacy.attack import log_odds
from iadd.privacy.nearest import nearest
from iadd.privacy.pairs import closest
from iadd.seeds import Seeds, generator_for
from iadd.synthetic import SyntheticSet

TRAINING = Validation("mtt-v1-noaug", 1, 200, 0.05)
SEEDS = Seeds(("test",))
Iadd = Callable[..., tuple[int, str, str]]


@cache
def digits() -> tuple[Dataset, Network, privacy.Yardstick]:
    data = load_dataset("digits", validation_fraction=0.3)
    network = build_network("convnet-d2-w16", 1, 8, 10)
    settings = privacy.Settings(TRAINING, shadows=16, feature_epochs=5)
    return data, network, privacy.make_yardstick(data, network, 10, settings, SEEDS)


def set_of(images: torch.Tensor, data: Dataset) -> SyntheticSet:
    labels = torch.arange(10).repeat_interleave(len(images) // 10)
    return SyntheticSet(images, labels, data.transform, data.class_names)


def chosen_rows(data: Dataset, ipc: int = 10) -> torch.Tensor:
    return torch.cat([rows[:ipc] for rows in data.class_rows])


def scores(distilled: SyntheticSet, seeds: Seeds, networks: int = 2) -> Any:
    data, network, ruler = digits()
    found = privacy.scores(distilled, data, network, ruler.unseen, networks, TRAINING, seeds)
    return found[: len(data.train)].numpy(), found[len(data.train) :].numpy()


def test_the_real_images_of_a_set_are_found_and_no_others() -> None:
    data, network, ruler = digits()
    rows = chosen_rows(data)
    distilled = set_of(data.train.images[rows], data)
    pixels = privacy.nearest_pixels(distilled.images, data)
    assert privacy.copies(pixels).tolist() == sorted(rows.tolist())
    features = privacy.nearest_features(distilled.images, data, network, ruler.features)
    assert features.rows.tolist() == rows.tolist() and float(features.distances.max()) == 0
    members, others = scores(distilled, SEEDS)
    chosen = members[rows.numpy()]
    assert auc(chosen, others).low > 0.65 and true_positives(chosen, others).value > 0.05
    rest = torch.ones(len(data.train), dtype=torch.bool)
    rest[rows] = False
    found = auc(members[rest.numpy()], others)
    assert found.low < 0.5 < found.high  # those that were left out look like those held out


def test_noise_betrays_nobody() -> None:
    data, _, ruler = digits()
    wrong = 0
    for k in range(12):
        noise = torch.randn(100, 1, 8, 8, generator=generator_for("noise", k))
        members, others = scores(set_of(noise, data), Seeds(("noise", k)), networks=1)
        found, hits = auc(members, others), true_positives(members, others)
        wrong += not found.low <= 0.5 <= found.high
        assert hits.low <= 0.01
    assert wrong <= 2  # about one in twenty is what the intervals allow
    pixels = privacy.nearest_pixels(noise, data)
    assert not len(privacy.copies(pixels))
    assert float(pixels.distances.min()) > float(ruler.held_out_pixel.median())


def test_a_set_in_another_transform_is_asked_in_its_own_words() -> None:
    data, network, ruler = digits()
    rows = chosen_rows(data)
    own = set_of(data.train.images[rows], data)
    plain = replace(own, images=data.transform.invert(own.images), transform=Transform())
    pixels = privacy.nearest_pixels(plain.images, data, plain.transform)
    assert privacy.copies(pixels).tolist() == sorted(rows.tolist())
    features = privacy.nearest_features(
        plain.images, data, network, ruler.features, plain.transform
    )
    assert features.rows.tolist() == rows.tolist()
    members, others = scores(plain, SEEDS)
    assert auc(members[rows.numpy()], others).low > 0.65


def test_the_yardstick_treats_training_and_held_out_images_alike() -> None:
    data, network, ruler = digits()
    held_out = data.validation
    assert len(ruler.unseen) == len(data.train) + len(held_out)
    assert bool(ruler.unseen.isfinite().all())
    for near in (ruler.held_out_pixel, ruler.held_out_feature):
        assert len(near) == len(held_out) and float(near.min()) > 0
    again = privacy.nearest_pixels(held_out.images, data).distances
    assert torch.equal(again, ruler.held_out_pixel)
    empty = replace(data, validation=type(held_out)(held_out.images[:0], held_out.labels[:0]))
    settings = privacy.Settings(TRAINING)
    with pytest.raises(ValueError, match="needs validation images, of which digits has none"):
        privacy.make_yardstick(empty, network, 1, settings, SEEDS)


def test_shadows_of_a_pair_share_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from iadd.privacy import attack

    data, network, _ = digits()
    drawn: list[torch.Tensor] = []

    def kept(dataset: Dataset, rows: torch.Tensor) -> torch.Tensor:
        drawn.append(rows)
        return dataset.train.images[:1]

    monkeypatch.setattr(attack, "pick", kept)
    monkeypatch.setattr(attack, "fresh", lambda *_: (torch.zeros(1), None))
    size = len(data.train) + len(data.validation)
    monkeypatch.setattr(attack, "real_odds", lambda *_: torch.full((size,), float(len(drawn))))
    unseen = attack.calibration(data, network, 500, 4, TRAINING, SEEDS)
    for one, other in ((0, 1), (2, 3)):
        assert not set(drawn[one].tolist()) & set(drawn[other].tolist())
    answers = [float(k) for k in range(1, 5)]
    row = int(drawn[0][0])
    expected = [a for a, rows in zip(answers, drawn, strict=True) if row not in rows.tolist()]
    assert 1.0 not in expected and float(unseen[row]) == pytest.approx(
        sum(expected) / len(expected)
    )


def test_log_odds_are_those_of_the_softmax() -> None:
    data, network, _ = digits()
    params = network.init(generator_for("odds"))
    found = log_odds(network, (params, None), data.validation)
    p = network.apply(params, data.validation.images).double().softmax(1)
    own = p.gather(1, data.validation.labels[:, None])[:, 0]
    assert torch.allclose(found, (own / (1 - own)).log(), atol=1e-5)
    assert not log_odds(network, (params * torch.nan, None), data.validation).any()


def test_nearest_is_the_nearest_however_the_references_are_cut() -> None:
    generator = generator_for("nearest")
    images, references = (torch.randn(n, 7, generator=generator) for n in (40, 90))
    references[33] = images[5]
    distances = (images[:, None].double() - references.double()).norm(dim=2)
    for size in (90, 32, 1):
        found = nearest(images, references.split(size))
        assert found.rows.tolist() == distances.argmin(1).tolist()
        assert torch.allclose(found.distances.double(), distances.min(1).values, atol=1e-5)
    assert found.distances[5] == 0
    assert closest([torch.tensor([3.0, 0, 1]), torch.tensor([1.0, 0, 2])], 2).tolist() == [1, 0]


CONFIG: dict[str, Any] = {
    "benchmark": "b",
    "seeds": 1,
    "ipc": [2],
    "datasets": [{"name": "blobs"}],
    "network": "mlp-w8",
    "evaluations": [{"networks": {"mlp-w8": 1}, "epochs": 2}],
    "methods": {"random": None, "herding": {"params": {"epochs": 1}}},
    "privacy": {"networks": 1, "epochs": 3, "shadows": 2, "feature_epochs": 1, "pictures": 2},
}


def write(**changes: Any) -> str:
    left = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    Path("c.yaml").write_text(yaml.safe_dump(left))
    return "c.yaml"


def test_the_report_is_a_stage_of_the_pipeline(iadd: Iadd) -> None:
    config = write()
    assert iadd("data", config)[0] == 0
    runs = [("--method", name, "--ipc", "2") for name in ("random", "herding")]
    status, _, error = iadd("privacy", config, *runs[0])
    assert status == 2 and "ipc2.safetensors" in error and error.count("\n") == 1
    assert iadd("privacy", config, "--ipc", "2")[0] == 0
    for run in runs:
        for stage in ("distill", "evaluate", "privacy"):
            assert iadd(stage, config, *run)[0] == 0
    assert iadd("collect", config)[0] == 0
    assert "near: pixels %" in iadd("show", config, "--privacy")[1]
    rows = read_rows(Path("results/b/privacy.parquet"), PrivacyRow)
    assert [row.method for row in rows] == ["herding", "random"]
    assert all(row.copies == len(row.pixel_row) == 8 for row in rows)  # real images, chosen
    assert all(row.chosen_auc is not None and 0 <= row.data_auc <= 1 for row in rows)
    picture = Path("results/b/privacy/blobs/random/ipc2/seed0.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert "left" in iadd("plan", config)[1]
    plan = Plan(load_config(config))
    forecast = Forecast(plan)
    stages = {row.stage: row for row in forecast.rows}
    assert stages["yardstick"].jobs == 1 and stages["privacy"].jobs == 2
    assert stages["privacy"].seconds > 0 and forecast.seconds_of(
        "yardstick", {"dataset": "blobs", "ipc": "2"}
    ) == pytest.approx(stages["yardstick"].seconds)
    for words, message in (
        (("--ipc", "3"), "ipc 3 is not in this benchmark for blobs: 2"),
        (("--ipc", "2", "--method", "random", "--seed", "1"), "seed 1: allowed are 0..0"),
        (("--ipc", "2", "--method", "mtt"), "'mtt' is not in this benchmark"),
    ):
        status, _, error = iadd("privacy", config, *words)
        assert status == 2 and message in error and error.count("\n") == 1


def test_the_graph_has_its_jobs_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = Jobs([write()], {})
    wildcards = SimpleNamespace(dataset="blobs", method="random", ipc="2", seed="0", tuned="")
    assert jobs.plan.paths(Run("blobs", "random", 2, 0)).privacy in jobs.privacy(None)
    paths = jobs.plan.paths(Run("blobs", "random", 2, 0))
    Path(paths.privacy).parent.mkdir(parents=True)
    Path(paths.privacy).touch()
    assert {paths.evaluation, paths.pairs} < set(jobs.everything(None)) - {paths.privacy}
    assert str(jobs.yardstick(wildcards)).endswith("privacy/blobs/ipc2.safetensors")
    before = jobs.yardstick_spec(wildcards), jobs.privacy_spec(wildcards)
    other = Jobs([write(privacy=CONFIG["privacy"] | {"networks": 3, "pictures": 0})], {})
    assert other.yardstick_spec(wildcards) == before[0]
    assert other.privacy_spec(wildcards) != before[1]
    other = Jobs([write(privacy=CONFIG["privacy"] | {"shadows": 3})], {})
    assert other.yardstick_spec(wildcards) != before[0]
    without = Jobs([write(privacy=None)], {})
    assert not without.privacy(None) and paths.pairs not in without.everything(None)


def test_a_benchmark_without_the_section_has_an_empty_table(iadd: Iadd) -> None:
    config = write(privacy=None, methods={"random": None})
    for stage in ("distill", "evaluate"):
        assert iadd(stage, config, "--method", "random", "--ipc", "2")[0] == 0
    assert iadd("collect", config)[0] == 0
    assert not len(read_table(Path("results/b/privacy.parquet"), PRIVACY))
    status, _, error = iadd("privacy", config, "--ipc", "2")
    assert status == 2 and "put `privacy: {}` into its file" in error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"dm": None}}, "privacy: needs random in methods"),
        ({"privacy": {"shadows": 1}}, "privacy.shadows"),
        ({"privacy": {"attack": "x"}}, "unknown key 'privacy.attack'; allowed: protocol, networks"),
        ({"privacy": {"protocol": "teacher-v1"}}, "has no teacher"),
    ],
)
def test_wrong_sections_are_refused(iadd: Iadd, changes: dict[str, Any], message: str) -> None:
    status, _, error = iadd("plan", write(**changes))
    assert status == 2 and message in error and error.count("\n") == 1, error


def test_a_report_belongs_to_its_set(iadd: Iadd) -> None:
    config = write()
    assert iadd("data", config)[0] == 0
    plan, run = Plan(load_config(config)), Run("blobs", "random", 2, 0)
    assert privacy_spec(plan, run)["spec"] == plan.spec(run)
    assert privacy_spec(plan, replace(run, seed=1)) != privacy_spec(plan, run)
