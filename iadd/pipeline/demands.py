"""What jobs ask of a cluster: memory, minutes, cards; and which short ones share a submission.

Snakemake calls these functions for every job. Minutes and groups come from the forecast, and are
asked for only where a cluster is: a dry run and a run on this machine need no forecast.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from iadd.networks import Network, build_network
from iadd.pipeline import slurm
from iadd.pipeline.forecast import Forecast
from iadd.pipeline.plan import Plan
from iadd.pipeline.signatures import inspected

SHORT = 60.0
"""Forecast seconds of a job up to which it shares a submission with others."""
PARTS = 128
"""Runs, or shards of experts, of one submission at most."""
SLOTS = 8
"""What one submission has: a short job takes one slot, one with a card takes them all, so that
a submission asks for 8 cores at most and for one card."""
MARGIN = 3.0
"""Time asked for, over the forecast, which is from the CPU of the machine that submits."""
START = 60.0
"""Seconds for Snakemake and Python to start on a busy node."""
UNKNOWN = 6 * 3600.0
"""Seconds of a job that there is no forecast of: the data are not prepared yet."""
FIXED = {"data": 1200.0, "collect": 240.0, "site": 240.0}
"""Seconds of the jobs that no forecast is made of."""
BASE = 1500 * 2**20
"""Bytes of a job that has done nothing yet: Python, PyTorch, its CUDA libraries."""
CARD = "--device cuda"
READING = 6000
"""MiB of a job without networks: the whole data set, or all tables, at once."""
BATCH = 256
"""Images of the largest batch of the protocols."""


@inspected
class Demands:
    """Functions of a rule's wildcards, for its `resources:` and `group:`.

    Args:
        plan: of the benchmark.
        workflow: Snakemake's, which knows where jobs run and what profiles and options set.
    """

    def __init__(self, plan: Plan, workflow: Any) -> None:
        self.plan, self.workflow = plan, workflow
        self._memory: dict[tuple[str, str], int] = {}

    @cached_property
    def forecast(self) -> Forecast | None:
        """None where nothing is submitted from here, or the data are not prepared."""
        submits = self.workflow.is_main_process and not self.workflow.local_exec
        return Forecast(self.plan) if submits and not self.plan.stale_data() else None

    # What a job asks for. Each is a resource of its rule: `set-resources` wins over it.

    def minutes(self, wildcards: Any, attempt: int, rulename: str) -> int | None:
        """Time limit: the forecast with a margin, rounded up, twice as much with each retry."""
        if self.workflow.local_exec or not self.workflow.is_main_process:
            return None
        seconds = self._seconds(rulename, wildcards)
        if rulename == "search":
            seconds /= self.plan.config.search.workers
        return _power_of_two((START + MARGIN * seconds) / 60) << (attempt - 1)

    def memory(self, wildcards: Any, attempt: int, rulename: str) -> int:
        """MiB, twice as much with each retry; of a search on several nodes that of each node."""
        if not self.workflow.is_main_process:  # it was asked for already
            return READING
        named = wildcards.get("dataset") or wildcards.get("folder", "")
        if (rulename, named) not in self._memory:
            self._memory[rulename, named] = self._mebibytes(rulename, named)
        return self._memory[rulename, named] << (attempt - 1)

    # Settled when rules are read, for all jobs of a rule.

    def slots(self, rulename: str) -> int:
        """Of its submission's slots, those that a job takes."""
        return SLOTS if self.has_card(rulename) else 1

    def device(self, rulename: str) -> Any:
        """The option of a job that was promised a card: it must not run without one.

        A function of the job's inputs, because a constant would be part of what a result is made
        from. Where an expression decides on `gpu`, it asks for the job's own resources.
        """
        if self._asked(rulename, "gpu").is_evaluable():
            return self.own_device
        return self.promised_device if self.has_card(rulename) else self.any_device

    def own_device(self, wildcards: Any, resources: Any) -> str:
        return CARD if _card(resources.get("gpu"), resources.get("gres")) else ""

    def promised_device(self, wildcards: Any, input: Any) -> str:
        return CARD

    def any_device(self, wildcards: Any, input: Any) -> str:
        return ""

    def has_card(self, rulename: str) -> bool:
        """Whether profile or options ask for a card for each job of a rule."""
        if rulename == "search":
            return bool(self.plan.config.search.gpus)
        return _card(*(self._asked(rulename, name).raw for name in ("gpu", "gres")))

    def _asked(self, rulename: str, name: str) -> Any:
        """A resource as profile or options have it; `raw` is its text where it is an expression,
        as everything is that is no number."""
        from snakemake.resources import Resources

        settings = self.workflow.resource_settings
        given = [settings.overwrite_resources.get(rulename)]
        if rulename not in FIXED:  # which run without a card unless they are named
            given.append(settings.default_resources)
        found = [Resources.from_mapping(resources or {}).get(name) for resources in given]
        return next((one for one in found if one.raw is not None), found[-1])

    # A search may have several nodes: `set-resources: {search: {nodes: 4}}`.

    def workers(self, wildcards: Any, threads: int) -> int:
        """Trials side by side: on this machine as many as it has cores for."""
        return self.plan.config.search.workers if self.workflow.remote_exec else threads

    def search_nodes(self) -> int:
        return int(_value(self.workflow.get_rule("search").resources, "nodes") or 1)

    def search_tasks(self, wildcards: Any) -> int | None:
        """One on each node, which starts Ray there; on one node none is asked for."""
        return self.search_nodes() if self.search_nodes() > 1 else None

    def search_launch(self, wildcards: Any, resources: Any) -> str:
        """What starts the search on several nodes; on one it needs nothing before it."""
        nodes = self.search_nodes()
        script = shlex.quote(str(Path(__file__).parents[1] / "workflow/profiles/slurm/search.sh"))
        return f"sh {script} {nodes} {self.search_cores(wildcards)}" if nodes > 1 else ""

    def search_launcher(self, wildcards: Any) -> str | None:
        """Named, it keeps the executor from starting the job by srun: the job does that itself."""
        return "srun" if self.search_nodes() > 1 else None

    def search_tasks_per_card(self, wildcards: Any) -> int | None:
        """0: else the executor takes the number of tasks for that of each card."""
        return 0 if self.search_nodes() > 1 else None

    def search_cores(self, wildcards: Any) -> int:
        """Cores on each node."""
        search = self.plan.config.search
        return math.ceil(search.workers * search.cpus / self.search_nodes())

    def search_cards(self, wildcards: Any) -> int | None:
        """Cards of all nodes together, by the benchmark's `search.gpus`, whatever others have."""
        search = self.plan.config.search
        return math.ceil(search.workers * search.gpus) or None

    # Groups: a submission of its own for each long job.

    def run_group(self, wildcards: Any) -> str | None:
        """A run's distillation, its judging and its privacy, where all are short."""
        privacy = ["privacy"] * bool(self.plan.config.privacy)
        return "runs" if self._short(wildcards, "distill", "evaluate", *privacy) else None

    def expert_group(self, wildcards: Any) -> str | None:
        return "experts" if self._short(wildcards, "experts") else None

    def yardstick_group(self, wildcards: Any) -> str | None:
        return "yardsticks" if self._short(wildcards, "yardstick") else None

    def _short(self, wildcards: Any, *rules: str) -> bool:
        self._settle_parts()
        if self.workflow.remote_exec:  # what was submitted together runs together
            return True
        return self.forecast is not None and all(
            self._seconds(rule, wildcards) <= SHORT for rule in rules
        )

    def _settle_parts(self) -> None:
        """Say how many unconnected jobs a group may hold, once Snakemake has read its options, and
        how many of them run side by side where nodes have few cores.

        It tells no submission either: inside, the parts of a group would run one after another, or
        ask for more than the submission has.
        """
        settings, names = self.workflow.group_settings, ("runs", "experts", "yardsticks")
        if self.workflow.remote_exec:
            settings.group_components = dict.fromkeys(names, sys.maxsize)
            given = int(os.environ.get("SLURM_CPUS_PER_TASK", SLOTS))
            self.workflow.global_resources["slots"] = given
            return
        if not settings.group_components:
            settings.group_components = dict.fromkeys(names, PARTS)
        if self.most_slots is not None:
            self.workflow.global_resources["slots"] = self.most_slots

    @cached_property
    def most_slots(self) -> int | None:
        """A node's cores where a submission would ask for more: it would wait for ever."""
        given = self.workflow.global_resources.get("slots")
        asked = given.value if given is not None else None
        if self.workflow.local_exec or not isinstance(asked, int):
            return None
        partition = str(self._asked("distill", "slurm_partition").raw or "").strip("'\"")
        cores = slurm.cores_of_a_node(partition or None)
        return cores if cores and cores < asked else None

    def _seconds(self, rule: str, wildcards: Any) -> float:
        if rule in FIXED:
            return FIXED[rule]
        if self.forecast is None:
            return UNKNOWN
        return self.forecast.seconds_of(rule, dict(wildcards.items()))

    def _mebibytes(self, rule: str, named: str) -> int:
        """For a data set, or a folder of experts, by its name."""
        config = self.plan.config
        try:
            key = named.partition(f"-{config.network}-")[0]
            about, data = self.plan.about(key), self.plan.data(key).train.stat().st_size
        except (ValueError, OSError):  # not prepared yet, or no data set of its own: tables, page
            return READING
        shape = about.channels, about.resolution, len(about.class_names)
        judges = {name for e in config.evaluations for name in e.networks}
        names = judges if rule == "evaluate" else {config.network}
        card = self.has_card(rule)
        need = max(job_bytes(data, build_network(name, *shape), card) for name in names)
        if rule == "search":
            need *= math.ceil(config.search.workers / self.search_nodes())
        return 500 * math.ceil(need / 2**20 / 500)


def job_bytes(data: int, network: Network, card: bool = False) -> int:
    """An estimate of a job's peak memory on the host: the program, the data, O(J P) of 100
    unrolled steps, and what a batch's gradient needs, which with a card lies there."""
    unrolled = 4 * network.num_parameters * (100 + 16)
    return BASE + 2 * data + (0 if card else unrolled + 2 * BATCH * _saved_bytes(network))


def _saved_bytes(network: Network) -> int:
    """What autograd keeps of one image until the backward pass, parameters not counted."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    shape = (2, network.channels, network.resolution, network.resolution)  # 2: for batch norm
    params = torch.zeros(network.num_parameters, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = network.apply(params, torch.zeros(shape))
    kept.pop(params.untyped_storage().data_ptr(), None)
    del logits
    return sum(kept.values()) // 2


def _card(gpu: Any, gres: Any) -> bool:
    return bool(gpu) or "gpu" in str(gres or "")


def _value(resources: Any, name: str) -> Any:
    """A rule's resource as far as it is no function."""
    found = resources.get(name)
    return None if found is None or found.is_evaluable() else found.value


def _power_of_two(minutes: float) -> int:
    """Rounded up: limits that differ little only make a queue harder to fill."""
    return int(2 ** math.ceil(math.log2(max(minutes, 1.0))))
