"""Expert trajectories: recipes (`recipes`), recording (`record`), the store (`store`)."""

from iadd.experts.recipes import RECIPES as RECIPES
from iadd.experts.recipes import Recipe as Recipe
from iadd.experts.recipes import named_recipe as named_recipe
from iadd.experts.record import expert_accuracy as expert_accuracy
from iadd.experts.record import expert_spec as expert_spec
from iadd.experts.record import kept_of as kept_of
from iadd.experts.record import record_shard as record_shard
from iadd.experts.store import Experts as Experts
