"""How a benchmark judges: its evaluations, and the probe that chooses on validation data."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from iadd.evaluation.protocols import Protocol, find_protocol
from iadd.experts import named_recipe
from iadd.networks import parse_name
from iadd.pipeline.config.file import Section


class EvaluationConfig(Section):
    """One protocol with its networks; what is left out is as the protocol says."""

    protocol: str = Field("mtt-v1", description="One of the protocols above.")
    networks: dict[str, int] = Field(
        min_length=1, description="Network name -> how many are trained a set."
    )
    epochs: int = Field(
        default=None,
        validate_default=True,
        ge=1,
        description="Epochs on a distilled set; default: the protocol's.",
    )
    whole_epochs: int = Field(100, ge=1, description="Epochs on the whole data (method `whole`).")
    batch: int = Field(
        default=None,
        validate_default=True,
        ge=1,
        description="Batch size; default: the protocol's.",
    )
    step_size: float = Field(
        0.01, gt=0, description="For sets that bring no step size of their own."
    )
    teacher: str = Field(
        "standard", description="Recipe of the expert that labels, in a protocol with a teacher."
    )
    teacher_epoch: int = Field(50, ge=1, description="Epochs that it was trained for.")

    @field_validator("protocol", "teacher")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        _ = find_protocol(name) if info.field_name == "protocol" else named_recipe(name)
        return name

    @field_validator("epochs", "batch", mode="before")
    @classmethod
    def _of_protocol(cls, given: Any, info: ValidationInfo) -> Any:
        if given is None and "protocol" in info.data:
            return getattr(find_protocol(info.data["protocol"]), str(info.field_name))
        return given

    @property
    def rules(self) -> Protocol:
        """The protocol itself."""
        return find_protocol(self.protocol)

    @field_validator("networks")
    @classmethod
    def _networks(cls, networks: dict[str, int]) -> dict[str, int]:
        for name, count in networks.items():
            parse_name(name)
            if count < 1:
                raise ValueError(f"network {name}: {count} networks; at least 1 is needed")
        return networks


class ValidationConfig(Section):
    """The probe by which checkpoints are chosen: few networks, few epochs, validation data; its
    measure is balanced accuracy where classes are unequal, else accuracy."""

    protocol: str = Field(
        "mtt-v1", description="How its networks are trained; one without a teacher."
    )
    networks: int = Field(2, ge=1, description="Networks a measurement.")
    epochs: int = Field(300, ge=2, description="Epochs of each.")
    step_size: float = Field(0.01, gt=0, description="For methods that learn no step size.")

    @field_validator("protocol")
    @classmethod
    def _known(cls, name: str) -> str:
        rules = find_protocol(name)
        if rules.teacher or rules.optimistic:
            raise ValueError(f"{name}: validation has no teacher and never sees test data")
        return name


class PrivacyConfig(ValidationConfig):
    """What is asked of distilled sets: how near they come to real images, and whom they betray.

    The attacked networks and their shadows are trained like those of the probe.
    """

    networks: int = Field(4, ge=1, description="Networks trained on a set and attacked.")
    shadows: int = Field(
        16, ge=2, description="Networks trained on real images alone, against which they are held."
    )
    feature_epochs: int = Field(
        20, ge=1, description="Epochs of the network, trained on real data, whose features count."
    )
    pictures: int = Field(
        8,
        ge=0,
        description="Nearest pairs that the page shows; real training images are among them. "
        "0: none.",
    )
