"""Snakemake in a process of its own, which tells its parent what happens: a JSON line an event.

`python -m iadd.pipeline.events DESCRIPTOR PARENT snakemake's own arguments`. The events go to the
open file descriptor. The process does not outlive its parent where the kernel sees to it (Linux).
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import threading
from types import SimpleNamespace
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from iadd.pipeline.processes import SNAKEMAKE, die_with_parent


def event_of(record: Any) -> dict[str, Any] | None:
    """What the parent needs of a log record; None where it needs nothing."""
    event = getattr(record, "event", None)
    if event == LogEvent.PROGRESS:
        return {"event": "done", "done": record.done}
    if event == LogEvent.RUN_INFO:
        counts = {k: int(n) for k, n in record.stats.items() if k not in ("total", "all")}
        return {"event": "jobs", "counts": counts}  # by rule; `all` is no job
    if event in (LogEvent.JOB_INFO, LogEvent.JOB_ERROR):
        return {
            "event": "started" if event == LogEvent.JOB_INFO else "failed",
            "job": record.jobid,
            "rule": record.rule_name,
            "wildcards": {k: str(v) for k, v in dict(record.wildcards or {}).items()}
            if hasattr(record, "wildcards")
            else {},
            "log": [str(path) for path in record.log or []],
        }
    if event == LogEvent.GROUP_ERROR:
        logs = [str(path) for path in record.aux_logs if path]
        return {"event": "group", "log": logs, "jobs": [e["jobid"] for e in record.job_error_info]}
    if event == LogEvent.JOB_FINISHED:
        return {"event": "finished", "job": record.job_id}
    if event in (None, LogEvent.ERROR):
        return {"event": "text", "level": record.levelno, "text": record.getMessage()}
    return None


class LogHandler(LogHandlerBase):
    """The logger plugin: writes what happens to the parent's pipe."""

    pipe: Any = None
    writes_to_stream, writes_to_file, needs_rulegraph = True, False, False
    has_filter = has_formatter = True

    def emit(self, record: logging.LogRecord) -> None:
        event = event_of(record)
        if event is not None:
            self.tell(event)

    @classmethod
    def tell(cls, event: dict[str, Any]) -> None:
        cls.pipe.write(json.dumps(event) + "\n")
        cls.pipe.flush()


class Lost(logging.Handler):
    """Ends this process where one of its threads failed: what that thread was to tell, the end of a
    job say, Snakemake would wait for without end. The same command goes on from there."""

    def emit(self, record: logging.LogRecord) -> None:
        self.end(record.exc_info[1] if record.exc_info else record.getMessage())

    @staticmethod
    def end(reason: object) -> None:
        text = f"a thread of Snakemake failed ({reason!r}); the same command goes on from here"
        try:
            LogHandler.tell({"event": "text", "level": logging.ERROR, "text": text})
        finally:
            os._exit(1)

    @classmethod
    def watch(cls) -> None:
        """Look at what threads raise, and at what the pools of `concurrent.futures` only log."""
        threading.excepthook = lambda told: cls.end(told.exc_value)
        logging.getLogger("concurrent.futures").addHandler(cls(logging.ERROR))


def main() -> None:
    descriptor, parent, *arguments = sys.argv[1:]
    sys.argv[0] = "iadd run"  # what Snakemake calls itself in its messages
    die_with_parent(int(parent))
    os.environ[SNAKEMAKE] = f"{platform.node()} {os.getpid()}"
    from snakemake.cli import main as snakemake

    LogHandler.pipe = os.fdopen(int(descriptor), "w")
    Lost.watch()
    plugin: Any = SimpleNamespace(LogHandler=LogHandler)
    LoggerPluginRegistry().register_plugin("snakemake_logger_plugin_iadd", plugin)
    snakemake([*arguments, "--logger", "iadd"])


if __name__ == "__main__":
    main()
