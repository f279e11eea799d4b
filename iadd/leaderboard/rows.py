"""What the tables hold: one class a table, from which its Parquet schema follows.

A field's type is its column's type: `int` is int64, `float` float64, `list[int]` a list of int32,
`list[float]` one of float64, `dict[str, float]` a map; `| None` allows null, `Literal` names the
only values allowed, `Fraction` is a float in [0, 1]. All times are in seconds, all sizes in bytes.
"""

from __future__ import annotations

import dataclasses
import json
import types
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

Fraction = Annotated[float, "fraction"]
LabelRegime = Literal["hard", "soft", "soft+teacher"]
Source = Literal["measured", "submitted"]
ARROW: dict[Any, pa.DataType] = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bool: pa.bool_(),
    list[int]: pa.list_(pa.int32()),
    list[float]: pa.list_(pa.float64()),
    dict[str, float]: pa.map_(pa.string(), pa.float64()),
}


class Row:
    """Base of the tables' rows."""

    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]
    """Columns that say what a row is about: tables are sorted by them."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(Row):
    """One evaluation network: trained on one distilled set, tested once."""

    table = "evaluations"
    key = (
        *("benchmark", "dataset", "ipc", "method", "source", "label_regime", "tuned"),
        *("network_distill", "protocol", "network_eval", "seed", "eval_seed"),
    )

    spec_version: str
    protocol: str
    benchmark: str
    dataset: str
    ipc: int
    method: str
    source: Source  # distilled by this benchmark, or a file that somebody submitted
    tuned: bool  # whether a search found the parameters
    label_regime: LabelRegime
    reconstruction: bool  # whether the method is one without public code, rebuilt from its paper
    network_distill: str
    network_eval: str
    seed: int  # of the distillation
    eval_seed: int
    accuracy: Fraction | None
    balanced_accuracy: Fraction | None = None  # mean of the classes' recalls
    confusion: list[int] | None = None
    """Counts on the test set, K * K for K classes, row after row, a row being a true class."""
    recall: list[float] | None = None
    """Of each class; so are the next two, each class against all others."""
    specificity: list[float] | None = None
    auroc: list[float] | None = None
    train_accuracy: Fraction | None
    status: Literal["ok", "diverged", "failed"]  # of this network
    distill_status: Literal["ok", "diverged"]  # of the distillation that made the set
    expert_seconds: float | None
    distill_seconds: float | None  # without the validation probes
    validation_seconds: float | None
    evaluate_seconds: float | None
    distill_gpu_seconds: float | None = None  # of those, with the probes, on a card; 0 on a CPU
    evaluate_gpu_seconds: float | None = None
    host_peak_bytes: int | None  # the most memory of the two jobs that made the row
    device_peak_bytes: int | None
    image_bytes: int | None
    label_bytes: int | None
    params: str
    source_hash: str
    git_commit: str | None
    torch_version: str
    device: str


@dataclass(frozen=True, kw_only=True)
class TraceRow(Row):
    """One iteration of a distillation; rows of one run keep their order, which is a history."""

    table = "traces"
    key = ("dataset", "ipc", "method", "tuned", "seed")

    dataset: str
    ipc: int
    method: str
    tuned: bool
    seed: int
    iteration: int
    loss: float | None
    step_size: float | None
    validation_accuracy: Fraction | None  # balanced where classes are unequal (`choice_of`)
    seconds: float
    event: Literal["", "skipped", "rollback", "diverged"]
    path: str  # which engine computed the gradient
    extra: dict[str, float]  # the method's own columns (its `trace_columns`)

    @classmethod
    def of(cls, **values: Any) -> TraceRow:
        """A row of all that a method's trace tells of one iteration; what has no column is extra.

        None among a method's own values means that there was nothing to tell.
        """
        known = {field.name for field in dataclasses.fields(cls)} - {"extra"}
        extra = {n: float(v) for n, v in values.items() if n not in known and v is not None}
        return cls(**{name: values.get(name) for name in known}, extra=extra)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class TrialRow(Row):
    """What one trial of a search had reached at one rung."""

    table = "trials"
    key = ("benchmark", "dataset", "method", "ipc", "trial", "rung", "iteration", "seed")

    benchmark: str
    dataset: str
    method: str
    ipc: int
    trial: int
    config: str
    rung: int
    iteration: int
    validation_accuracy: Fraction | None
    seconds: float
    device: str
    status: str
    seed: int
    spec_version: str


CELL = ("dataset", "ipc", "network_eval", "protocol", "label_regime", "tuned")
"""What methods must have in common to be compared."""


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow(Row):
    """One method in one cell: what it reached, how sure that is, and its rank there."""

    table = "leaderboard"
    key = (*CELL, "method", "source")

    dataset: str
    ipc: int
    network_eval: str  # or `ranking.UNSEEN`: the mean of all networks but the one distilled on
    protocol: str
    label_regime: LabelRegime
    tuned: bool
    method: str
    source: Literal["measured", "submitted", "published"]
    reconstruction: bool
    network_distill: str
    n_seeds: int | None
    n_networks: int | None
    accuracy_mean: Fraction | None
    accuracy_std: float | None  # of the seeds' means; of a published value as its source has it
    accuracy_low: Fraction | None = None
    accuracy_high: Fraction | None = None
    balanced_accuracy_mean: Fraction | None = None
    balanced_accuracy_low: Fraction | None = None
    balanced_accuracy_high: Fraction | None = None
    ranked_by: Literal["accuracy", "balanced_accuracy"] | None = None
    """What ranks go by: the latter where the tested classes are unequal; null: not tested."""
    rank_low: int | None = None
    rank_high: int | None = None
    lrs: float | None = None
    ars: float | None = None
    recall: list[float] | None = None
    """Of each class, mean over seeds."""
    positive: str | None = None  # the class that the next columns speak of, where one is named
    sensitivity_mean: Fraction | None = None
    sensitivity_low: Fraction | None = None
    sensitivity_high: Fraction | None = None
    specificity_mean: Fraction | None = None
    specificity_low: Fraction | None = None
    specificity_high: Fraction | None = None
    auroc: Fraction | None = None
    """Of the positive class; without one the mean over the classes, each against all others."""
    auroc_low: Fraction | None = None
    auroc_high: Fraction | None = None
    distill_seconds: float | None = None
    validation_seconds: float | None = None
    evaluate_seconds: float | None = None
    """Of a seed's networks here, together; the mean over seeds, as of all times."""
    gpu_seconds: float | None = None  # a seed's distillation, probes and networks, on a card
    host_peak_bytes: int | None = None  # the most of any seed's jobs; so is the next
    device_peak_bytes: int | None = None
    bytes: int | None = None
    whole_bytes: int | None = None  # of the whole training part: `savings.Data`
    bytes_share: float | None = None
    transmission_seconds: float | None = None  # at 100 Mbit/s
    whole_transmission_seconds: float | None = None
    epochs: int | None = None  # that an evaluation network was trained for; so are the next two
    batch: int | None = None
    default_step_size: float | None = None  # where the set brings none of its own, or none is taken
    train_seconds: float | None = None  # of one evaluation network, its test included
    whole_train_seconds: float | None = None  # the same on the whole data
    whole_train_source: Literal["measured", "forecast"] | None = None
    n_diverged: int = 0  # evaluation networks that diverged
    n_failed: int = 0  # evaluation networks without any accuracy
    n_diverged_runs: int = 0  # distillations that diverged
    n_collapsed_runs: int = 0  # distillations that ended with collapsed importance weights
    test_images: int | None = None
    test_imbalance: float | None = None
    """The most frequent class of the test set, as a multiple of the rarest."""
    published: Fraction | None = None  # the published value of this method here
    agrees: Literal["agrees", "lower", "higher", "undecided"] | None = None
    """With the published value."""
    more_seeds: int | None = None  # that would settle what is undecided
    citation: str | None = None  # where a published value was found


@dataclass(frozen=True, kw_only=True)
class ComparisonRow(Row):
    """How much better a method is than another in one cell, over their common seeds."""

    table = "comparisons"
    key = (*CELL, "score", "method", "other")

    dataset: str
    ipc: int
    network_eval: str
    protocol: str
    label_regime: LabelRegime
    tuned: bool
    score: Literal["accuracy", "balanced_accuracy"]  # the latter where classes are imbalanced
    method: str
    other: str
    n_seeds: int  # that both have
    difference: float  # of the mean scores, `method` minus `other`
    low: float  # of its 95 % interval
    high: float
    p: Fraction  # of the paired test
    p_holm: Fraction  # corrected for all pairs of the cell
    significant: bool  # at 5 %, so corrected
    more_seeds: int | None = None  # that would make it so, if mean and spread stay


def schema_of(row: type[Row]) -> pa.Schema:
    """The Parquet schema of a table; its metadata hold the table's name and key."""
    kinds = get_type_hints(row, include_extras=True)
    names = [field.name for field in dataclasses.fields(row)]  # type: ignore[arg-type]
    fields = [_field(name, kinds[name]) for name in names]
    return pa.schema(fields, metadata={"table": row.table, "key": json.dumps(row.key)})


def _field(name: str, kind: Any) -> pa.Field:
    nullable = get_origin(kind) in (Union, types.UnionType)
    if nullable:
        kind = next(part for part in get_args(kind) if part is not type(None))
    rules: dict[str, str] = {}
    if get_origin(kind) is Annotated:
        rules["fraction"] = "yes"
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        rules["allowed"] = json.dumps(get_args(kind))
        kind = str
    return pa.field(name, ARROW[kind], nullable=nullable, metadata=rules or None)


EVALUATIONS, TRACES = schema_of(EvaluationRow), schema_of(TraceRow)
TRIALS, LEADERBOARD = schema_of(TrialRow), schema_of(LeaderboardRow)
COMPARISONS = schema_of(ComparisonRow)
