"""What a benchmark will cost before anything runs, for `iadd plan` and the time left of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iadd import data, methods
from iadd.evaluation import Protocol, find_protocol
from iadd.networks import Network, build_network
from iadd.pipeline import privacy_plan
from iadd.pipeline.plan import Plan, too_large
from iadd.pipeline.rates import augmentation_rate, gradient_rate
from iadd.progress import Progress

ANSWER = 1 / 3
"""What classifying an image costs, in gradients of one."""
EVALUATION_BYTES = 20_000
"""Of one run's table of evaluations."""


@dataclass(frozen=True)
class Row:
    """The jobs of one stage on one data set: how many, what they leave on disk, what they take."""

    dataset: str
    stage: str
    jobs: int
    disk: int
    seconds: float


class Forecast:
    """Jobs, disk and seconds of a benchmark, from gradients timed on this machine's CPU.

    Raises:
        ValueError: the data cannot be read.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._rates: dict[tuple[object, ...], float] = {}
        self.stale = plan.stale_data()
        keys = [d.key for d in plan.config.datasets]
        self.abouts = {
            key: self._look(key) if key in self.stale else plan.about(key) for key in keys
        }

    def _look(self, key: str) -> data.About:
        """What the data stage will find: everything is read and checked, and nothing written."""
        with Progress(f"data {key}") as progress:
            return data.inspect(self.plan.source(key), progress)

    def too_large(self) -> list[str]:
        """The ipc for which data sets have too few images."""
        return [
            line
            for key, about in self.abouts.items()
            for ipc in self.plan.config.dataset(key).ipc or self.plan.config.ipc
            for line in too_large(key, about, ipc)
        ]

    @cached_property
    def rows(self) -> list[Row]:
        """All stages, a data set after another, and the two jobs that make tables and page."""
        rows = [row for d in self.plan.config.datasets for row in self._dataset_rows(d.key)]
        return [*rows, Row("all", "collect and site", 2, 0, 0.0)]

    def _dataset_rows(self, key: str) -> list[Row]:
        plan = self.plan
        rows = [Row(key, "data", int(key in self.stale), self._data_bytes(key), 0.0)]
        shards = len(plan.shards(key))
        for recipe in plan.recipes:
            jobs = 0 if plan.config.experts.named(recipe).imported else shards
            seconds = sum(self.expert_seconds(key, recipe, k) for k in range(jobs))
            disk = self._expert_bytes(key, recipe)
            rows.append(Row(key, f"experts {recipe}", jobs, disk, seconds))
        for method in plan.config.search.methods:
            ipcs = [ipc for d, m, ipc in plan.searches() if (d, m) == (key, method)]
            seconds = sum(self.search_seconds(key, method, ipc) for ipc in ipcs)
            rows.append(Row(key, f"search {method}", len(ipcs), 0, seconds))
        for (method, tuned), seeds in self._seeds[key].items():
            name, jobs, own = f"{method}{', tuned' * tuned}", seeds.total(), (key, method)
            disk = sum(n * self._set_bytes(*own, ipc) for ipc, n in seeds.items())
            seconds = sum(n * self.distill_seconds(*own, ipc) for ipc, n in seeds.items())
            rows.append(Row(key, f"distill {name}", jobs, disk, seconds))
            seconds = sum(n * self.evaluate_seconds(*own, ipc) for ipc, n in seeds.items())
            rows.append(Row(key, f"evaluate {name}", jobs, jobs * EVALUATION_BYTES, seconds))
        for rule, ipcs in privacy_plan.jobs_of(plan, key).items():
            seconds = sum(self.privacy_seconds(rule, key, ipc) for ipc in ipcs)
            rows.append(Row(key, rule, len(ipcs), len(ipcs) * EVALUATION_BYTES, seconds))
        return rows

    @cached_property
    def _seeds(self) -> dict[str, dict[tuple[str, bool], Counter[int]]]:
        """By data set, then by method and tuned or not: how many seeds of each ipc."""
        found: dict[str, dict[tuple[str, bool], Counter[int]]] = {key: {} for key in self.abouts}
        for run in self.plan.runs():
            found[run.dataset].setdefault((run.method, run.tuned), Counter())[run.ipc] += 1
        return found

    @cached_property
    def means(self) -> dict[str, float]:
        """Seconds of a job of each rule, on average."""
        found: dict[str, tuple[int, float]] = {}
        for row in self.rows:
            rule = row.stage.split()[0]
            jobs, seconds = found.get(rule, (0, 0.0))
            found[rule] = jobs + row.jobs, seconds + row.seconds
        return {rule: seconds / max(jobs, 1) for rule, (jobs, seconds) in found.items()}

    def seconds_of(self, rule: str, wildcards: Mapping[str, str]) -> float:
        """Forecast of one job by its rule and wildcards; 0 for what is not known."""
        dataset, method = wildcards.get("dataset", ""), wildcards.get("method", "")
        ipc = int(wildcards.get("ipc", 0))
        if rule == "experts":
            dataset, _, rest = wildcards["folder"].partition(f"-{self.plan.config.network}-")
            return self.expert_seconds(dataset, rest.split("-")[0], int(wildcards["shard"]))
        if rule == "search":
            return self.search_seconds(dataset, method, ipc)
        if rule == "distill":
            return self.distill_seconds(dataset, method, ipc)
        if rule == "evaluate":
            return self.evaluate_seconds(dataset, method, ipc)
        if rule in privacy_plan.RULES:
            return self.privacy_seconds(rule, dataset, ipc)
        return 0.0

    def expert_seconds(self, key: str, recipe: str, shard: int) -> float:
        """One shard: every expert sees the training data once an epoch, with GSAM twice, and is
        asked about the validation data at its end."""
        named, network = self.plan.config.experts.named(recipe), self.plan.config.network
        size, held_out = (sum(self.abouts[key].counts[part]) for part in ("train", "validation"))
        step = self._rate(key, network, named.augmentation)
        step += self._rate(key, network) * bool(named.rho)
        asked = ANSWER * held_out * self._rate(key, network)
        epochs = self.plan.expert_epochs(recipe)
        return len(self.plan.shard_experts(shard)) * (epochs * size * step + asked)

    def search_seconds(self, key: str, method: str, ipc: int) -> float:
        """One search: the trials as far as the scheduler lets them, then the finalists again."""
        search, params = self.plan.config.search, self.plan.config.params(method, ipc)
        one = self._updates_seconds(key, method, ipc, params)
        probe = self._probe_seconds(key, method, ipc)
        trial = one + search.rungs * probe
        trials = search.trials * trial * _share(search.scheduler, search.rungs, search.reduction)
        if search.seconds is not None:
            trials = min(trials, search.seconds * search.workers)
        again = (search.finalists + 1) * search.confirm_seeds
        judge = probe * search.confirm_networks / self.plan.config.validation.networks
        return trials + again * (trial + judge)

    def distill_seconds(self, key: str, method: str, ipc: int) -> float:
        """One distillation with its validations; a submitted set is only read."""
        if self.plan.config.submission(method):
            return 0.0
        params: Any = self.plan.config.params(method, ipc)
        probes = float(getattr(params, "validations", 0)) * self._probe_seconds(key, method, ipc)
        return self._updates_seconds(key, method, ipc, params) + probes

    def _updates_seconds(self, key: str, method: str, ipc: int, params: Any) -> float:
        about = self.abouts[key]
        rate = self._rate(key, self.plan.config.network)
        sizes = sum(about.counts["train"]), len(about.class_names)
        work = methods.Workload(*sizes, ipc, rate)
        return self.plan.config.kind(method).forecast(params, work)

    def _probe_seconds(self, key: str, method: str, ipc: int) -> float:
        probe, held_out = self.plan.config.validation, sum(self.abouts[key].counts["validation"])
        trained = probe.epochs * self._images(key, method, ipc)
        rules, network = find_protocol(probe.protocol), self.plan.config.network
        return probe.networks * self._judged(key, network, rules, trained, held_out)

    def evaluate_seconds(self, key: str, method: str, ipc: int) -> float:
        """One set judged by all protocols; networks are asked about the set itself, too."""
        images, tested = self._images(key, method, ipc), sum(self.abouts[key].counts["test"])
        return sum(
            networks
            * (self._states(method, ipc) if e.rules.optimistic else 1)
            * self._judged(
                key,
                name,
                e.rules,
                images * (e.whole_epochs if method == "whole" else e.epochs),
                images + tested,
            )
            for e in self.plan.config.evaluations
            for name, networks in e.networks.items()
        )

    def _judged(self, key: str, name: str, rules: Protocol, trained: int, asked: int) -> float:
        """A network trained on so many images, all epochs together, and asked about others."""
        training = trained * self._rate(key, name, rules.augmented)
        return training + ANSWER * asked * self._rate(key, name)

    def privacy_seconds(self, rule: str, key: str, ipc: int) -> float:
        """A yardstick, or a set that is asked what it gives away."""
        about = self.abouts[key]
        images = sum(about.counts["train"]) + sum(about.counts["validation"])
        passes = privacy_plan.passes(self.plan, rule, images, len(about.class_names), ipc)
        return passes * self._rate(key, self.plan.config.network)

    def _states(self, method: str, ipc: int) -> int:
        """How many states of a set a protocol chooses among that looks at the test set."""
        if self.plan.config.submission(method):
            return 1
        return max(1, int(getattr(self.plan.config.params(method, ipc), "validations", 1)))

    def _images(self, key: str, method: str, ipc: int) -> int:
        about = self.abouts[key]
        return sum(about.counts["train"]) if method == "whole" else ipc * len(about.class_names)

    def _data_bytes(self, key: str) -> int:
        """What prepared images take, or will: float32, or a byte a value where 8 bits were read
        and are not whitened (images that are enlarged may be float32 all the same)."""
        about, paths = self.abouts[key], self.plan.data(key)
        if key not in self.stale:
            return sum(path.stat().st_size for path in (paths.train, paths.test))
        images = sum(sum(part) for part in about.counts.values())
        width = 1 if about.values == (0, 255) and about.transform != "zca" else 4
        return width * images * about.channels * about.resolution**2

    def _set_bytes(self, key: str, method: str, ipc: int) -> int:
        """float32 images; the whole data is stored as a reference to itself."""
        config = self.plan.config
        if not config.submission(method) and config.kind(method).by_reference:
            return 0
        about = self.abouts[key]
        pixels = about.channels * about.resolution**2
        return int(4 * pixels * self._images(key, method, ipc))

    def _expert_bytes(self, key: str, recipe: str) -> int:
        named = self.plan.config.experts.named(recipe)
        width = 4 if named.dtype == "float32" else 2
        parameters = int(self._network(key, self.plan.config.network).num_parameters)
        epochs = named.waypoints or range(self.plan.expert_epochs(recipe) + 1)
        return self.plan.config.experts.count * len(epochs) * parameters * width

    def _network(self, key: str, name: str) -> Network:
        about = self.abouts[key]
        return build_network(name, about.channels, about.resolution, len(about.class_names))

    def _rate(self, key: str, name: str, augmented: bool = False) -> float:
        """Seconds of one image's gradient, with its augmentation before it if asked for, in
        float32 whatever the benchmark's precision. Data of one shape have one rate."""
        about = self.abouts[key]
        families = about.augmentation if augmented else ()
        kind = name, about.channels, about.resolution, len(about.class_names)
        if kind not in self._rates:
            self._rates[kind] = gradient_rate(self._network(key, name))
        extra = families, about.channels, about.resolution
        if families and extra not in self._rates:
            self._rates[extra] = augmentation_rate(*extra)
        return self._rates[kind] + self._rates.get(extra, 0.0)


def _share(scheduler: str, rungs: int, reduction: int) -> float:
    """The part of all trials' updates that a scheduler lets happen."""
    if scheduler == "asha":
        return float(sum(reduction**-k for k in range(rungs)) / rungs)
    return 0.5 if scheduler == "median" else 1.0
