"""The fused distance against its float64 specification; every defined outcome, on every device."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from iadd import extension
from iadd.engine.distance import distance, distance_reference


def weighted_distance(*arguments, **options):
    return distance(*arguments, **options).weighted


def weighted_distance_reference(*arguments, **options):
    return distance_reference(*arguments, **options).weighted


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BOTH = [
    pytest.param(weighted_distance, marks=pytest.mark.kernels, id="fused"),
    pytest.param(weighted_distance_reference, id="reference"),
]
# One element, around a register, around a chunk, many chunks on several threads.
SIZES = [1, 2, 15, 16, 17, 129, 1151, 4095, 4096, 4097, 8193, 40_009, 320_010]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def problem(size, seed=0, device="cpu", dtype=torch.float32, shift=0):
    """student, start, target, weights; `shift`: that many elements away from an aligned address."""
    generator = torch.Generator().manual_seed(seed)
    s, o, t, w = (torch.randn(size + shift, generator=generator).double() for _ in range(4))
    arrays = (t + 0.1 * s, t + 0.1 * o + 0.5 * o.sign(), t, w.abs())
    return tuple(x.to(dtype)[shift:].to(device) for x in arrays)


def gradients(function, student, start, target, weights, **options):
    """Loss and gradients of student and weights, as float64 on the CPU."""
    leaves = [x.detach().clone().requires_grad_() for x in (student, weights) if x is not None]
    loss = function(leaves[0], start, target, *leaves[1:], **options)
    result = [loss, *torch.autograd.grad(loss, leaves)]
    return [x.detach().double().cpu() for x in result]


def exact(student, start, target, weights, **options):
    """The same by the specification in float64."""
    inputs = [None if x is None else x.cpu().double() for x in (student, start, target, weights)]
    return gradients(weighted_distance_reference, *inputs, **options)


def error(found, expected):
    """Largest difference relative to the largest element."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300))


def assert_close(found, expected, tolerance=1e-6):
    assert len(found) == len(expected)
    for x, y in zip(found, expected, strict=True):
        assert error(x, y) <= tolerance


def test_by_hand():
    student, start = torch.tensor([1.0, 5.0, 2.0]), torch.tensor([2.0, 1.0, 0.0])
    target, weights = torch.tensor([0.0, 3.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])
    # residuals 1, 2, 1; movements 2, -2, -1: denominator 9
    loss, by_student, by_weights = gradients(weighted_distance, student, start, target, weights)
    assert loss == pytest.approx((1 + 16 + 9) / 9)
    assert by_student.tolist() == pytest.approx([2 / 9, 16 / 9, 18 / 9])
    assert by_weights.tolist() == pytest.approx([2 / 9, 16 / 9, 6 / 9])
    both = distance(student, start, target, weights)
    assert float(both.unweighted) == pytest.approx(6 / 9)
    weighed = weighted_distance(student, start, target, weights, weighted_denominator=True)
    assert float(weighed) == pytest.approx(26 / (4 + 16 + 9))


def test_weights_of_0_and_1_leave_parameters_out():
    """DDPP's pruning: what is left out has no part in numerator or denominator."""
    student, start, target, _ = problem(5000, 5)
    kept = torch.arange(5000) % 3 != 1
    found = weighted_distance(student, start, target, kept.float(), weighted_denominator=True)
    wanted = weighted_distance(student[kept], start[kept], target[kept])
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_close_to_float64_at_every_size_and_alignment(size, shift, device):
    student, start, target, weights = problem(size, size, device, shift=shift)
    case = (student, start, target, weights)
    assert_close(gradients(weighted_distance, *case), exact(*case))
    plain = (student, start, target, None)
    assert_close(gradients(weighted_distance, *plain), exact(*plain))


@pytest.mark.parametrize("weighed", [True, False])
@pytest.mark.parametrize("size", [7, 5000])
def test_close_to_float64_with_both_denominators(weighed, size, device):
    student, start, target, _ = case = problem(size, 1, device)
    options = {"weighted_denominator": weighed}
    assert_close(gradients(weighted_distance, *case, **options), exact(*case, **options))
    found = distance(*case, **options)
    wanted = exact(student, start, target, None)[0]
    assert error(found.unweighted.double().cpu(), wanted) < 1e-6


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_problem(data):
    size = data.draw(st.integers(1, 9000))
    case = problem(size, data.draw(st.integers(0, 1000)))
    options = {}
    if size > 50:  # with few weights their gradient is a difference of equals: nearly 0
        options["weighted_denominator"] = data.draw(st.booleans())
    found = gradients(weighted_distance, *case, **options)
    assert_close(found, exact(*case, **options), 2e-6)


def test_float64_is_computed_in_float64(device):
    student, start, target, weights = problem(5000, 2, device, torch.float64)
    for options in ({}, {"weighted_denominator": True}):
        case = (student, start, target, weights)
        assert_close(gradients(weighted_distance, *case, **options), exact(*case, **options), 1e-13)


def test_equal_summands_do_not_drift(device):
    """A float32 sum that only grows by the same number loses digits; this one must not."""
    size = 2_000_003
    student, target = torch.full((size,), 0.3), torch.zeros(size)
    start = torch.full((size,), 0.7)
    found = weighted_distance(*(x.to(device) for x in (student, start, target)))
    expected = (student.double() ** 2).sum() / (start.double() ** 2).sum()
    assert error(found.double().cpu(), expected) < 1e-7


@pytest.mark.parametrize("size", [17, 5000, 320_010])
def test_weights_of_one_change_no_bit(size, device):
    student, start, target, _ = problem(size, 3, device)
    ones = torch.ones(size, device=device)
    plain = gradients(weighted_distance, student, start, target, None)
    for weighed in (False, True):
        found = gradients(
            weighted_distance, student, start, target, ones, weighted_denominator=weighed
        )
        assert torch.equal(found[0], plain[0])
        assert torch.equal(found[1], plain[1])
    both = distance(student, start, target, ones)
    assert torch.equal(both.weighted, both.unweighted)


def results(size=200_000):
    """Every output of a few problems, from inputs that every processor makes alike."""
    generator = torch.Generator().manual_seed(4)
    numbers = torch.randint(1, 2**24, (4, size), generator=generator) / 2**22
    student, start, target, weights = numbers
    for given_weights, weighed in ((None, False), (weights, False), (weights, True)):
        yield from gradients(
            weighted_distance, student, start, target, given_weights, weighted_denominator=weighed
        )


def digest(tensors):
    data = b"".join(x.numpy().tobytes() for x in tensors if x is not None)
    return hashlib.sha256(data).hexdigest()


@pytest.mark.kernels
def test_same_bits_for_any_number_of_threads():
    before = torch.get_num_threads()
    found = set()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.add(digest(results()))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.kernels
@pytest.mark.parametrize("capability", ["generic", "avx2"])
def test_same_bits_on_every_instruction_set(capability):
    """A node without AVX-512 computes the same numbers, from the same build."""
    code = "import test_distance as t; print(t.digest(t.results()))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"IADD_ISA": capability},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == digest(results())


def test_same_bits_every_time(device):
    case = problem(1_000_003, 5, device)
    first, second = (gradients(weighted_distance, *case) for _ in range(2))
    for x, y in zip(first, second, strict=True):
        assert torch.equal(x, y)


def test_first_derivatives_only():
    student, start, target, weights = problem(7, 6, dtype=torch.float64)
    inputs = [student.requires_grad_(), weights.requires_grad_()]
    for weighed in (True, False):
        assert gradcheck(
            lambda s, w, weighed=weighed: weighted_distance(
                s, start, target, w, weighted_denominator=weighed
            ),
            inputs,
        )
    if extension.kernel_name(student) == "cpu-fused":
        loss = weighted_distance(student, start, target, weights)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            torch.autograd.grad(loss, student, create_graph=True)


def test_backward_again_where_it_is_kept():
    student, start, target, weights = problem(5000, 8)
    student.requires_grad_()
    loss = 3 * weighted_distance(student, start, target, weights)
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    (second,) = torch.autograd.grad(loss, student, retain_graph=True)
    (third,) = torch.autograd.grad(loss, student)
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert len({x.data_ptr() for x in (first, second, third)}) == 3
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, student)


def test_accumulates_in_a_larger_graph():
    """As the end of an unrolled student: upstream and downstream factors, two uses."""
    student, start, target, weights = problem(300, 9, dtype=torch.float64)

    def whole(function, x):
        end = x.sin() * 2
        return function(end, start, target, weights) ** 2 + function(end, start, target) * 0.5

    found, wanted = (
        torch.autograd.grad(whole(f, x := student.clone().requires_grad_()), x)[0]
        for f in (weighted_distance, weighted_distance_reference)
    )
    assert error(found, wanted) < 1e-12


def test_only_what_is_wanted_has_a_gradient():
    student, start, target, weights = problem(50, 10)
    assert not weighted_distance(student, start, target, weights).requires_grad
    both = distance(student, start, target, weights.requires_grad_())
    assert both.weighted.requires_grad and not both.unweighted.requires_grad
    with torch.no_grad():
        assert not weighted_distance(student, start, target, weights).requires_grad
    with torch.inference_mode():
        assert float(weighted_distance(student, start, target, weights)) == float(both.weighted)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"student": torch.ones(2, 3)}, "student: shape"),
        ({"student": torch.ones(())}, "student: shape"),
        ({"student": torch.ones(0)}, "student: shape"),
        ({"student": torch.ones(6, dtype=torch.int64)}, "student: dtype"),
        ({"student": torch.ones(6, dtype=torch.bfloat16)}, "student: dtype"),
        ({"start": torch.ones(5)}, "start: shape"),
        ({"start": torch.ones(6, dtype=torch.float64)}, "start: dtype"),
        ({"start": torch.ones(6, dtype=torch.int32)}, "start: dtype"),
        ({"start": torch.ones(6, dtype=torch.bfloat16)}, "start: dtype"),
        ({"target": torch.ones(6, dtype=torch.float64)}, "target: dtype"),
        ({"target": torch.ones(7)}, "target: shape"),
        ({"target": torch.ones(6, device="meta")}, "device"),
        ({"weights": torch.ones(5)}, "weights: shape"),
        ({"weights": torch.ones(6, dtype=torch.float64)}, "weights: dtype"),
        ({"start": torch.ones(6, requires_grad=True)}, "start: requires a gradient"),
        ({"target": torch.ones(6, requires_grad=True)}, "target: requires a gradient"),
    ],
)
def test_refuses(function, change, named):
    arguments = {name: torch.ones(6) for name in ("student", "start", "target", "weights")}
    with pytest.raises(ValueError, match=named) as caught:
        function(**(arguments | change))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("function", BOTH)
def test_strided_inputs_are_read_as_they_are(function):
    wide = torch.randn(4, 900, 2, generator=torch.Generator().manual_seed(12))
    strided = wide[:, :, 0]
    student, start, target, weights = strided
    assert not student.is_contiguous()
    found = gradients(function, student, start, target, weights)
    assert_close(found, exact(*strided.contiguous()))


@pytest.mark.parametrize("function", BOTH)
def test_zero_denominator_divides_as_ieee_has_it(function):
    here, there = torch.ones(100), torch.zeros(100)
    assert float(function(here, there, there)) == float("inf")
    assert torch.isnan(function(here, here, here))
    _, by_student = gradients(function, here, there, there, None)
    assert torch.isinf(by_student).all()


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("at", range(4))
def test_not_a_number_shows(function, at):
    arrays = list(problem(5000, 14))
    arrays[at][4321] = float("nan")
    assert torch.isnan(function(*arrays))


@pytest.mark.slow
@pytest.mark.kernels
def test_indices_beyond_31_bits():
    """Untouched memory reads as zeros and costs nothing: 2^31 + 37 elements, three at the end."""
    size = 2**31 + 37
    try:
        base = torch.from_numpy(np.zeros(size + 1, np.float32))
    except (MemoryError, RuntimeError):
        pytest.skip("no address space for 8 GiB")
    base[-3:] = torch.tensor([1.0, 2.0, 5.0])
    # residuals and movements 1, 1, 3 at the end
    assert float(weighted_distance(base[1:], base[1:], base[:-1])) == 1
    weights = base[:-1]  # ..., 0, 1, 2 there
    weighted = weighted_distance(base[1:], base[1:], base[:-1], weights)
    assert float(weighted) == pytest.approx((0 * 1 + 1 * 1 + 4 * 9) / 11)


# ------------------------------------------------------------------------------- Which one it was


@pytest.mark.kernels
def test_says_what_runs():
    assert extension.kernel_name(torch.zeros(1)) == "cpu-fused"
    assert extension.kernel_name(torch.zeros(1, device="meta")) == "reference"
    assert extension.status()["kernels"].startswith("fused")


def test_reference_on_demand():
    code = (
        "import torch; from iadd import extension; from iadd.engine import distance as ops\n"
        "print(extension.kernel_name(torch.zeros(1)), extension.status()['kernels'])\n"
        "x = torch.ones(3, requires_grad=True)\n"
        "loss = ops.distance(x, torch.zeros(3), torch.full((3,), 2.)).weighted\n"
        "print(float(loss.detach()), torch.autograd.grad(loss, x)[0].tolist())"
    )

    def run(value):
        return subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"IADD_KERNELS": value},
            capture_output=True,
            text=True,
        )

    found = run("reference")
    assert found.stdout.splitlines()[0] == "reference reference: IADD_KERNELS=reference"
    assert found.stdout.splitlines()[1].startswith("0.25 [-0.16666")
    assert "plain PyTorch" not in found.stderr  # it was asked for
    assert "IADD_KERNELS=fast: allowed are fused, reference" in run("fast").stderr
