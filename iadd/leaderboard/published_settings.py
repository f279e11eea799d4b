"""Published settings as data: what the papers and their code use, by method, data set and ipc.

`iadd reproduce` tells where a benchmark departs from them, and a test holds `config/*.yaml` against
them: a shipped benchmark of a data set that stands here uses these values. A key that is not here
was not published, or could not be confirmed.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Published(NamedTuple):
    """One row: where it is from, and the values of the method's own parameters."""

    method: str
    dataset: str
    ipc: int
    zca: bool | None
    """Whether images are whitened; None: the source does not say."""
    source: str
    params: dict[str, Any]
    experts: dict[str, Any] = {}  # noqa: RUF012 (read only)
    """Settings of its experts' recipe that the source names."""


_MTT = "arXiv 2203.11932, table of settings and its code"
_DC = "arXiv 2006.05929, section 4 and its code (get_loops)"
_DSA = "arXiv 2102.08259, section 4 and its code (get_loops)"
_DM = "arXiv 2110.04181, section 4"
_FTD = "arXiv 2211.11004, table of settings"
_DATM = "arXiv 2310.05773, its code (configs/*/ConvIN)"
_CAFE = "arXiv 2203.01531, its code"
_IDM = "arXiv 2307.09742, commands of its code"
_MCT = "arXiv 2406.19827, its code"
_SOFT = "arXiv 2406.10485, table of hyper-parameters"
_ATT = "arXiv 2407.14245, its code"
_TESLA = "arXiv 2211.10586, commands of its code"
_HOPTM = "arXiv 2509.24177, settings of its COVID-19 runs"
_PAD = "arXiv 2408.03360, its code: the share alone; the rest is DATM's"


def _mtt(dataset: str, ipc: int, zca: bool, **params: Any) -> Published:
    given = {"iterations": 5000, "momentum": 0.5, "init": "real"} | params
    return Published("mtt", dataset, ipc, zca, _MTT, given)


def _gradient(method: str, ipc: int, outer_steps: int, inner_epochs: int) -> Published:
    given = {
        **{"iterations": 1000, "lr_img": 0.1, "momentum": 0.5, "batch_real": 256, "lr_net": 0.01},
        **{"outer_steps": outer_steps, "inner_epochs": inner_epochs},
        "init": "noise" if method == "dc" else "real",
    }
    return Published(method, "cifar10", ipc, None, _DC if method == "dc" else _DSA, given)


def _trajectory(j: int, k: int, start: int, lr_img: float, lr_lr: float, lr: float) -> Any:
    return {
        **{"unrolled_steps": j, "expert_epochs": k, "max_start": start},
        **{"lr_img": lr_img, "lr_lr": lr_lr, "step_size": lr},
    }


def _datm(
    j: int,
    k: int,
    starts: tuple[int | None, ...],
    lr_img: float,
    lr_lr: float,
    lr_y: float,
    batch: int | None,
) -> Any:
    names = ("min_start", "first_max_start", "max_start", "expansion_end")
    return {
        **{"unrolled_steps": j, "expert_epochs": k, "batch_syn": batch},
        **{"lr_img": lr_img, "lr_lr": lr_lr, "lr_y": lr_y},
        **dict(zip(names, starts, strict=False)),
    }


PUBLISHED: tuple[Published, ...] = (
    _mtt("cifar10", 1, True, **_trajectory(50, 2, 2, 100, 1e-7, 0.01)),
    _mtt("cifar10", 10, True, **_trajectory(30, 2, 20, 100, 1e-5, 0.001)),
    _mtt("cifar10", 50, False, **_trajectory(30, 2, 40, 1000, 1e-5, 0.001)),
    _mtt("cifar100", 1, True, **_trajectory(20, 3, 20, 1000, 1e-5, 0.01)),
    _mtt("cifar100", 10, False, **_trajectory(20, 2, 20, 1000, 1e-5, 0.01)),
    _mtt("cifar100", 50, True, **_trajectory(80, 2, 40, 1000, 1e-5, 0.01), batch_syn=125),
    *(
        _gradient(method, ipc, outer, inner)
        for method in ("dc", "dsa")
        for ipc, outer, inner in ((1, 1, 1), (10, 10, 50), (50, 50, 10))
    ),
    *(
        Published(
            "dm",
            "cifar10",
            ipc,
            None,
            _DM,
            {"iterations": 20000, "lr_img": 1.0, "momentum": 0.5, "batch_real": 256},
        )
        for ipc in (1, 10, 50)
    ),
    *(
        Published("ftd", "cifar10", ipc, None, _FTD, settings | {"ema": ema})
        for ipc, ema, settings in (
            (1, 0.9999, _trajectory(50, 2, 2, 100, 1e-7, 0.01)),
            (10, 0.9995, _trajectory(30, 2, 20, 100, 1e-5, 0.001)),
            (50, 0.999, _trajectory(30, 2, 40, 1000, 1e-5, 0.001)),
        )
    ),
    *(
        Published(
            *("datm", dataset, ipc, True, _DATM),
            settings
            | {"iterations": 10000, "momentum": 0.5, "momentum_y": 0.9, "step_size": 0.01}
            | {"threshold": 1.1 if (dataset, ipc) == ("cifar10", 1) else 1.0}
            | {"init": "real", "init_right": (dataset, ipc) != ("cifar100", 50)}
            | {"label_epoch": 100},
            {"rho": 0.01, "alpha": 0.3, "step_size": 0.01, "batch": 256},
        )
        for dataset, ipc, settings in (
            ("cifar10", 1, _datm(80, 2, (0, None, 4), 100, 1e-7, 5.0, None)),
            ("cifar10", 10, _datm(80, 2, (0, 10, 20, 1000), 100, 1e-5, 2.0, 100)),
            ("cifar10", 50, _datm(80, 2, (0, 20, 40, 2000), 1000, 1e-5, 2.0, 500)),
            ("cifar100", 1, _datm(40, 3, (0, 20, 30, 1000), 1000, 1e-5, 10.0, None)),
            ("cifar100", 10, _datm(80, 2, (0, 30, 50, 2000), 1000, 1e-5, 10.0, 1000)),
            ("cifar100", 50, _datm(80, 2, (20, None, 70), 1000, 1e-5, 10.0, 1000)),
            ("tinyimagenet", 1, _datm(40, 2, (0, 15, 20, 2000), 10000, 1e-4, 10.0, None)),
            ("tinyimagenet", 10, _datm(40, 2, (10, None, 50), 100, 1e-4, 10.0, 500)),
            ("tinyimagenet", 50, _datm(20, 2, (40, None, 70), 100, 1e-4, 10.0, 1000)),
        )
    ),
    *(
        Published(
            *("cafe", "cifar10", ipc, False, _CAFE),
            {"lr_img": 0.1, "momentum": 0.5, "init": "noise", "batch_real": 256, "lr_net": 0.01}
            | {"inner_weight": 0.01, "outer_range": 0.04, "inner_range": 0.03},
        )
        for ipc in (1, 10, 50)
    ),
    *(
        Published(
            *("idm", dataset, ipc, False, _IDM),
            {"iterations": 20000, "lr_img": 0.2, "momentum": 0.5, "init": "real", "factor": 2}
            | {"networks": 100, "trained": 2, "train_batch": 256, "lr_net": 0.01}
            | {"ce_weight": weight, "batch_real": real, "new_every": every, "train_steps": steps},
        )
        for dataset, ipc, weight, real, every, steps in (
            ("cifar10", 1, 0.5, 5000, 5, 10),
            ("cifar10", 10, 0.5, 256, 30, 10),
            ("cifar10", 50, 0.1, 256, 30, 10),
            ("cifar100", 1, 0.5, 5000, 5, 10),
            ("cifar100", 10, 0.1, 256, 30, 50),
            ("cifar100", 50, 0.1, 256, 30, 10),
            ("tinyimagenet", 1, 0.5, 256, 30, 10),
            ("tinyimagenet", 10, 0.5, 256, 30, 10),
            ("tinyimagenet", 50, 0.8, 256, 30, 50),
        )
    ),
    *(
        Published("mct", "cifar10", ipc, False, _MCT, settings | {"lr_img": 1000.0})
        for ipc, settings in (
            (1, {"unrolled_steps": 60, "expert_epochs": 6, "max_start": 4, "lr_lr": 1e-7}),
            (10, {"unrolled_steps": 30, "expert_epochs": 15, "max_start": 8, "lr_lr": 1e-5}),
        )
    ),
    *(
        Published("softlabel", dataset, ipc, zca, _SOFT, {"expert_epoch": epoch}, experts)
        for dataset, zca, experts, epochs in (
            ("cifar10", True, {"step_size": 5e-4}, (20, 44, 128)),
            ("cifar100", None, {"step_size": 1e-2}, (13, 36, 125)),
        )
        for ipc, epoch in zip((1, 10, 50), epochs, strict=True)
    ),
    *(
        Published("pad", dataset, ipc, None, _PAD, {"pruned": pruned})
        for dataset, shares in (("cifar10", (0.0, 0.5, 0.25)), ("cifar100", (0.5, 0.5, 0.0)))
        for ipc, pruned in zip((1, 10, 50), shares, strict=True)
    ),
    *(
        Published("att", dataset, ipc, zca, _ATT, settings | {"ema": ema, "iterations": iterations})
        for dataset, ipc, zca, ema, iterations, settings in (
            ("cifar10", 1, True, 0.9999, 6_000, _trajectory(80, 4, 2, 1e2, 1e-7, 0.01)),
            ("cifar10", 10, True, 0.9999, 60_000, _trajectory(30, 2, 20, 1e4, 1e-4, 0.01)),
            ("cifar10", 50, False, 0.999, 1_000_000, _trajectory(50, 2, 40, 1e2, 1e-5, 0.001)),
            ("cifar100", 1, True, 0.9995, 3_000, _trajectory(50, 4, 20, 5e2, 1e-5, 0.01)),
            ("cifar100", 10, False, 0.9995, 200_000, _trajectory(20, 2, 40, 1e3, 1e-5, 0.01)),
        )
    ),
    *(
        Published(
            "tesla", dataset, ipc, zca, _TESLA, {"iterations": 10_000, "init": "real"} | given
        )
        for dataset, ipc, zca, given in (
            ("cifar10", 1, False, _trajectory(50, 2, 5, 1000, 1e-7, 0.01)),
            ("cifar100", 50, True, _trajectory(80, 2, 40, 1000, 1e-5, 0.01) | {"batch_syn": 125}),
        )
    ),
    *(
        Published(
            "hoptm",
            "covid19",
            ipc,
            False,
            _HOPTM,
            {
                **{"base": 1e-10, "growth": 1.3, "growth_every": 500, "shape": 1.0},
                **{"iterations": 10_000, "momentum": 0.5, "lr_img": 10.0},
                **{"unrolled_steps": 80, "expert_epochs": 2},
            }
            | given,
            {"rho": 0.01},
        )
        for ipc, given in (
            (1, {"max_start": 4, "batch_syn": 10}),
            (10, {"max_start": 40, "batch_syn": 100}),
            (50, {"min_start": 40, "max_start": 60, "growth": 1.6}),
        )
    ),
)


EXPERTS = 100
"""Trajectories a benchmark (arXiv 2203.11932 and those after it); recipes are `experts.RECIPES`."""


def find_settings(method: str, dataset: str, ipc: int) -> Published | None:
    """What was published of a method's settings; None where nothing was."""
    for row in PUBLISHED:
        if (row.method, row.dataset, row.ipc) == (method, dataset, ipc):
            return row
    return None


def published(method: str, dataset: str, ipc: int) -> dict[str, Any] | None:
    """The published values of a method's parameters; None where there are none."""
    found = find_settings(method, dataset, ipc)
    return None if found is None else found.params
