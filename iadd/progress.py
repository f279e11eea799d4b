"""Long work shows itself: a bar on a terminal, a plain line now and then elsewhere.

With a file it says there, too, how far it is, for whoever looks on from another process or machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

SECONDS = 10.0


class Progress:
    """Callable (done, total, note); a context manager that leaves the terminal clean.

    Work may have several parts, counted one after another. Where there is no terminal, lines come
    from ten seconds on, so that short work is silent.

    Args:
        title: what is done, in words.
        file: where the state lies while the work goes on, as JSON: title, host, pid, began and told
            (when it started and when this was written, seconds since 1970), done, total, rate (a
            second), note. A killed process leaves it behind.
    """

    def __init__(self, title: str, file: Path | None = None) -> None:
        self.title, self.file = title, file
        self.began = self.last = time.monotonic()
        self.first: int | None = None
        self.done = 0
        self.bar: Bar | None = None

    def __enter__(self) -> Progress:
        self.origin: dict[str, object] = {"title": self.title, "host": platform.node()}
        self.origin |= {"pid": os.getpid(), "began": time.time()}
        self._tell(done=0, total=None, rate=None, note="")
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=None, rate="", note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
        if self.file:
            with contextlib.suppress(OSError):
                self.file.unlink(missing_ok=True)

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None or done < self.done:
            self.began = now if self.done else self.began
            self.first = done - 1  # work resumed from a checkpoint does not count for the rate
        self.done = done
        rate = (done - self.first) / max(now - self.began, 1e-9)
        if self.file and now - self.told > SECONDS:
            self._tell(done=done, total=total, rate=rate, note=note)
        if self.bar:
            self.bar.update(self.task, completed=done, total=total, rate=f"{rate:.1f}/s", note=note)
        elif now - max(self.last, self.began) > SECONDS:  # A part that just began has no rate.
            self.last = now
            left = (total - done) / rate
            told = f"{self.title}: {done}/{total} {rate:.2f}/s, {left:.0f} s left, {note}"
            print(told, file=sys.stderr, flush=True)

    def _tell(self, **state: object) -> None:
        """Write the state into the file; that it cannot be written ends no work."""
        self.told = time.monotonic()
        if self.file is None:
            return
        draft = self.file.with_name(f".{self.file.name}.{platform.node()}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self.origin | state | {"told": time.time()}))
            draft.replace(self.file)
