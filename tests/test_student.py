"""A student's steps: the rows and augmentations that they are drawn."""

from iadd.augment import Draw
from iadd.engine.student import draw_steps
from iadd.seeds import generator_for


def test_minibatches_are_drawn_without_replacement_and_refilled() -> None:
    rows = [step.rows for step in draw_steps(5, 7, 3, lambda count: None, generator_for("rows"))]
    assert all(r is not None and len(set(r.tolist())) == 3 for r in rows)
    assert rows[0] is not None and rows[1] is not None
    assert not set(rows[0].tolist()) & set(rows[1].tolist())  # the third would not fill: refilled


def test_each_step_draws_an_augmentation_for_the_images_it_sees() -> None:
    sizes: list[int] = []

    def draw(count: int) -> Draw | None:
        sizes.append(count)
        return None

    for batch in (3, None, 9):
        steps = draw_steps(4, 7, batch, draw, generator_for("sizes"))
        assert all((step.rows is None) == (batch != 3) for step in steps)
    assert sizes == [3] * 4 + [7] * 8
