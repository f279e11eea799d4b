"""`python -m chaos`: every fault once, then random kills until the time is over."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos.bench import Place
from chaos.faults import FAULTS
from chaos.kills import Tally, attempt, kills_of_stage, random_kills

STAGES = ("collect", "site")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", help=f"some of {', '.join(FAULTS)}, stages, kills")
    parser.add_argument("--minutes", type=float, default=25.0, help="after which it ends")
    parser.add_argument("--stage-kills", type=int, default=5, help="of collect and of site")
    parser.add_argument("--seeds", type=int, default=6, help="of the benchmark that is killed")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when")
    asked = parser.parse_args()
    wanted = asked.faults or [*FAULTS, "stages", "kills"]
    until, tally = time.monotonic() + 60 * asked.minutes, Tally()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: sys.exit(3))  # what was found so far is told all the same
    try:
        small = _tables(folder / "small", 3)
        for name, fault in FAULTS.items():
            if name in wanted and time.monotonic() < until:
                attempt(lambda fault=fault: fault(folder, small, tally), tally.lost)
                print(f"{name}: done", flush=True)
        large = _tables(folder / "large", asked.seeds)
        if "stages" in wanted:
            for stage in STAGES:
                kills_of_stage(folder, large, tally, stage, asked.stage_kills, asked.seeds)
        if "kills" in wanted:
            random_kills(folder, large, tally, until, asked.seeds, asked.seed)
    finally:
        wrong = report(tally)
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(wrong)


def _tables(folder: Path, seeds: int) -> object:
    place = Place(folder, seeds=seeds)
    place.finish()
    return place.tables()


def report(tally: Tally) -> int:
    """Print what was done and what came of it; 1 if anything was lost, false or untidy."""
    for what, count in sorted(tally.done.items()):
        print(f"{count:6} {what}")
    print(f"{tally.done.total():6} faults in all")
    for name in ("lost", "false", "untidy"):
        found = getattr(tally, name)
        print(f"{len(found):6} {name}")
        for line in found[:5]:
            print("  " + "\n  ".join(line.splitlines()))
    return int(bool(tally.lost or tally.false or tally.untidy))


if __name__ == "__main__":
    main()
