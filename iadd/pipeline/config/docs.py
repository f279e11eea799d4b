"""The pages that are made from the code: config/README.md, every key with its sentence."""

from __future__ import annotations

from collections.abc import Iterable
from types import NoneType
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from iadd import methods
from iadd.data import DATASETS
from iadd.evaluation.protocols import PROTOCOLS
from iadd.experts import RECIPES, Recipe
from iadd.networks.architectures import ARCHITECTURES
from iadd.pipeline.config.benchmark import Config
from iadd.pipeline.config.dataset import DatasetConfig
from iadd.pipeline.config.experts import ExpertsConfig
from iadd.pipeline.config.judging import EvaluationConfig, PrivacyConfig, ValidationConfig
from iadd.pipeline.config.method import MethodConfig
from iadd.pipeline.config.search import SearchConfig
from iadd.pipeline.config.submission import SubmissionConfig


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


HEAD = """# Configuration

One YAML file is one benchmark. Unknown keys are refused, and values are checked before anything
runs. Only `benchmark`, `ipc`, `datasets`, `evaluations` and `methods` must be there. A default of
`null` (a description's "none") means that there is nothing unless you say so. Keys that begin with
a dot are ignored and may hold YAML anchors (`config/digits.yaml` shares settings between methods
so). Threads, memory and partitions belong to the machine and stand in `workflow/profiles/`.

This page is made from the code: `python -m iadd.pipeline.config.docs` prints it, from an installed
package too.

## An example

It shows the keys whose values have a structure of their own.

```yaml
benchmark: xrays
seeds: 5
ipc: [1, 10]
datasets:
  - name: folder # your own images
    label: xrays # what tables call them
    root: /data/xrays
    groups: /data/xrays/patients.csv # columns file,group: no patient on two sides of a cut
evaluations: # each trains fresh networks on every distilled set
  - networks: {convnet-d3-w32: 5, mlp: 2} # five ConvNets and two MLPs
methods:
  random: # no parameters given: the method's defaults
  dm: {params: {iterations: 1000}} # params: for every ipc; this page lists a method's own below
  mtt:
    params: {lr_img: 30, clip: 1.0}
    ipc: # what differs at one ipc, put over params
      1: {iterations: 300}
      10: {iterations: 120, max_start: 20}
  unclipped: {method: mtt, params: {lr_img: 30}} # the same method under a name of its own
controls: # in a figure, unclipped is compared with mtt, seed by seed
  mtt: [unclipped]
experts:
  recipe: {step_size: 0.01} # of all experts
  recipes: {flat: {rho: 0.1}} # of those that ftd asks for
search:
  methods: [mtt] # the entries that are tuned
  points: # tried right after the settings above
    mtt: [{lr_img: 100}, {lr_img: 300, max_start: 5}]
  space: # instead of the method's own ranges
    mtt:
      lr_img: {log: [1, 1000]} # or uniform: [low, high], int: [low, high]
      max_start: [5, 10, 20] # a list of choices
      lr_lr: null # not searched
```
"""
SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("An entry of `datasets`", DatasetConfig),
    ("`experts`", ExpertsConfig),
    ("`experts.recipe`", Recipe),
    ("`validation`", ValidationConfig),
    ("An entry of `evaluations`", EvaluationConfig),
    ("An entry of `methods`", MethodConfig),
    ("`search`", SearchConfig),
    ("`privacy`", PrivacyConfig),
    ("An entry of `submissions`", SubmissionConfig),
)
KINDS = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
NAMES = f"""## Names

- Data sets: {_listed(DATASETS)}.
- Networks: {_listed(ARCHITECTURES)}, or `torchvision-<model>`. Options follow after
  dashes: `d3` (blocks), `w32` (channels), `batchnorm`, `leakyrelu`, `maxpool`, ... A wrong one is
  answered with those allowed.
- Protocols: {_listed(PROTOCOLS)}. SPEC.md says what each fixes.
- Recipes of experts: {_listed(RECIPES)}. A method asks for one; most for `standard`.
- Methods: their list with sources is in the README, their parameters are below.
"""
BOUNDS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
UNBOUNDED = 1e30
"""A bound that only keeps float32 from overflowing."""


def render() -> str:
    """config/README.md as text."""
    parts = [HEAD, NAMES, _table("The file", Config)]
    parts += [_table(title, model) for title, model in SECTIONS]
    parts.append("# Methods and their parameters\n")
    for name in methods.names():
        kind = methods.find(name)
        sentence = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        parts.append(_table(f"`{name}`: {sentence}", kind.Params))
    return "\n".join(parts)


def _table(title: str, model: type[BaseModel]) -> str:
    lines = [f"## {title}\n"]
    if model.model_fields:
        lines += ["| key | value | default | what it is |", "|---|---|---|---|"]
    else:
        lines += ["It has no parameters."]
    for key, field in model.model_fields.items():
        default = "**required**" if field.is_required() else f"`{_plain(field)}`"
        lines.append(f"| `{key}` | {_value(field)} | {default} | {field.description} |")
    return "\n".join([*lines, ""])


def _value(field: FieldInfo) -> str:
    """What may stand there: kind, allowed words, bounds."""
    bounds = [
        f"{word} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, word in BOUNDS.items()
        if hasattr(limit, name) and abs(getattr(limit, name)) < UNBOUNDED
    ]
    nothing = NoneType in get_args(field.annotation) and field.default is not None
    return " ".join([_kind(field.annotation), ", ".join(bounds)]).strip() + (
        ", or `null`" if nothing else ""
    )


def _kind(annotation: object) -> str:
    """A type in the words of YAML."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in KINDS:
        return KINDS[annotation]
    if origin is Literal:
        return _listed(parts)
    if origin in (tuple, list):
        return "list, see the tables below" if _section(parts[0]) else f"list: {_kind(parts[0])}"
    if origin is dict:
        return "mapping"
    if _section(annotation):
        return "mapping, see its table"
    return _kind(parts[0])  # Optional, or Annotated


def _section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _plain(field: FieldInfo) -> str:
    """A default as YAML has it."""
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "null"
    if isinstance(value, BaseModel | dict):
        return "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    print(render(), end="")
