"""The pages that are made from the code: config/README.md, every key with its sentence."""

from __future__ import annotations

from pydantic import BaseModel

from iadd import methods
from iadd.experts import Recipe
from iadd.pipeline.config.benchmark import Config
from iadd.pipeline.config.dataset import DatasetConfig
from iadd.pipeline.config.experts import ExpertsConfig
from iadd.pipeline.config.judging import EvaluationConfig, PrivacyConfig, ValidationConfig
from iadd.pipeline.config.method import MethodConfig
from iadd.pipeline.config.search import SearchConfig
from iadd.pipeline.config.submission import SubmissionConfig

HEAD = """# Configuration

One YAML file is one benchmark. Unknown keys are refused, values are checked before anything runs.
Keys that begin with a dot are ignored and may hold YAML anchors (`config/digits.yaml` shares
settings between methods so). Threads, memory and partitions are the machine's business and live in
`workflow/profiles/`.

This page is made from the code: `python -m iadd.pipeline.config.docs > config/README.md`.
"""


def render() -> str:
    """config/README.md as text."""
    parts = [HEAD, _table("The file", Config)]
    for title, model in (
        ("An entry of `datasets`", DatasetConfig),
        ("`experts`", ExpertsConfig),
        ("`experts.recipe`", Recipe),
        ("`validation`", ValidationConfig),
        ("An entry of `evaluations`", EvaluationConfig),
        ("An entry of `methods`", MethodConfig),
        ("`search`", SearchConfig),
        ("`privacy`", PrivacyConfig),
        ("An entry of `submissions`", SubmissionConfig),
    ):
        parts.append(_table(title, model))
    parts.append("# Methods and their parameters\n")
    for name in methods.names():
        kind = methods.find(name)
        sentence = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        parts.append(_table(f"`{name}`: {sentence}", kind.Params))
    return "\n".join(parts)


def _table(title: str, model: type[BaseModel]) -> str:
    lines = [f"## {title}\n"]
    if model.model_fields:
        lines += ["| key | default | what it is |", "|---|---|---|"]
    for key, field in model.model_fields.items():
        default = "**required**" if field.is_required() else f"`{_plain(field.get_default())}`"
        if isinstance(field.get_default(call_default_factory=True), BaseModel | dict):
            default = "see below"
        lines.append(f"| `{key}` | {default} | {field.description or 'See below.'} |")
    return "\n".join([*lines, ""])


def _plain(value: object) -> str:
    return "none" if value is None else str(value)


if __name__ == "__main__":
    print(render(), end="")
