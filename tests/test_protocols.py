"""Protocols: frozen as SPEC has them, teachers, step sizes by validation, the best on test."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_tables import rank, runs, spread, table
from test_config import plain
from test_evaluation import real_set
from torch import Tensor

import iadd
from iadd.augment import Augmentation
from iadd.data import Dataset, Transform, load_dataset
from iadd.evaluation import Validation, evaluate, teacher_of
from iadd.evaluation import judge as judging
from iadd.evaluation import validation as validating
from iadd.evaluation.protocols import PROTOCOLS, Protocol
from iadd.leaderboard.site.content import main_place
from iadd.leaderboard.text import leaderboard_text, protocol_words
from iadd.networks import build_network
from iadd.pipeline.config import parse_config
from iadd.pipeline.forecast import Forecast
from iadd.pipeline.plan import Plan, Run
from iadd.seeds import Seeds, generator_for
from iadd.synthetic import SyntheticSet
from iadd.train import TrainingPlan, train

SPEC = (Path(__file__).parent.parent / "SPEC.md").read_text()


@pytest.fixture(scope="module")
def blobs() -> Dataset:
    return load_dataset("blobs")


def judge(synthetic: SyntheticSet, blobs: Dataset, protocol: str, **how: Any) -> list[Any]:
    how = {"epochs": 30, "seeds": Seeds(("judge",))} | how
    return list(evaluate(synthetic, blobs, protocol, {"mlp-w16": 2}, **how))


def accuracies(rows: list[Any]) -> list[float]:
    return [row["accuracy"] for row in rows]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mtt-v1", (1000, 256, True, 0.2, "soft")),
        ("mtt-v1-noaug", (1000, 256, False, 0.2, "soft")),
        ("mtt-best-on-test-v1", (1000, 256, True, 0.2, "soft")),
        ("dc-v1", (300, 256, False, 0.01, "soft")),
        ("datm-v1", (1000, 128, True, 0.2, "soft")),
        ("ddranking-v1", (1000, 256, True, 0.2, "hard")),
        ("teacher-v1", (1000, 256, True, 0.2, "soft+teacher")),
    ],
)
def test_protocols_are_frozen(name: str, expected: tuple[Any, ...]) -> None:
    """Rule: a protocol that has published results is never edited; SPEC has a column for each."""
    p = PROTOCOLS[name]
    plan = p.plan(0.2, p.epochs, p.batch, 0.01)
    found = (plan.epochs, plan.batch, p.augmented, plan.step_size, p.regime("soft"))
    assert found == expected
    assert plan == TrainingPlan(p.epochs, p.batch, plan.step_size, 0.9, 5e-4, (p.epochs // 2,))
    assert p.optimistic == ("best-on-test" in name), "an optimistic protocol says so in its name"
    assert f"`{name}`" in SPEC


def test_every_protocol_is_in_the_frozen_table() -> None:
    (mark,) = test_protocols_are_frozen.pytestmark  # type: ignore[attr-defined]
    assert {name for name, _ in mark.args[1]} == set(PROTOCOLS)


def test_a_protocol_with_hard_labels_takes_the_largest() -> None:
    logits = torch.tensor([[1.0, 3.0], [2.0, 0.0]])
    hard = PROTOCOLS["ddranking-v1"].targets(logits, 2)
    assert torch.equal(hard, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert torch.equal(PROTOCOLS["datm-v1"].targets(logits, 2), logits.softmax(1))


def test_step_sizes_are_chosen_on_validation_data(
    blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: DD-Ranking's five rates are compared on validation images; test is read once."""
    chosen = real_set(blobs)
    found = {}
    for name, rates in (("bad", (1e25,)), ("good", (0.05,)), ("both", (1e25, 0.05))):
        monkeypatch.setitem(PROTOCOLS, "ddranking-v1", Protocol(hard=True, rates=rates))
        found[name] = accuracies(judge(chosen, blobs, "ddranking-v1"))
    assert found["both"] == found["good"] != found["bad"]
    tests: list[int] = []
    scored = judging.score

    def counting(network: Any, params: Any, split: Any, statistics: Any = None) -> Any:
        tests.append(len(split))
        return scored(network, params, split, statistics)

    monkeypatch.setattr(judging, "score", counting)
    monkeypatch.setattr(judging, "open_test", lambda data, transform: replace_rows(blobs))
    judge(chosen, blobs, "ddranking-v1")
    assert tests.count(7) == 2  # two networks
    empty = replace(blobs, validation=replace(blobs.validation, labels=blobs.validation.labels[:0]))
    with pytest.raises(ValueError, match="ddranking-v1: chooses its step size on validation"):
        judge(chosen, empty, "ddranking-v1")
    assert len(judge(replace(chosen, step_size=0.05), empty, "ddranking-v1")) == 2


def elsewhere(chosen: SyntheticSet, blobs: Dataset) -> SyntheticSet:
    """The same images under a transform of somebody else's."""
    theirs = Transform("standard", torch.tensor([0.9]), torch.tensor([0.02]))
    images = theirs.apply(blobs.transform.invert(chosen.images))
    return replace(chosen, images=images, transform=theirs)


def test_step_sizes_are_chosen_under_the_sets_own_transform(
    blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks trained on a set see the validation images as they see the test images."""
    seen: list[Tensor] = []
    rightly = judging.choice

    def watch(network: Any, params: Any, split: Any, statistics: Any = None) -> float:
        seen.append(split.images[:])
        return rightly(network, params, split, statistics)

    monkeypatch.setattr(judging, "choice", watch)
    chosen = elsewhere(real_set(blobs), blobs)
    judge(chosen, blobs, "ddranking-v1")
    pixels = blobs.transform.invert(blobs.validation.images[:])
    tried = [images for images in seen if len(images) == len(pixels)]
    assert len(tried) == 2 * len(PROTOCOLS["ddranking-v1"].rates)
    assert all(torch.allclose(images, chosen.transform.apply(pixels)) for images in tried)


def test_a_teacher_sees_images_under_its_own_transform(blobs: Dataset) -> None:
    shown: dict[str, list[Tensor]] = {"own": [], "elsewhere": []}
    for name, chosen in (
        ("own", real_set(blobs)),
        ("elsewhere", elsewhere(real_set(blobs), blobs)),
    ):

        def told(images: Tensor, seen: list[Tensor] = shown[name]) -> Tensor:
            seen.append(images)
            return torch.full((len(images), 4), 0.25)

        bare = replace(blobs, augmentation=Augmentation(()))
        judge(chosen, bare, "teacher-v1", teacher=told, epochs=2)
    assert len(shown["own"]) == len(shown["elsewhere"]) == 4  # two networks, two epochs
    for own, other in zip(*shown.values(), strict=True):
        assert torch.allclose(own, other, atol=1e-5)


def test_the_batch_is_the_protocols_where_none_is_given(
    blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python, and in the probe, as in a benchmark."""
    chosen = real_set(blobs)
    chosen = replace(
        chosen, images=chosen.images.repeat(7, 1, 1, 1), labels=chosen.labels.repeat(7)
    )
    assert len(chosen) == 140
    in_python = [
        r["accuracy"]
        for r in iadd.evaluate(
            chosen, blobs, {"mlp-w16": 1}, protocol="datm-v1", epochs=3, progress=False
        )
    ]
    seeds = Seeds((blobs.name, 0))
    in_benchmark = judge(chosen, blobs, "datm-v1", epochs=3, batch=128, seeds=seeds)
    assert in_python == accuracies(in_benchmark)[:1]
    batches = []
    fresh = validating.train_fresh

    def watch(network: Any, images: Any, targets: Any, plan: TrainingPlan, *rest: Any) -> Any:
        batches.append(plan.batch)
        return fresh(network, images, targets, plan, *rest)

    monkeypatch.setattr(validating, "train_fresh", watch)
    network = build_network("mlp-w16", 1, 8, 4)
    for protocol in ("mtt-v1", "datm-v1"):
        how: Any = {"dataset": blobs, "network": network, "seeds": seeds}
        probe = Validation(protocol, networks=1, epochs=2)
        validating.validation_accuracy(chosen.images, chosen.labels, None, validation=probe, **how)
    assert batches == [256, 128]


def replace_rows(data: Dataset) -> Any:
    """Seven images in the place of the test split."""
    part = data.validation
    return replace(part, images=part.images[:7], labels=part.labels[:7])


def expert(blobs: Dataset) -> judging.Teacher:
    network = build_network("mlp-w16", 1, 8, blobs.classes)
    start = network.init(generator_for("teacher"))
    targets = torch.eye(4)[blobs.train.labels]
    plan = TrainingPlan(20, 32, 0.05, 0.9)
    images = blobs.train.images
    trained = train(network, start, images, targets, plan, blobs.augmentation, generator_for("t"))
    return teacher_of(network, trained, images)


def test_a_teacher_labels_what_networks_see(blobs: Dataset) -> None:
    """Rule: soft+teacher: the set's own labels have no part in it."""
    chosen, teacher = real_set(blobs), expert(blobs)
    rows = judge(chosen, blobs, "teacher-v1", teacher=teacher, step_size=0.05)
    assert {row["label_regime"] for row in rows} == {"soft+teacher"}
    wrong = replace(chosen, labels=(chosen.labels + 1) % 4)
    again = judge(wrong, blobs, "teacher-v1", teacher=teacher, step_size=0.05)
    assert accuracies(rows) == accuracies(again) and min(accuracies(rows)) > 0.6

    def says_nothing(images: Tensor) -> Tensor:
        return torch.full((len(images), 4), 0.25)

    blank = judge(chosen, blobs, "teacher-v1", teacher=says_nothing, step_size=0.05)
    assert max(accuracies(blank)) < min(accuracies(rows))
    with pytest.raises(ValueError, match="teacher-v1: needs a teacher trained on blobs"):
        judge(chosen, blobs, "teacher-v1")


def test_the_best_on_test_is_told_by_its_own_protocol(blobs: Dataset) -> None:
    """Rule: of a set's states, the rows of the one that is best on test; nothing else does so."""
    good = real_set(blobs, step_size=0.05)
    wrong = replace(good, labels=(good.labels + 1) % 4)
    alone = judge(good, blobs, "mtt-best-on-test-v1")
    assert [row["eval_seed"] for row in alone] == [0, 1]
    for states in ((wrong, good), (good, wrong)):
        kept = replace(wrong, states=states)
        assert accuracies(judge(kept, blobs, "mtt-best-on-test-v1")) == accuracies(alone)
        assert max(accuracies(judge(kept, blobs, "mtt-v1"))) < 0.4
    assert min(accuracies(alone)) > 0.6


def test_states_come_back_from_a_file(blobs: Dataset, tmp_path: Path) -> None:
    one = real_set(blobs, step_size=0.05)
    other = replace(one, images=2 * one.images, step_size=None)
    replace(one, states=(other, one)).save(tmp_path / "set.safetensors")
    found = SyntheticSet.load(tmp_path / "set.safetensors")
    assert [state.step_size for state in found.states] == [None, 0.05]
    assert torch.equal(found.states[0].images, other.images) and not found.states[0].states
    assert torch.equal(found.images, one.images) and found.image_bytes == one.image_bytes


# In a benchmark.


def planned(*protocols: str, **changes: Any) -> Plan:
    evaluations = [{"protocol": name, "networks": {"mlp": 1}} for name in protocols]
    return Plan(parse_config(plain(evaluations=evaluations, **changes), "x"))


def test_what_a_benchmark_leaves_out_is_the_protocols() -> None:
    found = planned("mtt-v1", "dc-v1", "datm-v1").config.evaluations
    assert [(e.epochs, e.batch) for e in found] == [(1000, 256), (300, 256), (1000, 128)]
    evaluations = [{"protocol": "dc-v1", "networks": {"mlp": 1}, "epochs": 7, "batch": 9}]
    (given,) = parse_config(plain(evaluations=evaluations), "x").evaluations
    assert (given.epochs, given.batch) == (7, 9)
    for name in ("teacher-v1", "mtt-best-on-test-v1"):
        with pytest.raises(ValueError, match="has no teacher and never sees test data"):
            parse_config(plain(validation={"protocol": name}), "x")


def test_only_protocols_with_a_teacher_read_experts() -> None:
    p, without = planned("mtt-v1", "teacher-v1"), planned("mtt-v1")
    assert without.teachers("blobs") == [] and without.evaluation_job_spec()["teachers"] == {}
    assert p.teachers("blobs") == p.shards("blobs", "standard")[:1]
    assert p.expert_epochs("standard") == 50 and p.recipes == ["standard"]
    assert p.evaluation_job_spec()["teachers"]["standard"]["epochs"] == 50


def test_states_are_kept_where_a_protocol_chooses_among_them() -> None:
    """Rule: what is stored is part of what a run is."""
    iterative, selected = Run("blobs", "mtt", 2, 0), Run("blobs", "random", 2, 0)
    p = planned("mtt-v1", "mtt-best-on-test-v1")
    assert p.job_spec(iterative)["states"] == "all" and "states" not in p.job_spec(selected)
    assert "states" not in planned("mtt-v1").job_spec(iterative)


def test_an_optimistic_protocol_says_so_and_never_comes_first() -> None:
    """Rule: wherever its rows are shown; a page begins with an honest protocol."""
    assert protocol_words("mtt-v1") == "mtt-v1"
    both = [*runs("mtt", spread(0.6)), *runs("mtt", spread(0.7), protocol="mtt-best-on-test-v1")]
    board = rank(table(both))
    assert main_place(board, ["convnet"]) == ("convnet", "mtt-v1")
    assert "protocol mtt-best-on-test-v1 (optimistic" in " ".join(leaderboard_text(board).split())


def test_choosing_among_states_costs_as_many_evaluations() -> None:
    seconds = {}
    for name in ("mtt-v1", "mtt-best-on-test-v1"):
        mtt = {"mtt": {"params": {"validations": 7}}, "random": None}
        forecast = Forecast(planned(name, methods=mtt))
        forecast._rate = lambda *_: 1e-3  # type: ignore[method-assign]
        seconds[name] = [forecast.evaluate_seconds("blobs", m, 1) for m in ("mtt", "random")]
    honest, optimistic = seconds["mtt-v1"], seconds["mtt-best-on-test-v1"]
    assert optimistic == pytest.approx([7 * honest[0], honest[1]])


def test_all_regimes_reach_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: a teacher comes from the benchmark's own experts, states from the distilled file."""
    from iadd.leaderboard.results import read_table
    from iadd.leaderboard.rows import EVALUATIONS
    from iadd.pipeline import stages

    monkeypatch.chdir(tmp_path)
    names = ("mtt-v1", "teacher-v1", "ddranking-v1", "mtt-best-on-test-v1")
    evaluations = [
        {"protocol": name, "networks": {"mlp-w16": 1}, "epochs": 9, "teacher_epoch": 4}
        for name in names
    ]
    mtt = {"iterations": 4, "validations": 2, "unrolled_steps": 2, "max_start": 2}
    settings = plain(
        evaluations=evaluations,
        methods={"softlabel": {"params": {"expert_epoch": 3}}, "mtt": {"params": mtt}},
        experts={"count": 2, "per_shard": 1, "recipe": {"step_size": 0.05}},
        validation={"epochs": 3, "networks": 1},
        ipc=[1],
        seeds=1,
    )
    p = Plan(parse_config(settings, "x"))
    stages.prepare(p, "blobs")
    for shard in range(2):
        stages.record(p, "blobs", shard)
    regimes = {}
    for method in ("softlabel", "mtt"):
        run = Run("blobs", method, 1, 0)
        stages.distill(p, run)
        stages.evaluate(p, run)
        rows = read_table(p.paths(run).evaluation, EVALUATIONS)
        regimes[method] = dict(zip(rows["protocol"], rows["label_regime"], strict=True))
    assert regimes["softlabel"] == dict(
        zip(names, ("soft", "soft+teacher", "hard", "soft"), strict=True)
    )
    assert regimes["mtt"] == dict(zip(names, ("hard", "soft+teacher", "hard", "hard"), strict=True))
    kept = SyntheticSet.load(p.paths(Run("blobs", "mtt", 1, 0)).distilled)
    assert len(kept.states) == 2
