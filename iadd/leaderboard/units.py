"""What counts once: distillation seeds, with the means of their networks (SPEC, section 5)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from iadd.leaderboard.cells import WHOLE
from iadd.leaderboard.columns import Network

SCORES = ("accuracy", "balanced_accuracy", "recall", "specificity", "auroc")
"""What units have means of; the latter three have an entry a class."""


def unit_means(networks: Iterable[Network]) -> dict[str, dict[Any, Any]]:
    """Each score's mean of each unit's networks that have it, each kind of network counting alike.

    The units are seeds; of `whole`, whose networks are independent, networks. Of a score with an
    entry a class, the means are arrays (K,).
    """
    units: dict[Any, dict[str, list[Network]]] = defaultdict(lambda: defaultdict(list))
    for row in networks:
        unit = (row.seed, row.eval_seed) if row.method == WHOLE else row.seed
        units[unit][row.network_eval].append(row)
    found: dict[str, dict[Any, Any]] = {score: {} for score in SCORES}
    for score, means in found.items():
        value_of = attrgetter(score)
        for unit, kinds in units.items():
            known = ([v for v in map(value_of, kind) if v is not None] for kind in kinds.values())
            if averages := [_average(values) for values in known if values]:
                means[unit] = _average(averages)
    return found


def _average(values: Sequence[Any]) -> Any:
    """Mean of numbers, or of equally long arrays; `numpy.mean` is slow for a few of them."""
    if len(values) == 1:
        return values[0]
    if isinstance(values[0], float | int):
        return math.fsum(values) / len(values)
    return sum(values[1:], values[0]) / len(values)
