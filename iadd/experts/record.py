"""Expert trajectories: parameters at the start and after each epoch of training on the real data.

Recorded with the data set's augmentation, as MTT does (arXiv 2203.11932). One shard is one job and
one safetensors file with its spec inside; one snapshot is read by memory mapping, without the rest.
Only the epochs that the benchmark's settings can reach are trained and kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iadd.artifacts import Stored, load_tensors, parsing, remove, save_tensors
from iadd.augment import Augmentation
from iadd.data import Dataset
from iadd.experts.recipes import Recipe
from iadd.experts.waypoints import path_lengths
from iadd.networks import Network
from iadd.seeds import generator_for
from iadd.train import TrainingPlan, fixed_statistics, predict, train, train_many

FULL = 1 << 15
"""Images times filters of a step that should keep a card busy: 256 images in a width of 128."""


def expert_spec(
    dataset: Dataset,
    network: Network,
    recipe: Recipe,
    epochs: int,
    seed: int,
    source: str | None = None,
) -> dict[str, Any]:
    """What identifies a trajectory: data, network, recipe, epochs kept, base seed, code.

    source: hash of the code that trains experts; None where the caller keeps no such record.
    Imported experts have neither our seed nor our code.
    """
    if recipe.waypoints and recipe.waypoints[-1] != epochs:
        end = recipe.waypoints[-1]
        raise ValueError(
            f"experts: way-points end at epoch {end}, so epochs is {end}, not {epochs}"
        )
    ours = recipe.imported is None
    own = {"source": source} if ours and source is not None else {}
    families = dataset.augmentation.families if recipe.augmentation else ()
    return own | {
        "kind": "experts",
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "network": network.name,
        "precision": network.precision,
        "parameters": network.num_parameters,
        "sizes": network.sizes,
        "recipe": recipe.model_dump(mode="json"),
        "families": list(families),
        "epochs": epochs,
        "seed": seed if ours else None,
    }


def record_shard(
    dataset: Dataset,
    network: Network,
    recipe: Recipe,
    *,
    epochs: int,
    experts: Sequence[int],
    seed: int,
    path: Path,
    source: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Train the numbered experts and write their trajectories as one shard.

    The file holds `parameters` (experts, epochs + 1, P), or of way-points (experts, way-points, P)
    and `lengths` (see `waypoints`); epoch 0 is the untrained network. Its attributes tell each
    expert's accuracy on validation data at the end, where there are any. An expert depends on its
    number alone, not on the shard it is in. What a killed job had finished is kept beside the
    shard, one file an expert, and taken up again if its spec is the same.
    """
    spec = expert_spec(dataset, network, recipe, epochs, seed, source)
    parts = {k: path.with_name(f".{path.stem}.expert{k}.partial") for k in experts}
    done = {k: _finished(part, spec | {"expert": k}) for k, part in parts.items()}
    waiting = [k for k in experts if done[k] is None]
    size = _at_once(network, recipe, dataset.train.images.device)
    for first in range(0, len(waiting), size):
        group = waiting[first : first + size]
        began = time.perf_counter()
        found = _train(dataset, network, spec, recipe, group)  # (len(group), epochs + 1, P)
        seconds = (time.perf_counter() - began) / len(group)
        for expert, trajectory in zip(group, found, strict=True):
            if not bool(torch.isfinite(trajectory).all()):
                lower = f"lower experts.recipe.step_size ({recipe.step_size})"
                raise ValueError(f"{path}: expert {expert} diverged (not finite); {lower}")
            reached = expert_accuracy(dataset, network, trajectory[-1])
            costs = {"seconds": seconds, "validation_accuracy": reached}
            kept = kept_of(trajectory, network, recipe)
            finished = Stored(kept, spec | {"expert": expert}, costs)
            save_tensors(parts[expert], finished.tensors, finished.spec, costs)
            done[expert] = finished
        if progress:
            progress(len(experts) - len(waiting) + first + len(group), len(experts), "")
    _merge(path, [finished for finished in done.values() if finished], experts, spec)
    for part in parts.values():
        remove(part)


def _merge(
    path: Path, stored: Sequence[Stored], experts: Sequence[int], spec: dict[str, Any]
) -> None:
    """Write the finished experts as one shard."""
    names = stored[0].tensors
    attributes = {
        "experts": list(experts),
        "seconds": sum(f.attributes["seconds"] for f in stored),
        "validation_accuracy": [f.attributes["validation_accuracy"] for f in stored],
    }
    tensors = {name: torch.stack([f.tensors[name] for f in stored]) for name in names}
    save_tensors(path, tensors, spec, attributes)


def _finished(part: Path, spec: dict[str, Any]) -> Stored | None:
    """What a killed job left of one expert; None if nothing, another spec's, or malformed."""
    if not part.exists():
        return None
    try:
        found = load_tensors(part, spec)
        with parsing(part, "part of a shard"):
            shape = found.tensors["parameters"].shape
            told = found.attributes["seconds"], found.attributes["validation_accuracy"] or 0.0
            if not all(isinstance(value, float | int) and isfinite(value) for value in told):
                raise ValueError("its attributes are no numbers")
    except ValueError:
        return None
    kept = len(spec["recipe"]["waypoints"] or range(spec["epochs"] + 1))
    fits = found.spec.keys() == spec.keys() and shape == (kept, spec["parameters"])
    return found if fits else None


def kept_of(trajectory: Tensor, network: Network, recipe: Recipe) -> dict[str, Tensor]:
    """What is stored of parameters (epochs + 1, P), in the recipe's float type."""
    dtype = getattr(torch, recipe.dtype)
    if recipe.waypoints is None:
        return {"parameters": trajectory.to(dtype)}
    lengths = path_lengths(trajectory, network.sizes)
    return {"parameters": trajectory[list(recipe.waypoints)].to(dtype), "lengths": lengths}


def expert_accuracy(dataset: Dataset, network: Network, params: Tensor) -> float | None:
    """Accuracy on the validation split; None where that is empty."""
    held_out = dataset.validation
    if not len(held_out):
        return None
    params = params.float().to(held_out.images.device)
    statistics = fixed_statistics(network, params, dataset.train.images)
    found = predict(network, params, held_out.images, statistics).argmax(1)
    return float((found == held_out.labels).double().mean())


def _train(
    dataset: Dataset,
    network: Network,
    spec: dict[str, Any],
    recipe: Recipe,
    experts: Sequence[int],
) -> Tensor:
    """Trajectories (len(experts), epochs + 1, P) of the numbered experts, on the CPU."""
    if recipe.imported:
        elsewhere = f"experts {recipe.imported} were trained elsewhere and are not here"
        raise ValueError(f"{elsewhere}; run: iadd experts CONFIG --import FOLDER")
    images = dataset.train.images
    targets = F.one_hot(dataset.train.labels, network.classes).float()
    settings = recipe.model_dump(exclude={"augmentation", "dtype", "waypoints", "imported"})
    plan = TrainingPlan(spec["epochs"], **settings)
    families = Augmentation(tuple(spec["families"]))
    names = (spec["seed"], dataset.name, network.name, "experts")
    generators = [generator_for(*names, expert) for expert in experts]
    starts = [network.init(generator).to(images.device) for generator in generators]
    common = (images, targets, plan, families)
    if len(experts) == 1:
        snapshots = list(starts)
        train(network, starts[0], *common, generators[0], on_epoch=_copying(snapshots))
        found = torch.stack(snapshots)[None]
    else:
        snapshots = [torch.stack(starts)]
        train_many(network, snapshots[0], *common, generators, on_epoch=_copying(snapshots))
        found = torch.stack(snapshots, 1)
    return found.cpu()


def _at_once(network: Network, recipe: Recipe, device: torch.device) -> int:
    """How many experts are trained side by side: one on a CPU, on a card as many as may fill it."""
    if device.type == "cpu":
        return 1
    width = network.options.width if network.options else 128
    return max(1, FULL // (recipe.batch * width))


def _copying(snapshots: list[Tensor]) -> Callable[[int, Tensor], None]:
    """Keep a copy of each epoch's parameters: the training loop overwrites its own."""
    return lambda epoch, params: snapshots.append(params.clone())
