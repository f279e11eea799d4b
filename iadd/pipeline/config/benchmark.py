"""A benchmark as YAML -> frozen typed models; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from iadd import methods
from iadd.artifacts import one_line
from iadd.methods import Method, MethodParams, Space
from iadd.networks import parse_name
from iadd.pipeline.config.dataset import DatasetConfig
from iadd.pipeline.config.experts import ExpertsConfig
from iadd.pipeline.config.file import (
    NAME,
    Section,
    allowed_keys,
    check_booleans,
    check_numbers,
    first_problem,
    read_yaml,
)
from iadd.pipeline.config.judging import EvaluationConfig, PrivacyConfig, ValidationConfig
from iadd.pipeline.config.method import MethodConfig, check_entry
from iadd.pipeline.config.search import SearchConfig, points_of, space_of
from iadd.pipeline.config.submission import SubmissionConfig


class Config(Section):
    """A benchmark: data sets x methods x ipc x seeds, and how they are judged."""

    benchmark: str = Field(pattern=NAME, description="Its results lie in `results/<name>/`.")
    seed: int = Field(0, description="Base of every seed.")
    seeds: int = Field(3, ge=1, description="Distillation seeds a method: 0..seeds-1.")
    ipc: tuple[int, ...] = Field(min_length=1, description="Images per class.")
    datasets: tuple[DatasetConfig, ...] = Field(min_length=1, description="Data it runs on.")
    network: str = Field("convnet-d3-w128", description="Network distilled on, and of the experts.")
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="Products of that network on a GPU: `tf32` and `bf16` are faster and coarser. "
        "Networks that judge always use float32.",
    )
    experts: ExpertsConfig = Field(
        ExpertsConfig(), description="Networks trained on the real data, whose paths are matched."
    )
    validation: ValidationConfig = Field(
        ValidationConfig(), description="How the best images of a run are chosen."
    )
    evaluations: tuple[EvaluationConfig, ...] = Field(
        min_length=1, description="How distilled sets are judged."
    )
    methods: dict[str, MethodConfig] = Field(
        min_length=1, description="Name -> its settings, or nothing; each is a row of the tables."
    )
    search: SearchConfig = Field(
        SearchConfig(), description="Which methods' parameters are searched for, and how."
    )
    privacy: PrivacyConfig | None = Field(
        None, description="A report on privacy: what sets give away; `{}` for the defaults."
    )
    submissions: tuple[SubmissionConfig, ...] = Field(
        (), description="Other people's distilled sets, judged beside the methods."
    )
    controls: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Control -> list of the entries that a figure compares with it, seed by seed. "
        "Only these comparisons are corrected for, so declare them before the run.",
    )

    _origin: str = PrivateAttr("configuration")

    @property
    def origin(self) -> str:
        """What messages call the file that it was read from."""
        return self._origin

    @field_validator("experts", "validation", "search", mode="before")
    @classmethod
    def _empty(cls, given: Any) -> Any:
        """A section of which everything is commented out has its defaults."""
        return {} if given is None else given

    @field_validator("network")
    @classmethod
    def _network(cls, name: str) -> str:
        parse_name(name)
        return name

    @field_validator("methods", mode="before")
    @classmethod
    def _bare(cls, given: Any) -> Any:
        """`random:` alone means no parameters."""
        return (
            {k: {} if v is None else v for k, v in given.items()}
            if isinstance(given, dict)
            else given
        )

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if any(ipc < 1 for ipc in self.ipc) or len(set(self.ipc)) < len(self.ipc):
            raise ValueError(f"ipc {list(self.ipc)}: allowed are distinct numbers from 1 on")
        for kind, found in (
            ("datasets", [d.key for d in self.datasets]),
            ("evaluations", [e.protocol for e in self.evaluations]),
            ("submissions", [s.name for s in self.submissions]),
        ):
            if len(set(found)) < len(found):
                raise ValueError(f"{kind}: {found} are not distinct; give each its own name")
        for dataset in self.datasets:
            for ipc in set(dataset.ipc or ()) - set(self.ipc):
                allowed = ", ".join(map(str, self.ipc))
                raise ValueError(f"data set {dataset.key}: ipc {ipc} is none of ipc: {allowed}")
        for submission in self.submissions:
            self.dataset(submission.dataset)
            if submission.name in self.methods:
                raise ValueError(f"submissions: {submission.name} is a name in methods already")
        if self.privacy and "random" not in map(self.method, self.methods):
            raise ValueError("privacy: needs random in methods, the real images to compare with")
        for name, entry in self.methods.items():
            check_entry(name, entry)
            for ipc in self.ipcs(name):
                self.params(name, ipc)
        known = {*self.methods, *(s.name for s in self.submissions)} - {"whole"}
        for control, entries in self.controls.items():
            if not entries or len({control, *entries}) <= len(entries):
                raise ValueError(f"controls.{control}: {list(entries)}: allowed are other entries")
            for name in sorted({control, *entries} - known):
                listed = ", ".join(sorted(known))
                raise ValueError(f"controls: {name} is none of the ranked entries: {listed}")
        for name in self.search.methods:
            if name not in self.methods:
                raise ValueError(f"search.methods: {name} is not in methods: {list(self.methods)}")
            if not self.kind(name).space:
                raise ValueError(f"search.methods: method {name} has nothing to tune")
            for ipc in self.ipcs(name):
                self.space(name, ipc)
        return self

    def ipcs(self, method: str, dataset: str | None = None) -> tuple[int, ...]:
        """The ipc values that a method runs at, on one data set or on any.

        `whole` has none and is filed under 0.
        """
        if method == "whole":
            return (0,)
        return (self.dataset(dataset).ipc if dataset else None) or self.ipc

    @property
    def held_against(self) -> list[tuple[str, str]]:
        """(entry, control) of all that `controls` declares, in its order."""
        found = self.controls.items()
        return [(entry, control) for control, entries in found for entry in entries]

    def recipe(self, method: str) -> str | None:
        """Which recipe a method's experts follow here; None where it needs none."""
        own = self.kind(method).experts
        return own and (self.methods[method].experts or own)

    def method(self, entry: str) -> str:
        """The method of an entry of `methods`, which goes by the entry's name everywhere else."""
        return self.methods[entry].method or entry

    def kind(self, entry: str) -> type[Method]:
        """The class of that method."""
        return methods.find(self.method(entry))

    def given(self, method: str, ipc: int) -> dict[str, Any]:
        """The parameters that the file gives a method at one ipc; defaults are not filled in."""
        return self.methods[method].params | self.methods[method].ipc.get(ipc, {})

    def space(self, method: str, ipc: int) -> Space:
        """What a search of a tuned method may vary."""
        search = self.search
        changes, recipes = search.space.get(method, {}), search.points.get(method, ())
        return space_of(method, self.kind(method), self.given(method, ipc), changes, recipes)

    def points(self, method: str, ipc: int) -> list[dict[str, Any]]:
        """What a search of a tuned method tries first: the default, then the given points."""
        recipes = self.search.points.get(method, ())
        given, space = self.given(method, ipc), self.space(method, ipc)
        return points_of(method, self.kind(method), given, space, recipes)

    def params(self, method: str, ipc: int, point: Mapping[str, Any] | None = None) -> MethodParams:
        """A method's validated parameters at one ipc, `point` (of a search) put over the given."""
        Params, given = self.kind(method).Params, self.given(method, ipc) | dict(point or {})
        try:
            params = Params(**given)
        except ValidationError as error:
            known = allowed_keys(error, Params)
            raise ValueError(f"methods.{method}: {first_problem(error)}{known}") from None
        check_booleans(given, params.model_dump(), f"methods.{method}")
        return params

    def submission(self, name: str) -> SubmissionConfig | None:
        """The submission of that name, if it is no method."""
        return next((s for s in self.submissions if s.name == name), None)

    def dataset(self, key: str) -> DatasetConfig:
        """The data set of that name in this benchmark."""
        for dataset in self.datasets:
            if dataset.key == key:
                return dataset
        known = ", ".join(d.key for d in self.datasets)
        raise ValueError(f"data set {key!r} is not in this benchmark; it has {known}")


def load_config(path: str | Path) -> Config:
    """Read and check a benchmark's YAML file.

    Raises:
        ValueError: one line naming the file, the key, the value and what is allowed.
    """
    path = Path(path)
    return parse_config(read_yaml(path), str(path))


def parse_config(raw: Any, origin: str) -> Config:
    """Check a benchmark given as plain data; `origin` names it in errors."""
    if not isinstance(raw, dict):
        raise ValueError(f"{origin}: must be a mapping with keys like benchmark, methods, ipc")
    # Keys that start with a dot hold YAML anchors, to be shared between methods.
    raw = {str(key): value for key, value in raw.items() if not str(key).startswith(".")}
    try:
        check_numbers(raw)
        config = Config(**raw)
        check_booleans(raw, config.model_dump())
        config._origin = origin
    except ValidationError as error:
        problem = first_problem(error) + allowed_keys(error, Config)
        raise ValueError(f"{origin}: {one_line(problem)}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin}: {one_line(str(error))}") from None
    return config
