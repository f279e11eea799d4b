"""The section `experts` of a configuration."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError, model_validator

from iadd.experts import RECIPES, Recipe, named_recipe
from iadd.pipeline.config.file import Section, check_booleans, first_problem


class ExpertsConfig(Section):
    """How many experts, in how many shards, and their recipes."""

    count: int = Field(100, ge=1, description="Number of trajectories.")
    per_shard: int = Field(10, ge=1, description="Trajectories a shard, that is a job.")
    recipe: Recipe = Field(
        Recipe(), description="Training and storage of one trajectory; for every recipe."
    )
    recipes: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description=f"Recipe, of {', '.join(RECIPES)} -> settings put over `recipe`.",
    )

    @model_validator(mode="after")
    def _named(self) -> ExpertsConfig:
        for name in self.recipes:
            try:
                self.named(name)
            except ValidationError as error:
                raise ValueError(f"recipes.{name}: {first_problem(error)}") from None
        return self

    def named(self, name: str) -> Recipe:
        """A recipe as this benchmark has it."""
        own = self.recipes.get(name, {})
        given = {key: getattr(self.recipe, key) for key in self.recipe.model_fields_set}
        recipe = named_recipe(name, given | own)
        check_booleans(own, recipe.model_dump(), f"recipes.{name}")
        return recipe
