"""Any torch.nn.Module, torchvision's or a stranger's, as a network over one flat vector."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from iadd.networks.base import Network
from iadd.networks.layers import Moments, Statistics, batch_norm


class BatchNorm(nn.Module):
    """Batch norm without running averages: by the batch's own moments, or by fixed ones."""

    def __init__(self, replaced: _BatchNorm) -> None:
        super().__init__()
        count, self.eps = replaced.num_features, replaced.eps
        affine = replaced.weight is not None
        self.weight = replaced.weight if affine else torch.ones(count)
        self.bias = replaced.bias if affine else torch.zeros(count)
        self.fixed: Moments | None = None
        self.moments: Moments | None = None

    def forward(self, x: Tensor) -> Tensor:
        y, moments = batch_norm(x, self.weight.to(x), self.bias.to(x), self.fixed, self.eps)
        self.moments = moments[0].detach(), moments[1].detach()
        return y


class _Seen(NamedTuple):
    logits: Tensor
    features: Tensor
    statistics: Statistics


@dataclass(frozen=True)
class ModuleNetwork(Network):
    """A module's copy in evaluation mode (no dropout), with batch norms that keep no averages.

    `build` makes a freshly initialised module; without it `init` calls `reset_parameters` of every
    part of the copy, and parameters that no part resets stay as they were given.
    """

    module: nn.Module = field(kw_only=True, repr=False)
    build: Callable[[], nn.Module] | None = field(kw_only=True, default=None, repr=False)

    @property
    def has_batch_norm(self) -> bool:
        return bool(_batch_norms(self.module))

    def init(self, generator: torch.Generator) -> Tensor:
        """Fresh float32 parameters (P,), as the module's own initialisation draws them.

        That draws from torch's global generator, which is seeded from `generator` meanwhile and put
        back afterwards.
        """
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            fresh = self.build() if self.build else copy.deepcopy(self.module)
            if self.build is None:
                for part in fresh.modules():
                    if isinstance(part, BatchNorm):
                        nn.init.ones_(part.weight)
                        nn.init.zeros_(part.bias)
                    elif callable(reset := getattr(part, "reset_parameters", None)):
                        reset()
        return torch.cat([p.detach().flatten().float() for p in fresh.parameters()])

    def apply(self, params: Tensor, images: Tensor, statistics: Statistics | None = None) -> Tensor:
        return self._run(params, images, statistics or self.statistics).logits

    def embed(self, params: Tensor, images: Tensor, statistics: Statistics | None = None) -> Tensor:
        return self._run(params, images, statistics or self.statistics).features

    def batch_statistics(self, params: Tensor, images: Tensor) -> Statistics:
        return self._run(params, images, None).statistics

    def _run(self, params: Tensor, images: Tensor, statistics: Statistics | None) -> _Seen:
        names = [name for name, _ in self.shapes]
        return _run(
            self.module, dict(zip(names, self.split(params), strict=True)), images, statistics
        )


def from_module(
    module: nn.Module,
    name: str,
    channels: int,
    resolution: int,
    classes: int,
    precision: str = "float32",
    build: Callable[[], nn.Module] | None = None,
) -> Network:
    """Any module that maps images (B, C, H, W) to logits (B, K), as a network.

    Args:
        module: is copied and left as it is; must hold an nn.Linear, whose input (the last one's) is
            the embedding.
        name: what tables call it.
        channels, resolution, classes: of the images and logits.
        precision: arithmetic on a GPU.
        build: makes the module anew, freshly initialised; see `ModuleNetwork`.

    Raises:
        ValueError: a module that does not take such images, gives other logits, or has no Linear.
    """
    own = _without_state(copy.deepcopy(module))
    if not any(isinstance(part, nn.Linear) for part in own.modules()):
        raise ValueError(f"network {name!r}: the module has no Linear layer; at least 1 is needed")
    shapes = tuple((key, tuple(value.shape)) for key, value in own.named_parameters())
    images = torch.zeros(2, channels, resolution, resolution)
    try:
        with torch.no_grad():
            seen = _run(own, {}, images, None)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"network {name!r}: the module does not take images {tuple(images.shape)}: {reason}"
        ) from None
    if seen.logits.shape != (2, classes):
        raise ValueError(
            f"network {name!r}: logits {tuple(seen.logits.shape)} of 2 images; "
            f"allowed are (2, {classes})"
        )
    features = seen.features.shape[1]
    size = (channels, resolution, classes)
    return ModuleNetwork(name, *size, shapes, features, precision, module=own, build=build)


def torchvision_network(
    name: str, channels: int, resolution: int, classes: int, precision: str
) -> Network:
    """The network `torchvision-<model>`, untrained; grey images are shown to it in three channels.

    Raises:
        ValueError: torchvision has no such model, or it does not take images of this size.
    """
    import torchvision.models  # half a second, only where it is asked for

    model = name.partition("-")[2]
    if model not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"network {name!r}: torchvision.models has no {model!r}")

    def build() -> nn.Module:
        made: nn.Module = torchvision.models.get_model(model, weights=None, num_classes=classes)
        return made if channels == 3 else nn.Sequential(_ThreeChannels(), made)

    with torch.random.fork_rng(devices=[]):
        module = build()
    return from_module(module, name, channels, resolution, classes, precision, build)


class _ThreeChannels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


def _without_state(module: nn.Module) -> nn.Module:
    """Evaluation mode, norms that keep no averages, nothing done in place."""
    module.eval()
    for part in list(module.modules()):
        if isinstance(part, _InstanceNorm):
            part.track_running_stats, part.running_mean, part.running_var = False, None, None
        if hasattr(part, "inplace"):
            setattr(part, "inplace", False)  # noqa: B010 (no attribute of nn.Module's)
        for key, child in part.named_children():
            if isinstance(child, _BatchNorm):
                setattr(part, key, BatchNorm(child))
    return module


def _batch_norms(module: nn.Module) -> list[BatchNorm]:
    return [part for part in module.modules() if isinstance(part, BatchNorm)]


def _run(
    module: nn.Module, parameters: dict[str, Tensor], images: Tensor, statistics: Statistics | None
) -> _Seen:
    norms = _batch_norms(module)
    last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
    features: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].flatten(1)))
    for k, norm in enumerate(norms):
        norm.fixed = statistics[k] if statistics else None
    tensors = parameters | {key: value.to(images.device) for key, value in module.named_buffers()}
    try:
        logits = functional_call(module, tensors, (images,))
    finally:
        hook.remove()
    return _Seen(logits, features[-1], [norm.moments for norm in norms if norm.moments])
