"""What the page tells of distillation runs and of searches, from traces and trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

Record = dict[str, Any]


def describe_runs(history: pd.DataFrame) -> list[Record]:
    """What one data set's traces tell of each (ipc, method, tuned): loss, price, trouble."""
    runs = []
    keys: Any
    for keys, run in history.groupby(["ipc", "method", "tuned"]):
        ipc, method, tuned = keys
        ends = run.groupby("seed").last()  # the last value that is not null, a column
        loss = run.groupby("iteration")["loss"].mean().dropna()
        runs.append(
            {
                "ipc": int(ipc),
                "method": method,
                "tuned": bool(tuned),
                "seeds": len(ends),
                "iterations": int(run["iteration"].max()),
                "spark": _spark(loss.tolist()),
                "loss": (loss.iloc[0], loss.iloc[-1]) if len(loss) else None,
                "step_size": _mean(ends["step_size"]),
                "own": _own_columns(run),
                "seconds": _mean(run.groupby("seed")["seconds"].max()),
                "rollbacks": int((run["event"] == "rollback").sum()),
                "diverged": int((run["event"] == "diverged").sum()),
                "path": ", ".join(sorted(set(run["path"]))),
            }
        )
    return runs


def _own_columns(run: pd.DataFrame) -> list[tuple[str, float, float]]:
    """(name, mean over seeds of the first value, of the last) of a method's own trace columns."""
    own = pd.DataFrame([dict(pairs) for pairs in run["extra"]])
    if own.empty:
        return []
    seeds = run["seed"].to_numpy()
    first, last = own.groupby(seeds).first().mean(), own.groupby(seeds).last().mean()
    names = sorted(map(str, own.columns))
    return [(name, float(first[name]), float(last[name])) for name in names]


def describe_searches(
    name: str, trials: pd.DataFrame, plots: Mapping[tuple[str, str, int], Record]
) -> list[Record]:
    """What each search of a data set cost and found; the default is trial 0, the first tried."""
    found = []
    for (dataset, method, ipc), picture in plots.items():
        if dataset != name:
            continue
        rows = trials.query("dataset == @dataset and method == @method and ipc == @ipc")
        searched = rows[rows["seed"] == 0].groupby("trial").last()
        judged = rows[rows["status"] == "confirmed"].groupby("config")["validation_accuracy"].mean()
        default = rows.sort_values(["trial", "seed", "rung"])["config"].head(1)
        found.append(
            {
                "method": method,
                "ipc": ipc,
                "picture": picture,
                "trials": len(searched),
                "ended": int((searched["status"] == "ok").sum()),
                "failed": int((searched["status"] == "failed").sum()),
                "iterations": int(searched["iteration"].sum()),
                "seconds": float(searched["seconds"].sum()),
                "default": _mean(judged[judged.index.isin(default)]),
                "best": float(judged.max()) if len(judged) else None,
            }
        )
    return found


def _mean(values: pd.Series[float]) -> float | None:
    known = values.dropna()
    return float(known.mean()) if len(known) else None


def _spark(values: list[float], width: int = 96, height: int = 22) -> str:
    """Points of a polyline of the given size, at most 60 of them, lowest value at the bottom."""
    step = max(1, -(-len(values) // 60))
    thin = values[::step]
    low, high = min(thin, default=0.0), max(thin, default=1.0)
    across, up = width / max(len(thin) - 1, 1), (height - 2) / ((high - low) or 1.0)
    return " ".join(
        f"{i * across:.1f},{height - 1 - (v - low) * up:.1f}" for i, v in enumerate(thin)
    )
