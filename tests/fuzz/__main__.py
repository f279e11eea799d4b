"""`python -m fuzz [--inputs N] [--seed S] [--keep FOLDER] [LOADER ...]`, in the folder tests/."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from fuzz.harness import Outcome, feed
from fuzz.loaders import MAKERS, loaders

BATCH = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loader", nargs="*", help=f"of {', '.join(MAKERS)}")
    parser.add_argument("--inputs", type=int, default=10_000, help="of each loader")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs of faults")
    asked = parser.parse_args()
    faults = 0
    for name in asked.loader or MAKERS:
        with tempfile.TemporaryDirectory() as scratch:
            (loader,) = loaders(Path(scratch), [name])
            whole, began = Outcome(), time.perf_counter()
            for first in range(asked.first, asked.first + asked.inputs, BATCH):
                numbers = range(first, min(first + BATCH, asked.first + asked.inputs))
                found = feed(loader, numbers, asked.seed, Path(scratch) / "inputs")
                whole.counts += found.counts
                whole.faults += found.faults
            spent = time.perf_counter() - began
        faults += whole.counts["fault"]
        counts = ", ".join(f"{whole.counts[kind]} {kind}" for kind in ("ok", "refused", "fault"))
        print(f"{name}: {counts}; {spent:.0f} s", flush=True)
        for told, count in whole.kinds().most_common():
            number = next(n for n, text, _ in whole.faults if text == told)
            print(f"  {count:5} {told} (first: {number})", flush=True)
        for number, _, content in whole.faults if asked.keep else ():
            asked.keep.mkdir(parents=True, exist_ok=True)
            (asked.keep / f"{name.replace(' ', '-')}-{number}").write_bytes(content)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"largest child: {peak:.2f} GiB resident")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
