"""What a search is asked to do, and what it may vary: the `search:` section of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from iadd import methods
from iadd.methods import Method, MethodParams, Space
from iadd.pipeline.config.file import first_problem

Ranges = dict[str, dict[str, Any] | list[Any] | None]


class SearchConfig(BaseModel):
    """Which methods are tuned, by what, and at what price; the same budget for every method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[str, ...] = Field((), description="Methods that are tuned.")
    searcher: Literal["tpe", "random"] = Field("tpe", description="Who proposes settings.")
    scheduler: Literal["asha", "median", "none"] = Field(
        "asha", description="Ray's scheduler that stops trials early."
    )
    trials: int = Field(32, ge=1, description="Budget: settings tried, the first the default.")
    seconds: float | None = Field(None, gt=0, description="Budget: wall time of the trials.")
    gpu_hours: float | None = Field(None, gt=0, description="Budget: trials' time on cards.")
    rungs: int = Field(9, ge=1, description="Validation measurements a trial, evenly spaced.")
    reduction: int = Field(
        4, ge=2, description="ASHA goes on with the best one in so many, and with their equals."
    )
    workers: int = Field(
        1,
        ge=1,
        description="Trials side by side; with one, a killed search ends with the same winner.",
    )
    cpus: float = Field(1, gt=0, description="Cores a trial.")
    gpus: float = Field(
        0, ge=0, description="Cards a trial; 0.25, four on a card, helps only with NVIDIA MPS."
    )
    memory_mb: int | None = Field(
        None, ge=1, description="Peak memory of a trial; default: an estimate. Limits packing."
    )
    retries: int = Field(2, ge=0, description="How often a trial that failed is tried again.")
    finalists: int = Field(3, ge=1, description="Best trials judged again, beside the default.")
    confirm_seeds: int = Field(3, ge=1, description="Fresh distillations of each finalist.")
    confirm_networks: int = Field(5, ge=1, description="Validation networks of each of them.")
    points: dict[str, list[dict[str, Any]]] = Field(
        default_factory=dict,
        description="Method -> list of parameters tried first, after the default.",
    )
    space: dict[str, Ranges] = Field(
        default_factory=dict,
        description="Method -> parameter -> its range, a list of choices, or `null` to leave it "
        "alone; the example shows each. Others keep the method's own ranges.",
    )

    @property
    def budget(self) -> str:
        """What every tuned method was given, in words for tables; empty where none is tuned."""
        if not self.methods:
            return ""
        limits = [f"at most {self.seconds:g} s"] if self.seconds else []
        limits += [f"at most {self.gpu_hours:g} GPU hours"] if self.gpu_hours else []
        return f"{self.trials} trials ({', '.join([self.searcher, self.scheduler, *limits])})"

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        for key, named in (("points", self.points), ("space", self.space)):
            for name in named:
                if name not in self.methods:
                    raise ValueError(f"{key}.{name}: is not among the tuned {list(self.methods)}")
        return self


def space_of(
    method: str,
    kind: type[Method],
    given: dict[str, Any],
    changes: Ranges,
    recipes: Sequence[dict[str, Any]] = (),
) -> Space:
    """A method's search space: its own ranges, a benchmark's changes, widened to what is given.

    Args:
        method: its name in the benchmark.
        kind: its class.
        given: the parameters that the benchmark gives it; their values are the default.
        changes: the benchmark's ranges by parameter; None takes a parameter out.
        recipes: the benchmark's further points; they lie in the space like the default.

    Raises:
        ValueError: one line for an unknown parameter, a malformed range, a point of what is not
            searched, or a value that the method refuses.
    """
    fields = kind.Params.model_fields
    space: Space = dict(kind.space)
    for name, change in changes.items():
        where = f"search.space.{method}.{name}"
        if name not in fields:
            raise ValueError(f"{where}: unknown parameter; allowed: {', '.join(fields)}")
        space.pop(name, None)
        if change is not None:
            space[name] = _range(where, change)
    if not space:
        raise ValueError(f"search.space.{method}: nothing is left to tune")
    for point in points_of(method, kind, given, space, recipes):
        for name, over in space.items():
            space[name] = _with_point(f"search.space.{method}.{name}", over, point[name])
    for name, over in space.items():
        for end in ends(over):
            _params(f"search.space.{method}", kind, given, {name: end})
    return space


def points_of(
    method: str,
    kind: type[Method],
    given: dict[str, Any],
    space: Space,
    recipes: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """What a search tries first: the default, then each recipe; what it leaves out is as given."""
    points = [_params(f"methods.{method}", kind, given, {})]
    for recipe in recipes:
        where = f"search.points.{method}"
        for name in recipe:
            if name not in space:
                raise ValueError(f"{where}: {name!r} is not searched; allowed: {', '.join(space)}")
        points.append(_params(where, kind, given, recipe))
    return [{name: getattr(params, name) for name in space} for params in points]


def ends(over: Any) -> list[Any]:
    """All choices, or the ends of a range."""
    return over if isinstance(over, list) else list(over[1:])


def _range(where: str, change: Any) -> Any:
    """A range of the file as the space has it: kind and ends, or choices."""
    if isinstance(change, list):
        if len(change) < 2:
            raise ValueError(f"{where}: {change}: at least two choices are needed")
        return list(change)
    form = f"{where}: {change}: allowed are {{log|uniform|int: [low, high]}} and a list of choices"
    if not isinstance(change, dict) or len(change) != 1:
        raise ValueError(form)
    ((kind, given),) = change.items()
    if kind not in methods.RANGES or not isinstance(given, list) or len(given) != 2:
        raise ValueError(form)
    for end in given:
        if isinstance(end, bool) or not isinstance(end, int if kind == "int" else int | float):
            what = "whole number" if kind == "int" else "number"
            raise ValueError(f"{where}: {end!r} is no {what} (without quotes)")
    if not given[0] < given[1]:
        raise ValueError(form)
    if kind == "log" and given[0] <= 0:
        raise ValueError(f"{where}: a logarithmic range starts above 0, not at {given[0]}")
    low, high = (end if kind == "int" else float(end) for end in given)
    return kind, low, high


def _with_point(where: str, over: Any, value: Any) -> Any:
    """The range stretched so that the default, or a point, lies in it."""
    if isinstance(over, list):
        return over if value in over else [value, *over]
    kind, low, high = over
    number = isinstance(value, int | float)
    if not number or (kind == "log" and value <= 0) or (kind == "int" and value != int(value)):
        what = f"a {kind} range cannot hold {value}, which is the default or a point"
        raise ValueError(f"{where}: {what}; list choices")
    return kind, min(low, value), max(high, value)


def _params(
    where: str, kind: type[Method], given: dict[str, Any], changes: dict[str, Any]
) -> MethodParams:
    """The method's parameters with changes, which are used as they stand: no text for a number."""
    try:
        params = kind.Params(**(given | changes))
    except ValidationError as error:
        raise ValueError(f"{where}: {first_problem(error)}") from None
    for name, value in changes.items():
        if isinstance(value, str) and not isinstance(getattr(params, name), str):
            raise ValueError(f"{where}: {name}: {value!r} is text; no quotes")
    return params
