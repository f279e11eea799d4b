"""Augmentation: hand-worked draws, siamese sharing, affinity in the pixels, purity."""

import pytest
import torch

from iadd.augment import (
    FAMILIES,
    Augmentation,
    Draw,
    augment,
    augment_adjoint,
    augment_together,
    move,
    move_reference,
    pack_draws,
)
from iadd.extension import has_cpu_kernels
from iadd.seeds import generator_for


def draw(family: str, *uniform: float) -> Draw:
    return Draw(family, torch.tensor([[*uniform, 0.5, 0.5, 0.5][:3]]))


IMAGES = torch.arange(64.0).view(1, 1, 8, 8)


def test_flip_mirrors_left_and_right() -> None:
    assert torch.allclose(augment(IMAGES, draw("flip", 0.1)), IMAGES.flip(3), atol=1e-4)
    assert torch.allclose(augment(IMAGES, draw("flip", 0.9)), IMAGES, atol=1e-4)


def test_crop_shifts_by_whole_pixels_and_fills_with_zero() -> None:
    shifted = augment(IMAGES, draw("crop", 0.99, 0.5))  # one pixel left, none up
    assert torch.allclose(shifted[..., :-1], IMAGES[..., 1:], atol=1e-4)
    assert torch.allclose(shifted[..., -1], torch.zeros(1, 1, 8), atol=1e-3)


def test_cutout_removes_a_square_of_half_the_side() -> None:
    cut = augment(torch.ones(1, 1, 8, 8), draw("cutout", 0.5, 0.5))
    assert int((cut == 0).sum()) == 16
    assert bool((cut[0, 0, 2:6, 2:6] == 0).all())
    corner = augment(torch.ones(1, 1, 8, 8), draw("cutout", 0.0, 0.0))
    assert int((corner == 0).sum()) == 4  # a centre on the border cuts a quarter of the hole


def test_neutral_strengths_change_nothing() -> None:
    assert torch.allclose(augment(IMAGES, draw("rotate", 0.5)), IMAGES, atol=1e-3)
    neutral = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)
    assert torch.allclose(augment(IMAGES, draw("scale", neutral, neutral)), IMAGES, atol=1e-3)
    assert torch.allclose(augment(IMAGES, draw("color", 0.5, 0.5, 0.5)), IMAGES, atol=1e-3)
    assert augment(IMAGES, None) is IMAGES


def test_rotation_by_15_degrees_keeps_the_centre() -> None:
    bump = torch.zeros(1, 1, 9, 9)
    bump[..., 4, 4] = 1
    assert float(augment(bump, draw("rotate", 1.0))[..., 4, 4]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_affine_in_the_pixels(family: str) -> None:
    g = generator_for("affine", family)
    a, b = torch.randn(2, 5, 3, 8, 8, generator=g, dtype=torch.float64)
    draw = Draw(family, torch.rand(5, 3, generator=g, dtype=torch.float64))
    blend = augment(0.3 * a + 0.7 * b, draw)
    assert torch.allclose(blend, 0.3 * augment(a, draw) + 0.7 * augment(b, draw), atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_adjoint_is_the_gradient(family: str, count: int, channels: int) -> None:
    g = generator_for("adjoint", family)
    images, gradient = torch.randn(2, 5, channels, 9, 9, generator=g, dtype=torch.float64)
    draw = Draw(family, torch.rand(count, 3, generator=g, dtype=torch.float64))
    leaf = images.requires_grad_()
    (expected,) = torch.autograd.grad(augment(leaf, draw), leaf, gradient)
    assert torch.allclose(augment_adjoint(gradient, draw), expected, atol=1e-13)
    assert torch.equal(augment_adjoint(gradient, None), gradient)


def matrices(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Near the identity, and one that leads far outside."""
    identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=dtype)
    noise = torch.randn(count, 2, 3, generator=generator_for("matrices"), dtype=dtype)
    moved = identity + 0.3 * noise
    moved[-1] = 40 * noise[-1]
    return moved


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (2, 3, 7, 12), (1, 2, 9, 5), (40, 3, 32, 32)])
def test_moving_is_torchs_grid_sample(shape: tuple[int, int, int, int]) -> None:
    images = torch.randn(shape, generator=generator_for("move", *shape), dtype=torch.float64)
    matrix = matrices(len(images), torch.float64)
    for transposed in (False, True):
        exact = move_reference(images, matrix, transposed)
        assert torch.allclose(move(images, matrix, transposed), exact, atol=1e-11)
        single = move(images.float(), matrix.float(), transposed) - exact
        reference = move_reference(images.float(), matrix.float(), transposed) - exact
        assert float(single.norm()) <= 1.5 * float(reference.norm())


@pytest.mark.usefixtures("restored_threads")
def test_moving_has_the_same_bits_for_any_number_of_threads() -> None:
    images = torch.randn(64, 3, 32, 32, generator=generator_for("threads"))
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append([move(images, matrices(64, torch.float32), way) for way in (False, True)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_moving_can_be_differentiated_for_ever() -> None:
    images = torch.randn(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    matrix = matrices(2, torch.float64)
    assert torch.autograd.gradcheck(lambda z: move(z, matrix), images)
    assert torch.autograd.gradgradcheck(lambda z: move(z, matrix) ** 2, images)


def test_what_is_not_finite_goes_where_it_is_sampled() -> None:
    images = torch.zeros(1, 1, 8, 8)
    images[..., 2, 3] = torch.nan
    for way in (False, True):
        matrix = matrices(2, torch.float32)[:1]
        found, expected = move(images, matrix, way), move_reference(images, matrix, way)
        assert torch.equal(found.isnan(), expected.isnan()) and bool(found.isnan().any())


def test_moving_says_what_does_not_fit() -> None:
    if not has_cpu_kernels(IMAGES.device, IMAGES.dtype):
        pytest.skip("the extension is not built")
    with pytest.raises(ValueError, match=r"matrix has shape \[2, 2, 3\], expected one of 2 x 3"):
        move(IMAGES, matrices(2, torch.float32))
    with pytest.raises(TypeError, match="matrix is Double, expected Float"):
        move(IMAGES, matrices(1, torch.float64))


def test_no_images_are_moved_to_none() -> None:
    assert move(IMAGES[:0], matrices(1, torch.float32)[:0]).shape == (0, 1, 8, 8)


def test_a_draw_of_one_is_shared_by_batches_of_any_size() -> None:
    draw = Augmentation(("scale",)).draw(generator_for(3))
    small = augment(IMAGES.expand(2, -1, -1, -1), draw)
    large = augment(IMAGES.expand(7, -1, -1, -1), draw)
    assert torch.equal(small[0], large[6])


@pytest.mark.parametrize("transposed", [False, True])
def test_together_is_one_by_one_bit_for_bit(transposed: bool) -> None:
    g = generator_for("together")
    one = augment_adjoint if transposed else augment
    sizes = [3, 1, 2, 3, 4, 1, 2] * 2
    batches = [torch.randn(size, 3, 8, 8, generator=g) for size in sizes]
    families = [*FAMILIES, None] * 2
    draws = [
        f and Draw(f, torch.rand(size, 3, generator=g))
        for f, size in zip(families, sizes, strict=True)
    ]
    draws[2] = Draw(FAMILIES[2], torch.rand(1, 3, generator=g))  # a draw that a batch shares
    before = [batch.clone() for batch in batches]
    done = augment_together(batches, draws, transposed)
    for batch, draw, got in zip(before, draws, done, strict=True):
        assert torch.equal(got, one(batch, draw))
    assert all(torch.equal(batch, old) for batch, old in zip(batches, before, strict=True))
    assert augment_together([], []) == []


def test_draws_are_values_of_the_generator() -> None:
    state = torch.random.get_rng_state()
    first = Augmentation().draw(generator_for(1), 4)
    again = Augmentation().draw(generator_for(1), 4)
    assert first and again
    assert first.family == again.family and torch.equal(first.uniform, again.uniform)
    assert torch.equal(state, torch.random.get_rng_state())
    assert Augmentation(()).draw(generator_for(1)) is None


def test_unknown_family() -> None:
    with pytest.raises(ValueError, match="'mirror': allowed are color, crop"):
        Augmentation(("mirror",))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed_draws_are_the_draws_bit_for_bit(dtype: torch.dtype) -> None:
    """One sequence of operations applies every family, and passes the same gradient back."""
    g = generator_for("packed")
    draws = [Augmentation((family,)).draw(g, 4) for family in FAMILIES]
    draws += [None, Augmentation(("rotate",)).draw(g)]  # no augmentation; one draw for all
    images = torch.randn(4, 3, 9, 9, generator=g, dtype=dtype)
    weights = torch.randn(4, 3, 9, 9, generator=g, dtype=dtype)
    packed = pack_draws(draws, 4, 9, dtype)
    for k, draw in enumerate(draws):
        one, leaves = packed.map(lambda z, k=k: z[k]), []
        for apply in (lambda x, d=draw: augment(x, d), lambda x, o=one: o.apply(x)):
            leaf = images.clone().requires_grad_()
            seen = apply(leaf)
            if seen is not leaf:
                (seen * weights).sum().backward()
            leaves.append((seen.detach(), leaf.grad))
        assert torch.equal(leaves[0][0], leaves[1][0]), draw
        if leaves[0][1] is not None:
            assert torch.allclose(leaves[0][1], leaves[1][1], rtol=0, atol=1e-6), draw


def test_packed_draws_of_images_that_go_different_ways_at_once() -> None:
    g = generator_for("packed", "mixed")
    draws = [Augmentation((family,)).draw(g, 2) for family in FAMILIES]
    images = torch.randn(len(FAMILIES), 2, 1, 8, 8, generator=g)
    packed = pack_draws(draws, 2, 8)
    mixed = packed.map(lambda z: z.flatten(0, 1)).apply(images.flatten(0, 1))
    apart = torch.cat([augment(x, draw) for x, draw in zip(images, draws, strict=True)])
    assert torch.equal(mixed, apart)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (5, 1, 7, 12), (2, 2, 1, 9), (3, 3, 33, 32)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_card_moves_as_the_cpu_does(shape: tuple[int, int, int, int], transposed: bool) -> None:
    g = torch.Generator().manual_seed(sum(shape))
    images = torch.randn(shape, generator=g, dtype=torch.float64)
    for spread in (0.1, 1.0, 3.0):
        matrix = torch.eye(2, 3).double() + spread * torch.randn(
            shape[0], 2, 3, generator=g, dtype=torch.float64
        )
        matrix[0, :, :2] = matrix[0, 0, 0]  # all of its samples lie on a line
        found = move(images.cuda(), matrix.cuda(), transposed)
        wanted = move(images, matrix, transposed)
        assert float((found.cpu() - wanted).abs().max()) < 1e-9 * max(1, float(wanted.abs().max()))
        assert torch.equal(found, move(images.cuda(), matrix.cuda(), transposed))
