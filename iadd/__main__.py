"""Entry point of `iadd` and `python -m iadd`: a warm server does the work if there is one."""

from __future__ import annotations

import sys

from iadd.pipeline import jobserver
from iadd.pipeline.processes import die_with_snakemake


def main() -> None:
    die_with_snakemake()
    status = jobserver.ask(sys.argv)
    if status is not None:
        sys.exit(status)
    from iadd.commands import main as run

    run()


if __name__ == "__main__":
    main()
