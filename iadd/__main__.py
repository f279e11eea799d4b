"""Entry point of `iadd` and `python -m iadd`: a warm server does the work if there is one."""

from __future__ import annotations

import sys

from iadd.pipeline import jobserver


def main() -> None:
    status = jobserver.ask(sys.argv)
    if status is not None:
        sys.exit(status)
    from iadd.commands import main as run

    run()


if __name__ == "__main__":
    main()
