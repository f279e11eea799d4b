"""The loop's promises: only sound states are kept, a kill changes nothing, time is told apart."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from method_cases import SEEDS, make, small_problem
from torch import Tensor

from iadd import methods
from iadd.api import Validation, run_distillation
from iadd.artifacts import load_tensors, save_tensors
from iadd.data import load_dataset
from iadd.methods import Gradients, Hooks, Skip, Variable
from iadd.methods._loop import EXPLOSION_FACTOR, MAX_ROLLBACKS, SOUND_ITERATIONS
from iadd.methods._variables import LARGEST_STEP_SIZE_MOVE, PositiveSGD
from iadd.networks import build_network
from iadd.seeds import Seeds


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> methods.Problem:
    return small_problem(tmp_path_factory.mktemp("experts"))


def brightness(images: Tensor, labels: Tensor, step_size: float | None) -> float:
    return 1 / (1 + float(images.square().mean()))


# Rollback.


class ExplodingAt:
    """SGD whose learning rate is 1e6 in one update: a real explosion."""

    def __init__(self, position: int) -> None:
        self.position, self.count = position, 0

    def update(self, value: Tensor, gradient: Tensor, memory: dict[str, Tensor]) -> None:
        lr = 1e6 if self.count == self.position else 5.0
        self.count += 1
        value.sub_(gradient, alpha=lr)


def exploding(task: methods.Problem, position: int, **changes: Any) -> Any:
    method = make("mtt", task, clip=None, **changes)
    variables = method.variables

    def with_explosion(images: Tensor) -> dict[str, Variable]:
        return variables(images) | {"images": Variable(images, ExplodingAt(position))}

    method.variables = with_explosion
    return method


@pytest.mark.parametrize("position", range(26))
def test_one_bad_update_at_any_position_is_one_rollback(
    position: int, task: methods.Problem
) -> None:
    """Rule: the state that a rollback returns to is one whose own loss was seen and sound."""
    method = exploding(task, position, iterations=27, validations=0)
    result = methods.distill(method, SEEDS)
    assert result.status == "ok"
    assert [row["iteration"] for row in result.trace if row["event"]] == [position + 1]
    assert result.trace[position + 1]["event"] == "rollback"
    assert float(result.images.abs().max()) < 100


@pytest.mark.parametrize("position", [0, 4, 9, 10, 19, 25])
def test_an_exploded_state_is_never_what_a_validation_keeps(
    position: int, task: methods.Problem
) -> None:
    """Rule: right before a rung, the last included, what is measured is the last sound state."""
    measured: list[float] = []

    def loudest(images: Tensor, labels: Tensor, step_size: float | None) -> float:
        measured.append(float(images.abs().max()))
        return measured[-1]  # an exploded state would win by far

    method = exploding(task, position, iterations=26, validations=26)
    result = methods.distill(method, SEEDS, Hooks(validate=loudest))
    assert result.status == "ok" and len(measured) == 26
    assert max(measured) < 100 and float(result.images.abs().max()) < 100
    assert [row["event"] for row in result.trace].count("rollback") == 1


def broken_at(task: methods.Problem, unsound: Callable[[int], bool], iterations: int) -> Any:
    """A method that costs nothing, whose loss is not a number in some iterations."""
    method = make("mtt", task, iterations=iterations, validations=0)

    def gradients(iteration: int, variables: Any, generator: torch.Generator) -> Gradients:
        by = {name: torch.zeros_like(value) for name, value in variables.items()}
        return Gradients(math.nan if unsound(iteration) else 1.0, by, "none")

    method.gradients = gradients
    return method


def events(result: methods.Distilled) -> list[str]:
    return [row["event"] for row in result.trace if row["event"]]


def test_a_run_that_cannot_hold_ends_as_diverged_with_its_last_sound_images(
    task: methods.Problem,
) -> None:
    result = methods.distill(broken_at(task, lambda k: True, 40), SEEDS)
    assert result.status == "diverged" and bool(torch.isfinite(result.images).all())
    assert events(result) == ["rollback"] * MAX_ROLLBACKS + ["diverged"]
    assert result.trace[-1]["loss"] is None
    # Each try halves the step size anew; what is kept is the state as it was seen.
    tried = [row["step_size"] for row in result.trace]
    assert tried == pytest.approx([0.05 / 2**k for k in range(MAX_ROLLBACKS + 1)])
    assert result.step_size == pytest.approx(0.05)


def test_a_run_that_was_never_sound_is_diverged_however_short(task: methods.Problem) -> None:
    result = methods.distill(broken_at(task, lambda k: True, 3), SEEDS)
    assert result.status == "diverged" and events(result) == ["rollback"] * 4


@pytest.mark.parametrize(("sound_between", "status"), [(49, "diverged"), (50, "ok")])
def test_rollbacks_are_forgotten_after_fifty_sound_iterations_in_a_row(
    sound_between: int, status: str, task: methods.Problem
) -> None:
    """Rule: as SPEC says; five in every fifty, never fifty sound ones in a row, end a run."""
    assert SOUND_ITERATIONS == 50
    every = sound_between + 1
    method = broken_at(task, lambda k: k % every == sound_between, 8 * every)
    result = methods.distill(method, SEEDS)
    assert result.status == status
    assert events(result).count("rollback") == (MAX_ROLLBACKS if status == "diverged" else 8)
    clustered = broken_at(task, lambda k: k % 50 < 5, 150)
    assert methods.distill(clustered, SEEDS).status == "diverged"


def test_a_loss_far_above_the_median_is_an_explosion(task: methods.Problem) -> None:
    for factor, event in ((0.9, ""), (1.1, "rollback")):
        method = broken_at(task, lambda k: False, 8)
        plain = method.gradients

        def spike(k: int, *rest: Any, f: float = factor, g: Any = plain) -> Gradients:
            found = g(k, *rest)
            return Gradients(f * EXPLOSION_FACTOR, found.by, "none") if k == 5 else found

        method.gradients = spike
        assert methods.distill(method, SEEDS).trace[5]["event"] == event


def test_settings_that_explode_at_once_end_as_diverged(task: methods.Problem) -> None:
    """Rule: a run that diverges ends with images that can be stored, judged and listed."""
    method = make("mtt", task, iterations=40, lr_img=1e9, step_size=1000.0, clip=None)
    result = methods.distill(method, SEEDS, Hooks(validate=brightness))
    assert result.status == "diverged" and bool(torch.isfinite(result.images).all())
    assert float(result.images.abs().max()) < 100 and result.step_size is not None


def test_the_step_size_stays_positive_and_moves_by_a_bounded_factor(task: methods.Problem) -> None:
    value, memory = torch.tensor(0.05, dtype=torch.float64), {}
    for gradient in (1e30, -1e30, 1e-3):
        before = float(value)
        PositiveSGD(1e3, 0.5).update(value, torch.tensor(gradient), memory)
        assert abs(math.log(float(value) / before)) <= LARGEST_STEP_SIZE_MOVE + 1e-12
    small = torch.tensor(0.05, dtype=torch.float64)
    PositiveSGD(1e-4).update(small, torch.tensor(2.0), {})
    assert float(small) == pytest.approx(0.05 - 1e-4 * 2.0, rel=1e-4)  # as published, to 1st order


def test_a_method_may_skip_an_update_in_words(task: methods.Problem) -> None:
    method = make("mtt", task, iterations=4, validations=1)
    plain = method.gradients

    def gradients(iteration: int, *rest: Any) -> Gradients | Skip:
        return Skip("too far away", 1.0) if iteration == 2 else plain(iteration, *rest)

    method.gradients = gradients
    seen: list[Tensor] = []
    result = methods.distill(
        method, SEEDS, Hooks(validate=lambda images, *_: seen.append(images.clone()) or 0.5)
    )
    assert [row["event"] for row in result.trace] == ["", "", "skipped", "", ""]
    assert result.trace[2]["path"] == "too far away" and len(seen) == 1


# What is kept.


def test_the_best_on_validation_is_kept(task: methods.Problem) -> None:
    scores: Iterator[float] = iter([0.9, 0.5])
    hooks = Hooks(validate=lambda images, labels, step: next(scores))
    result = methods.distill(make("mtt", task), SEEDS, hooks)
    assert result.iteration == 3
    rungs = {r["iteration"]: r["validation_accuracy"] for r in result.trace}
    assert {k: v for k, v in rungs.items() if v is not None} == {3: 0.9, 6: 0.5}
    assert list(rungs) == list(range(7))


def test_the_average_of_the_images_is_validated_and_kept(task: methods.Problem) -> None:
    """Rule: with `ema`, what is measured and kept is the moving average, else the images."""
    looked: list[Tensor] = []

    def run(**changes: Any) -> tuple[methods.Distilled, Tensor]:
        measured: list[Tensor] = []
        method = make("mtt", task, validations=1, **changes)
        plain = method.gradients
        looked.clear()

        def gradients(iteration: int, variables: Any, generator: torch.Generator) -> Any:
            looked.append(variables["images"].clone())
            return plain(iteration, variables, generator)

        method.gradients = gradients
        hooks = Hooks(validate=lambda images, *_: measured.append(images.clone()) or 0.5)
        return methods.distill(method, SEEDS, hooks), measured[0]

    raw, measured = run()
    assert torch.equal(raw.images, measured) and torch.equal(raw.images, looked[-1])
    averaged, measured = run(ema=0.7)
    by_hand = looked[0]
    for images in looked[1:]:
        by_hand = 0.7 * by_hand + 0.3 * images
    assert torch.equal(averaged.images, measured)
    assert torch.allclose(averaged.images, by_hand, atol=1e-6)
    assert torch.equal(looked[-1], raw.images)  # the run itself is the same


def test_the_time_of_the_probes_is_told_apart(task: methods.Problem) -> None:
    """Rule: `seconds` is the method's price; the probes' time is another number."""

    def slow(images: Tensor, labels: Tensor, step_size: float | None) -> float:
        time.sleep(0.3)
        return 0.5

    began = time.perf_counter()
    result = methods.distill(make("mtt", task), SEEDS, Hooks(validate=slow))
    whole = time.perf_counter() - began
    assert 0.6 <= result.validation_seconds < whole
    assert result.seconds + result.validation_seconds <= whole
    assert result.trace[-1]["seconds"] == result.seconds


def test_images_are_not_the_training_set_itself(task: methods.Problem) -> None:
    """Real initialisation copies: updating the images must not update the data."""
    before = task.dataset.train.images.clone()
    methods.distill(make("mtt", task), SEEDS)
    assert torch.equal(before, task.dataset.train.images)


# Checkpoints.


class Killed(Exception):
    pass


def interrupted(method: Any, path: Path, after: int, identity: dict[str, Any]) -> None:
    def kill(done: int, total: int, note: str) -> None:
        if done == after:
            raise Killed

    hooks = Hooks(brightness, kill, checkpoint=path, identity=identity, checkpoint_seconds=0)
    with pytest.raises(Killed):
        methods.distill(method, SEEDS, hooks)


def test_states_of_all_validations_are_kept_where_asked_also_after_a_kill(
    task: methods.Problem, tmp_path: Path
) -> None:
    path, spec = tmp_path / "c.safetensors", {"run": "states"}
    measured: list[Tensor] = []

    def watch(images: Tensor, labels: Tensor, step_size: float | None) -> float:
        measured.append(images.clone())
        return brightness(images, labels, step_size)

    whole = methods.distill(make("mtt", task), SEEDS, Hooks(watch, keep_states=True))
    assert len(whole.states) == 2 and not methods.distill(make("mtt", task), SEEDS).states
    assert all(torch.equal(a, state[0]) for a, state in zip(measured, whole.states, strict=True))

    def kill(done: int, total: int, note: str) -> None:
        if done == 4:
            raise Killed

    hooks: dict[str, Any] = {"checkpoint": path, "identity": spec, "keep_states": True}
    with pytest.raises(Killed):
        methods.distill(make("mtt", task), SEEDS, Hooks(brightness, kill, **hooks))
    again = methods.distill(make("mtt", task), SEEDS, Hooks(brightness, **hooks))
    for one, other in zip(whole.states, again.states, strict=True):
        assert torch.equal(one[0], other[0]) and one[2] == other[2]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((n, {}) for n in methods.names() if issubclass(methods.find(n), methods.Iterative)),
        ("iadd", {"granularity": "filter", "normalisation": "none", "ema": 0.9}),
        ("hoptm", {"base": 1e-7, "growth": 3.0, "growth_every": 1}),  # what it compares grows
    ],
)
@pytest.mark.parametrize("after", [2, 3])
def test_a_killed_run_resumes_to_the_same_result(
    name: str, changes: dict[str, Any], after: int, task: methods.Problem, tmp_path: Path
) -> None:
    path, identity = tmp_path / "c.safetensors", {"run": name}
    whole = methods.distill(make(name, task, **changes), SEEDS, Hooks(brightness))
    interrupted(make(name, task, **changes), path, after, identity)
    heard: list[int] = []
    hooks = Hooks(
        brightness,
        lambda done, *_: heard.append(done),
        checkpoint=path,
        identity=identity,
        checkpoint_seconds=0,
    )
    resumed = methods.distill(make(name, task, **changes), SEEDS, hooks)
    assert heard[0] >= after  # and did not begin anew
    assert torch.equal(whole.images, resumed.images) and torch.equal(whole.labels, resumed.labels)
    assert whole.step_size == resumed.step_size and whole.iteration == resumed.iteration
    assert [r["loss"] for r in whole.trace] == [r["loss"] for r in resumed.trace]
    assert whole.weights == resumed.weights


def test_idm_does_not_diverge_because_its_first_networks_are_untrained(
    task: methods.Problem,
) -> None:
    """Their cross entropy has no weight yet: the loss of real images begins near zero."""
    whole = replace(task, ipc=int(torch.bincount(task.dataset.train.labels).min()))
    method = make("idm", whole, factor=1, iterations=12, train_steps=10, train_batch=64)
    result = methods.distill(method, SEEDS)
    assert result.status == "ok" and not any(row["event"] for row in result.trace)
    losses = [row["loss"] for row in result.trace]
    assert max(losses) > 50 * losses[0]  # what counted as an explosion


def beginning(task: methods.Problem, path: Path, identity: dict[str, Any]) -> int:
    """The first iteration that a run with this checkpoint makes."""
    first: list[int] = []
    method = make("mtt", task)
    plain = method.gradients

    def gradients(iteration: int, *rest: Any) -> Any:
        first.append(iteration)
        return plain(iteration, *rest)

    method.gradients = gradients
    methods.distill(method, SEEDS, Hooks(checkpoint=path, identity=identity))
    return first[0]


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("source", "new code"),
        ("experts", {"recipe": "flat"}),
        ("precision", "bf16"),
        ("validation", {"protocol": "dc-v1"}),
        ("seed", 1),
        ("extra", None),
    ],
)
def test_a_checkpoint_belongs_to_its_whole_spec(
    key: str, other: Any, task: methods.Problem, tmp_path: Path
) -> None:
    """Rule: other code, experts, precision or probe: the run starts anew."""
    spec = {
        **{"source": "code", "experts": {"recipe": "standard"}, "precision": "float32"},
        **{"validation": {"protocol": "mtt-v1"}, "seed": 0},
    }
    path = tmp_path / "c.safetensors"
    interrupted(make("mtt", task), path, 4, spec)
    copy = path.read_bytes()
    assert beginning(task, path, spec | {key: other}) == 0
    path.write_bytes(copy)
    assert beginning(task, path, spec) == 3


def test_a_malformed_checkpoint_is_ignored(task: methods.Problem, tmp_path: Path) -> None:
    """Rule: as the docstring says: truncated, or lacking a tensor, a shape or a number."""
    path, spec = tmp_path / "c.safetensors", {"run": 1}
    interrupted(make("mtt", task), path, 4, spec)
    stored = load_tensors(path)
    tensors, told = stored.tensors, stored.attributes
    images = tensors["safe.value.images"]
    path.write_bytes(path.read_bytes()[:-50])
    assert beginning(task, path, spec) == 0
    for wrong, attributes in (
        ({k: v for k, v in tensors.items() if k != "best.value.step_size"}, told),
        (tensors | {"safe.value.images": images[:1].clone()}, told),
        (tensors | {"safe.value.images": images.double()}, told),
        (tensors, {}),
        (tensors, told | {"iteration": "four"}),
        (tensors, told | {"trace": [1]}),
        (tensors, told | {"trace": None}),
        (tensors, told | {"iteration": 2**70}),
        (tensors, told | {"iteration": -1}),
        (tensors, told | {"status": "fine"}),
        (tensors, told | {"kept": 2**40}),
        (tensors, told | {"trace": told["trace"][::-1]}),
        (tensors, told | {"trace": [told["trace"][0] | {"loss": "x"}, *told["trace"][1:]]}),
        (tensors, told | {"trace": [told["trace"][0] | {"loss": None}, *told["trace"][1:]]}),
        (tensors | {"safe.value.step_size": torch.tensor(-1.0)}, told),
        (tensors | {"state.memory.images.velocity": torch.zeros(3)}, told),
    ):
        save_tensors(path, wrong, spec, attributes)
        assert beginning(task, path, spec) == 0
    save_tensors(path, tensors, spec, told)
    assert beginning(task, path, spec) == 3


def test_without_validation_images_nothing_is_measured(tmp_path: Path) -> None:
    """Rule: the last sound images are kept; a checkpoint never holds an accuracy of no images."""
    data = load_dataset("blobs", validation_fraction=0)
    task = methods.Problem(data, build_network("mlp-w8", 1, 8, data.classes), 1)
    spec, path = {"run": 1}, tmp_path / "c.safetensors"
    params = {"iterations": 3, "validations": 3, "batch_real": 8}
    result = run_distillation(task, "dm", params, SEEDS, Validation(), spec=spec, checkpoint=path)
    assert result.status == "ok" and result.iteration == 3
    assert all(row["validation_accuracy"] is None for row in result.trace)


def test_a_checkpoint_needs_an_identity(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a checkpoint needs the run's spec"):
        Hooks(checkpoint=tmp_path / "c.safetensors")


def test_a_resumed_run_tells_its_rungs_again(task: methods.Problem, tmp_path: Path) -> None:
    path, identity = tmp_path / "c.safetensors", {"run": 1}
    interrupted(make("mtt", task), path, 5, identity)
    heard: list[int] = []
    hooks = Hooks(
        brightness,
        report=lambda iteration, accuracy: heard.append(iteration),
        checkpoint=path,
        identity=identity,
    )
    methods.distill(make("mtt", task), SEEDS, hooks)
    assert heard == [3, 6]


def test_streams_do_not_depend_on_what_else_was_drawn(task: methods.Problem) -> None:
    """A run's iteration k draws the same, whatever happened before: no state to be kept."""
    method = make("mtt", task)
    variables = {
        k: v.value for k, v in method.variables(method.initial(SEEDS.generator(0))).items()
    }
    first = method.gradients(4, variables, SEEDS.generator("iteration", 4))
    method.gradients(3, variables, SEEDS.generator("iteration", 3))
    again = method.gradients(4, variables, SEEDS.generator("iteration", 4))
    other = method.gradients(4, variables, Seeds((1,)).generator("iteration", 4))
    assert first.loss == again.loss != other.loss


# What a run started from.


@pytest.mark.parametrize("name", ["mtt", "dm"])
def test_a_run_tells_the_images_that_it_started_from(task: methods.Problem, name: str) -> None:
    method = make(name, task)
    result = methods.distill(method, SEEDS)
    rows = task.random_rows(SEEDS.generator("initial"))
    assert result.start is not None
    assert torch.equal(result.start, task.dataset.train.pick(rows).cpu())
    assert not torch.equal(result.start, result.images.cpu())
