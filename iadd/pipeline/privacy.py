"""The report on privacy: a yardstick of real images, and each set measured by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from iadd import data, privacy
from iadd.artifacts import atomic_write
from iadd.evaluation import Validation
from iadd.networks import Network, build_network
from iadd.pipeline.config import PrivacyConfig
from iadd.pipeline.plan import Plan, Run, too_large
from iadd.pipeline.privacy_plan import asked_of, privacy_spec, yardstick_spec, yardsticks
from iadd.pipeline.stages import CPU, check_run, open_data, seeds_of
from iadd.progress import Progress
from iadd.seeds import Seeds
from iadd.synthetic import SyntheticSet

if TYPE_CHECKING:
    from iadd.leaderboard.exposure import PrivacyRow


def yardstick(plan: Plan, key: str, ipc: int, device: torch.device = CPU) -> None:
    """Measure the real images that the sets of one data set and ipc are held against."""
    asked = asked_of(plan)
    if (key, ipc) not in yardsticks(plan):
        known = ", ".join(str(other) for name, other in yardsticks(plan) if name == key)
        raise ValueError(f"ipc {ipc} is not in this benchmark for {key}: {known}")
    dataset = open_data(plan, key, device)
    for line in too_large(key, plan.about(key), ipc):
        raise ValueError(line)
    settings = privacy.Settings(_training(asked), asked.shadows, asked.feature_epochs)
    seeds = Seeds((plan.config.seed, key, ipc, "yardstick"))
    with Progress(
        f"yardstick {key} ipc {ipc}", plan.progress_file("yardstick", f"{key}/ipc{ipc}")
    ) as progress:
        found = privacy.make_yardstick(
            dataset, _network(plan, dataset), ipc, settings, seeds, progress
        )
    path = plan.yardstick(key, ipc)
    found.save(path, yardstick_spec(plan, key, ipc))
    print(f"{path}: {len(found.held_out_pixel)} held-out images, {asked.shadows} shadow networks")


def report(plan: Plan, run: Run, device: torch.device = CPU) -> None:
    """Ask one distilled set what it gives away; writes a row, and a picture of nearest pairs."""
    from iadd.leaderboard.exposure import PRIVACY
    from iadd.leaderboard.results import write_table

    asked = asked_of(plan)
    check_run(plan.config, run)
    if run.method == "whole":
        raise ValueError("privacy: method whole is the data itself, there is no set to ask")
    paths, spec = plan.paths(run), privacy_spec(plan, run)
    ruler = privacy.Yardstick.load(
        plan.yardstick(run.dataset, run.ipc), yardstick_spec(plan, run.dataset, run.ipc)
    )
    dataset = open_data(plan, run.dataset, device)
    distilled = SyntheticSet.load(paths.distilled, spec["spec"]).resolve(dataset).decoded()
    with Progress(f"privacy {run}", plan.progress_file("privacy", run.place)):
        row, pairs = _measure(plan, run, distilled, dataset, ruler, asked)
    atomic_write(paths.pairs, pairs)
    write_table([row], paths.privacy, PRIVACY, spec)
    print(f"{paths.privacy}: {run}, {row.copies} copies, AUC {row.data_auc:.3f}")


def _measure(
    plan: Plan,
    run: Run,
    distilled: SyntheticSet,
    dataset: data.Dataset,
    ruler: privacy.Yardstick,
    asked: PrivacyConfig,
) -> tuple[PrivacyRow, bytes]:
    from iadd.leaderboard.exposure import PrivacyRow, attack_of, distances_of

    network, where = _network(plan, dataset), dataset.train.images.device
    images = distilled.images.to(where)
    pixels = privacy.nearest_pixels(images, dataset, distilled.transform)
    feature_network = network, ruler.features.to(where)
    features = privacy.nearest_features(images, dataset, *feature_network, distilled.transform)
    scores = privacy.scores(
        distilled,
        dataset,
        network,
        ruler.unseen,
        asked.networks,
        _training(asked),
        seeds_of(plan.config, run),
    ).numpy()
    members, others = scores[: len(dataset.train)], scores[len(dataset.train) :]
    copies = int((pixels.distances < privacy.COPY).sum())
    measured: dict[str, Any] = attack_of("data", members, others)
    measured |= attack_of("chosen", members[privacy.copies(pixels).numpy()], others)
    for kind, near, held_out in (
        ("pixel", pixels, ruler.held_out_pixel),
        ("feature", features, ruler.held_out_feature),
    ):
        found = near.distances.double().numpy()
        measured |= distances_of(kind, near.rows.tolist(), found, held_out.double().numpy())
    submitted = plan.config.submission(run.method) is not None
    shown = privacy.closest((pixels.distances, features.distances), asked.pictures)
    row = PrivacyRow(
        **vars(run),
        source="submitted" if submitted else "measured",
        reconstruction=not submitted and plan.config.kind(run.method).reconstruction,
        network=network.name,
        copies=copies,
        members=len(members),
        held_out=len(others),
        shown=shown.tolist(),
        **measured,
    )
    return row, privacy.picture(distilled, dataset, (pixels.rows, features.rows), shown)


def _training(asked: PrivacyConfig) -> Validation:
    return Validation(asked.protocol, asked.networks, asked.epochs, asked.step_size)


def _network(plan: Plan, dataset: data.Dataset) -> Network:
    """The benchmark's network, in the precision of all that judges."""
    size = (dataset.channels, dataset.resolution, dataset.classes)
    return build_network(plan.config.network, *size)
