"""What may be searched: ranges, choices, points; nonsense is refused when the config is read."""

from typing import Any

import pytest
from search_case import plan_of

from iadd import methods
from iadd.pipeline.config.search import points_of, space_of


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"methods": ["random"], "space": {}},
            "search.methods: method random has nothing to tune",
        ),
        ({"methods": ["mtx"], "space": {}}, "search.methods: mtx is not in methods"),
        ({"methods": ["dm"], "space": {}}, "dm is not in methods"),
        ({"searcher": "bohb"}, "search.searcher: .*'tpe' or 'random'"),
        ({"scheduler": "pbt"}, "search.scheduler: .*'asha', 'median' or 'none'"),
        ({"trials": 0}, "search.trials: must be at least 1"),
        ({"rung": 3}, "unknown key"),
        ({"space": {"mtt": {"lr_image": None}}}, "mtt.lr_image: unknown parameter; allowed: iter"),
        ({"space": {"dm": {}}}, "space.dm: is not among the tuned"),
        ({"space": {"mtt": {"lr_img": {"log": [0, 1]}}}}, "starts above 0, not at 0"),
        ({"space": {"mtt": {"lr_img": {"log": [5, 1]}}}}, r"allowed are \{log\|uniform\|int"),
        ({"space": {"mtt": {"lr_img": {"log": 5}}}}, r"allowed are \{log\|uniform\|int"),
        ({"space": {"mtt": {"lr_img": {"normal": [0, 1]}}}}, r"allowed are \{log\|uniform\|int"),
        ({"space": {"mtt": {"lr_img": [3]}}}, "at least two choices"),
        ({"space": {"mtt": {"momentum": {"uniform": [0, 1]}}}}, "momentum: must be below 1"),
        ({"space": {"mtt": {"init": ["real", "cats"]}}}, "space.mtt: init: .*'real' or 'noise'"),
        ({"space": {"mtt": {"batch_syn": {"int": [1, 5]}}}}, "int range cannot hold None"),
        ({"space": {"mtt": {"unrolled_steps": {"int": [1.5, 5]}}}}, "1.5 is no whole number"),
        ({"space": {"mtt": {"lr_img": {"log": ["1e-3", 5]}}}}, "lr_img: '1e-3' is no number"),
        ({"points": {"mtt": [{"lr_img": -1}]}}, "points.mtt: lr_img: must be above 0"),
        ({"points": {"mtt": [{"lr_img": "1e-3"}]}}, "points.mtt: lr_img: '1e-3' is text"),
        ({"points": {"mtt": [{"momentum": 0.1}]}}, "'momentum' is not searched; allowed: "),
        (
            {"space": {"mtt": {"max_start": None}}, "points": {"mtt": [{"max_start": 9}]}},
            "points.mtt: 'max_start' is not searched",
        ),
        ({"space": {"mtt": {"lr_img": ["1e-3", 5.0]}}}, "space.mtt: lr_img: '1e-3' is text"),
    ],
)
def test_nonsense_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        plan_of(**changes)
    assert "\n" not in str(caught.value)


def test_the_space_holds_the_default_and_what_the_benchmark_changes() -> None:
    given, changes = {"lr_img": 0.5, "max_start": 30}, {"lr_lr": None, "init": ["noise"] * 2}
    space = space_of("mtt", methods.find("mtt"), given, changes)
    assert space["lr_img"] == ("log", 0.5, 1e4)
    assert space["max_start"] == ("int", 1, 30)
    assert "lr_lr" not in space
    assert space["init"] == ["real", "noise", "noise"]


def test_experts_reach_as_far_as_any_trial_and_any_point_may() -> None:
    plain = plan_of(space={"mtt": {"max_start": None, "expert_epochs": None}})
    assert plain.expert_epochs("standard") == 2 - 1 + 1
    wider = plan_of(space={"mtt": {"max_start": {"int": [1, 9]}}})
    assert wider.expert_epochs("standard") == 9 - 1 + 4
    recipes = {"mtt": [{"lr_img": 3.0}, {"max_start": 25, "expert_epochs": 6}]}
    assert plan_of(points=recipes).expert_epochs("standard") == 25 - 1 + 6
    assert plan_of(points=recipes).config.space("mtt", 1)["max_start"] == ("int", 1, 25)


def test_each_reading_of_iadd_is_searched_where_its_weights_move() -> None:
    """R1 at a learning rate of R2's would be MTT by another name: its weights need 1 to 30."""
    space = space_of("iadd", methods.find("iadd"), {}, {})
    default, r1 = points_of("iadd", methods.find("iadd"), {}, space, [{"reading": "R1"}])
    params = methods.find("iadd").Params
    _, low, high = space["lr_w_factor"]
    for point, least, most in ((default, 1e-4, 1e-1), (r1, 1.0, 30.0)):
        learning_rate = params(**point).lr_w
        assert low * learning_rate <= least and most <= high * learning_rate
