"""What a search is asked to do, and what it may vary: the `search:` section of a benchmark."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iadd import methods
from iadd.methods import Space

KINDS = ("log", "uniform", "int")
Ranges = dict[str, dict[str, list[float]] | list[Any] | None]


class SearchConfig(BaseModel):
    """Which methods are tuned, by what, and at what price; the same budget for every method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[str, ...] = Field((), description="Methods that are tuned.")
    searcher: Literal["tpe", "random", "grid"] = Field("tpe", description="Who proposes settings.")
    scheduler: Literal["asha", "median", "pbt", "none"] = Field(
        "asha",
        description="Who stops trials early; `pbt` trains a population and finds a schedule.",
    )
    trials: int = Field(
        32, ge=1, description="Budget: settings tried, the first the default; of pbt the members."
    )
    seconds: float | None = Field(None, gt=0, description="Budget: wall time of the trials.")
    gpu_hours: float | None = Field(None, gt=0, description="Budget: trials' time on cards.")
    rungs: int = Field(9, ge=1, description="Validation measurements a trial, evenly spaced.")
    reduction: int = Field(
        4, ge=2, description="ASHA goes on with one trial in so many, and with new records."
    )
    workers: int = Field(
        1, ge=1, description="Trials side by side; with one, a search is deterministic."
    )
    cpus: float = Field(1, gt=0, description="Cores a trial.")
    gpus: float = Field(0, ge=0, description="Cards a trial; 0.25 packs four on a card.")
    memory_mb: int | None = Field(
        None, ge=1, description="Peak memory of a trial; default: an estimate. Limits packing."
    )
    retries: int = Field(2, ge=0, description="How often a trial that failed is tried again.")
    finalists: int = Field(3, ge=1, description="Best trials judged again, beside the default.")
    confirm_seeds: int = Field(3, ge=1, description="Fresh distillations of each finalist.")
    confirm_networks: int = Field(5, ge=1, description="Validation networks of each of them.")
    grid: int = Field(3, ge=2, description="Values of a range, where the searcher is `grid`.")
    points: dict[str, list[dict[str, Any]]] = Field(
        default_factory=dict, description="Further recipes tried right after the default."
    )
    space: dict[str, Ranges] = Field(
        default_factory=dict,
        description="A method's ranges that differ from its own: {log|uniform|int: [low, high]}, "
        "a list of choices, or null to leave a parameter alone.",
    )

    @property
    def budget(self) -> str:
        """What every tuned method was given, in words for tables; empty where none is tuned."""
        if not self.methods:
            return ""
        limits = [f"at most {self.seconds:g} s"] if self.seconds else []
        limits += [f"at most {self.gpu_hours:g} GPU hours"] if self.gpu_hours else []
        return f"{self.trials} trials ({', '.join([self.searcher, self.scheduler, *limits])})"

    @field_validator("methods")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not methods.find(name).space:
                raise ValueError(f"method {name} has nothing to tune")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        for key, named in (("points", self.points), ("space", self.space)):
            for name in named:
                if name not in self.methods:
                    raise ValueError(f"{key}.{name}: is not among the tuned {list(self.methods)}")
        return self


def space_of(method: str, given: dict[str, Any], changes: Ranges) -> Space:
    """A method's search space: its own ranges, a benchmark's changes, widened to the default.

    Args:
        method: its name.
        given: the parameters that the benchmark gives it; their values are the default.
        changes: the benchmark's ranges by parameter; None takes a parameter out.

    Raises:
        ValueError: one line for an unknown parameter, a malformed range, or one whose ends the
            method refuses.
    """
    kind = methods.find(method)
    fields = [name for name in kind.Params.model_fields if name != "schedule"]
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
    default = kind.Params(**given)
    for name, over in space.items():
        space[name] = _with_default(method, name, over, getattr(default, name))
        for value in _ends(space[name]):
            _accepted(method, name, value, given)
    return space


def _range(where: str, change: dict[str, list[float]] | list[Any]) -> Any:
    if isinstance(change, list):
        if len(change) < 2:
            raise ValueError(f"{where}: {change}: at least two choices are needed")
        return list(change)
    form = f"{where}: {change}: allowed are {{log|uniform|int: [low, high]}} and a list of choices"
    if len(change) != 1:
        raise ValueError(form)
    ((kind, ends),) = change.items()
    if kind not in KINDS or len(ends) != 2 or not ends[0] < ends[1]:
        raise ValueError(form)
    if kind == "log" and ends[0] <= 0:
        raise ValueError(f"{where}: a logarithmic range starts above 0, not at {ends[0]}")
    low, high = (int(end) if kind == "int" else float(end) for end in ends)
    return kind, low, high


def _with_default(method: str, name: str, over: Any, default: Any) -> Any:
    """The range stretched so that the default lies in it: it is the first point that is tried."""
    if isinstance(over, list):
        return over if default in over else [default, *over]
    kind, low, high = over
    if default is None or (kind == "log" and default <= 0):
        where = f"search.space.{method}.{name}"
        raise ValueError(f"{where}: a {kind} range cannot hold the default {default}; list choices")
    return kind, min(low, default), max(high, default)


def _ends(over: tuple[str, Any, Any] | list[Any]) -> list[Any]:
    return over if isinstance(over, list) else list(over[1:])


def _accepted(method: str, name: str, value: Any, given: dict[str, Any]) -> None:
    try:
        methods.find(method).Params(**(given | {name: value}))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(
            f"search.space.{method}.{name}: the method refuses {value!r}: {reason}"
        ) from None
