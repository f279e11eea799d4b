"""What the first-order benchmarks share: two ways in turn, medians, one JSON object a line."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from iadd.engine.backend import choose_backend
from iadd.networks import Network

Way = Callable[[], object]


class Case(NamedTuple):
    """Ours and the plain way, doing the same work, and the network that does it."""

    ours: Way
    plain: Way
    network: Network


def compare(ours: Way, plain: Way, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each way in every round, in turn, after one round to warm up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        for spent, way in zip(seconds, (ours, plain), strict=True):
            began = time.perf_counter()
            way()
            if i:
                spent.append(time.perf_counter() - began)
    return seconds


def run(description: str, cases: Mapping[str, Callable[[], Case]]) -> None:
    """Command line of a benchmark: measure the named cases (each validates itself when made)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--settings", default=",".join(cases), help="of " + ", ".join(cases))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.settings.split(","):
        if name not in cases:
            raise SystemExit(f"setting {name!r}: allowed are {', '.join(cases)}")
        ours, plain, network = cases[name]()
        mine, theirs = compare(ours, plain, options.rounds)
        path = choose_backend(network, torch.device("cpu")).name
        ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
        row = {
            "setting": name,
            "speedup": round(statistics.median(theirs) / statistics.median(mine), 2),
            "speedup_range": [round(min(ratios), 2), round(max(ratios), 2)],
            "seconds": round(statistics.median(mine), 5),
            "seconds_plain": round(statistics.median(theirs), 5),
            "path": path,
            "threads": options.threads,
        }
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            low, high = row["speedup_range"]  # type: ignore[misc]
            print(
                f"{name:>14}  {row['seconds']:8.4f} s  plain {row['seconds_plain']:8.4f} s  "
                f"{row['speedup']:5.1f}x ({low}-{high})  {path}",
                flush=True,
            )
