"""A method with learned labels is one new file: carried from the loop to the tables."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from method_cases import SEEDS, make, small_problem
from test_loop import brightness, interrupted
from test_methods import check_contract

from iadd import methods
from iadd.api import Validation, run_distillation, synthetic_set
from iadd.augment import Augmentation
from iadd.evaluation import evaluate
from iadd.synthetic import SyntheticSet

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
PLUGIN = PAGE.split("```python\n")[1].split("```")[0]
"""The example of the contributing page, as a stranger would add it: one file."""


@pytest.fixture
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The plug-in's name, while its file is found beside the package's own methods."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "taught.py").write_text(PLUGIN)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    importlib.invalidate_caches()
    yield "taught"
    sys.modules.pop("iadd.methods.taught", None)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('label_kind = "sfot"', "label_kind is 'sfot', allowed are hard, soft"),
        ('experts = "flatt"', "experts is 'flatt', allowed are None, standard, flat, slow"),
        ('space = {"lr_imgg": ("log", 1, 2)}', "space: 'lr_imgg' is no parameter"),
        ('space = {"lr_img": ("gauss", 1, 2)}', "space: lr_img: ('gauss', 1, 2), allowed are"),
        ('space = {"lr_img": ("uniform", 3, 1)}', "space: lr_img: ('uniform', 3, 1), allowed are"),
        ('space = {"lr_img": {"log": [1, 2]}}', "space: lr_img: {'log': [1, 2]}, allowed are"),
        ('trace_columns = ("kept",)', "trace_columns: allowed is a dictionary"),
        ("class Second(Trajectory): pass", None),
    ],
)
def test_a_slip_in_a_plug_in_is_told_as_one(taught: str, line: str, told: str | None) -> None:
    path = Path(methods.__path__[-1]) / "taught.py"
    top = told is None
    path.write_text(PLUGIN + (f"\n\n{line}\n" if top else f"\n    {line}\n"))
    with pytest.raises(ValueError) as error:
        methods.find(taught)
    expected = told or "holds Power, Second, allowed is one public Method class"
    assert str(error.value).startswith("methods/taught.py: ") and expected in str(error.value)


@pytest.fixture
def task(tmp_path: Path) -> methods.Problem:
    return small_problem(tmp_path)


def test_a_plug_in_holds_the_contract_of_every_method(taught: str, task: methods.Problem) -> None:
    result = check_contract(taught, task)
    assert result.labels.shape == (8, 4) and result.labels.dtype == torch.float32
    start = make(taught, task).initial_labels(result.images)
    assert not torch.equal(result.labels, start)  # they were learned


def test_learned_labels_get_the_exact_gradient(taught: str, task: methods.Problem) -> None:
    """By the logits, through softmax and the unrolled student, against autograd in float64."""
    plain = replace(task, dataset=replace(task.dataset, augmentation=Augmentation(())))
    method = make(taught, plain)
    variables = {
        name: variable.value
        for name, variable in method.variables(method.initial(SEEDS.generator("initial"))).items()
    }
    generator = SEEDS.generator("iteration", 0)
    found = method.gradients(0, variables, generator)
    start, target = (z.double() for z in method.draw_expert(generator))
    logits = variables["labels"].double().requires_grad_()
    images = variables["images"].double()
    student = start.clone().requires_grad_()
    for _ in range(method.params.unrolled_steps):
        loss = F.cross_entropy(task.network.apply(student, images), logits.softmax(1))
        (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
        student = student - float(variables["step_size"]) * gradient
    loss = (student - target).square().sum() / (start - target).square().sum()
    (expected,) = torch.autograd.grad(loss, logits)
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert float((found.by["labels"] - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_learned_labels_survive_a_kill(taught: str, task: methods.Problem, tmp_path: Path) -> None:
    path, spec = tmp_path / "c.safetensors", {"run": 1}
    whole = methods.distill(make(taught, task), SEEDS, methods.Hooks(brightness))
    interrupted(make(taught, task), path, 4, spec)
    hooks = methods.Hooks(brightness, checkpoint=path, identity=spec)
    resumed = methods.distill(make(taught, task), SEEDS, hooks)
    assert torch.equal(whole.labels, resumed.labels) and torch.equal(whole.images, resumed.images)


def test_learned_labels_are_validated_stored_and_judged(
    taught: str, task: methods.Problem, tmp_path: Path
) -> None:
    heard: list[float] = []
    result = run_distillation(
        task,
        taught,
        make(taught, task).params,
        SEEDS,
        Validation(networks=1, epochs=40),
        spec={"method": taught},
        report=lambda iteration, accuracy: heard.append(accuracy),
    )
    assert len(heard) == 2 and max(heard) > 0.4
    synthetic_set(task, result, {"method": taught}).save(tmp_path / "set.safetensors")
    kept = SyntheticSet.load(tmp_path / "set.safetensors")
    assert torch.equal(kept.labels, result.labels) and kept.label_kind == "soft"
    assert torch.allclose(kept.targets(), result.labels.softmax(1))
    assert kept.label_kind == "soft"
    rows: list[dict[str, Any]] = list(
        evaluate(kept, task.dataset, "mtt-v1", {"mlp-w16": 1}, epochs=40, seeds=SEEDS)
    )
    assert rows[0]["status"] == "ok" and rows[0]["accuracy"] > 0.4


# Random images with an expert's labels.


def test_softlabel_gives_the_images_of_random_an_experts_logits(task: methods.Problem) -> None:
    """Rule: seed s means the same images for `random` and `softlabel`; labels against float64."""
    found = methods.distill(make("softlabel", task, expert_epoch=2), SEEDS)
    assert torch.equal(found.images, methods.distill(make("random", task), SEEDS).images)
    assert task.experts is not None
    said = [
        task.network.apply(task.experts.snapshot(k, 2).double(), found.images.double())
        for k in range(task.experts.count)
    ]
    apart = [float((found.labels - logits).abs().max()) for logits in said]
    assert min(apart) < 1e-5 < max(apart)  # those of one expert
    later = methods.distill(make("softlabel", task, expert_epoch=5), SEEDS)
    assert torch.equal(found.images, later.images) and not torch.equal(found.labels, later.labels)
    kept = synthetic_set(task, later, {"method": "softlabel"})
    assert kept.label_kind == "soft" and kept.step_size is None
    how: dict[str, Any] = {"epochs": 200, "step_size": 0.1, "seeds": SEEDS}
    rows = list(evaluate(kept, task.dataset, "mtt-v1", {"mlp-w16": 1}, **how))
    assert rows[0]["status"] == "ok" and rows[0]["accuracy"] > 0.4


def test_a_plug_in_is_found_by_plan_tables_and_rows(
    taught: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: label regime and columns reach the rows without another edit."""
    from iadd.leaderboard.results import read_table
    from iadd.leaderboard.rows import EVALUATIONS, TRACES
    from iadd.pipeline import stages

    monkeypatch.chdir(tmp_path)
    smoke = (Path(__file__).parent.parent / "config" / "smoke.yaml").read_text()
    Path("c.yaml").write_text(smoke.replace("  mtt:\n", f"  {taught}:\n"))
    plan, key = stages.open_plan(Path("c.yaml"))
    (run,) = (run for run in plan.runs() if run.method == taught and run.seed == 0)
    stages.prepare(plan, key)
    for shard in range(len(plan.needs(key, taught))):
        stages.record(plan, key, shard)
    stages.distill(plan, run)
    stages.evaluate(plan, run)
    rows = read_table(plan.paths(run).evaluation, EVALUATIONS)
    assert set(rows["label_regime"]) == {"soft"} and set(rows["method"]) == {taught}
    trace = read_table(plan.paths(run).trace, TRACES)
    assert len(trace) == 21
