"""The pipeline in Python, for notebooks and scripts: the same rooms that the stages call."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from iadd import methods
from iadd.augment import Augmentation
from iadd.data import Dataset
from iadd.evaluation import evaluate as judge
from iadd.evaluation import validation_accuracy
from iadd.experts import Experts, Recipe, expert_spec, record_shard
from iadd.networks import Network, build_network
from iadd.seeds import generator_for
from iadd.synthetic import SyntheticSet


def network_for(dataset: Dataset, name: str) -> Network:
    """The named network for a data set's images."""
    return build_network(name, dataset.channels, dataset.resolution, dataset.classes)


def record_experts(
    dataset: Dataset,
    network: str,
    path: str | Path,
    *,
    count: int = 10,
    epochs: int = 20,
    seed: int = 0,
    **recipe: Any,
) -> Experts:
    """Train `count` expert trajectories into one file, or open the file if it is these already.

    Args:
        dataset: from `load_dataset`.
        network: a network's name, e.g. `convnet-d2-w32`.
        path: the safetensors file.
        count, epochs, seed: trajectories, epochs kept of each, base seed.
        recipe: fields of `experts.Recipe` (step_size, momentum, batch, ...).

    Raises:
        ValueError: the file holds other experts.
    """
    architecture, families = network_for(dataset, network), Augmentation(dataset.augmentations)
    settings = Recipe(**recipe)
    path = Path(path)
    if not path.exists():
        record_shard(
            dataset,
            architecture,
            families,
            settings,
            epochs=epochs,
            experts=range(count),
            seed=seed,
            path=path,
        )
    expect = expert_spec(dataset, architecture, families, settings, epochs, seed)
    return Experts([path], expect)


def distill(
    method: str,
    dataset: Dataset,
    network: str,
    ipc: int,
    *,
    experts: Experts | None = None,
    seed: int = 0,
    hooks: methods.Hooks | None = None,
    **params: Any,
) -> SyntheticSet:
    """Distill a data set by a named method; `params` are the method's own (see its `Params`).

    The checkpoint kept is the one best on validation data. `experts` are needed by mtt, ddpp, iadd.
    """
    architecture, families = network_for(dataset, network), Augmentation(dataset.augmentations)
    task = methods.Problem(dataset, architecture, families, ipc, experts)
    kind = methods.find(method)
    settings = kind.Params(**params)
    names = (dataset.name, method, ipc, seed)

    validate = partial(
        validation_accuracy,
        dataset=dataset,
        network=architecture,
        augmentation=families,
        epochs=150,
        networks=2,
        default_step_size=0.01,
        names=names,
    )
    result = methods.distill(
        kind(settings, task),
        generator_for(*names, "distill"),
        hooks or methods.Hooks(validate=validate),
    )
    spec = {
        "kind": "distilled",
        "fingerprint": dataset.fingerprint,
        "method": method,
        "params": settings.model_dump(mode="json"),
        "network": network,
        "ipc": ipc,
        "seed": seed,
        "experts": experts.identity if experts else None,
    }
    return SyntheticSet(
        result.images,
        result.labels,
        dataset.transform,
        dataset.class_names,
        result.step_size,
        spec,
        result.status,
        {"distill_seconds": result.seconds, "iteration": result.iteration},
    )


def evaluate(
    synthetic: SyntheticSet,
    dataset: Dataset,
    networks: dict[str, int],
    *,
    protocol: str = "mtt-v1",
    epochs: int = 300,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train and test fresh networks (name -> how many) on a distilled set; one dict a network."""
    families = Augmentation(dataset.augmentations)
    return list(
        judge(
            synthetic,
            dataset,
            protocol,
            networks,
            epochs=epochs,
            augmentation=families,
            names=(dataset.name, seed),
        )
    )
