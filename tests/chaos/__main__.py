"""`python -m chaos`: every fault once, then random kills until the time is over."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos.bench import Place, Watch
from chaos.faults import FAULTS
from chaos.kills import Tally, attempt, kills_of_stage, random_kills
from chaos.processes import end

STAGES = ("collect", "site")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", help=f"some of {', '.join(FAULTS)}, stages, kills")
    parser.add_argument("--minutes", type=float, default=25.0, help="after which it ends")
    parser.add_argument("--still", type=float, default=3.0, help="minutes until a run is stuck")
    parser.add_argument("--stage-kills", type=int, default=5, help="of collect and of site")
    parser.add_argument("--seeds", type=int, default=6, help="of the benchmark that is killed")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when")
    asked = parser.parse_args()
    wanted = asked.faults or [*FAULTS, "stages", "kills"]
    if unknown := {*wanted} - {*FAULTS, "stages", "kills"}:
        parser.error(f"no fault is called {', '.join(sorted(unknown))}")
    until, tally, Watch.still = time.monotonic() + 60 * asked.minutes, Tally(), 60 * asked.still
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: sys.exit(3))  # what was found so far is told all the same
    try:
        _all(folder, wanted, until, asked, tally)
    finally:
        wrong = report(tally)
        for place in folder.iterdir():
            end(str(place))
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(wrong)


def _all(
    folder: Path, wanted: list[str], until: float, asked: argparse.Namespace, tally: Tally
) -> None:
    if {*wanted} & {*FAULTS}:
        small = _tables(folder / "small", 3)
    for name in [name for name in FAULTS if name in wanted]:
        if time.monotonic() > until:
            tally.undone.append(f"{name}: the time was over")
            continue
        began, before = time.monotonic(), tally.done.total()
        attempt(lambda fault=FAULTS[name]: fault(folder, small, tally), tally)
        took = time.monotonic() - began
        print(f"{name}: {tally.done.total() - before} faults in {took:.0f} s", flush=True)
    if {*wanted} & {"stages", "kills"}:
        large = _tables(folder / "large", asked.seeds)
    for stage in STAGES if "stages" in wanted else ():
        kills = (folder, large, tally, stage, asked.stage_kills, asked.seeds)
        attempt(lambda kills=kills: kills_of_stage(*kills), tally)
    if "kills" in wanted:
        random_kills(folder, large, tally, until, asked.seeds, asked.seed)


def _tables(folder: Path, seeds: int) -> object:
    place = Place(folder, seeds=seeds)
    place.finish()
    return place.tables()


def report(tally: Tally) -> int:
    """Print what was done and what came of it; 1 if anything was wrong or not done."""
    for what, count in sorted(tally.done.items()):
        print(f"{count:6} {what}")
    print(f"{tally.done.total():6} faults in all")
    wrong = 0
    for name in ("lost", "false", "untidy", "stuck", "undone"):
        found = getattr(tally, name)
        wrong += len(found)
        print(f"{len(found):6} {name}")
        for line in found[:5]:
            print("  " + "\n  ".join(line.splitlines()))
    return int(wrong > 0)


if __name__ == "__main__":
    main()
