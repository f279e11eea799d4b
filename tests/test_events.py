"""Snakemake as a child: it does not wait for what a failed thread of its own was to tell it."""

import json
import subprocess
import sys

import pytest

BEGIN = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from iadd.pipeline.events import LogHandler, Lost

LogHandler.pipe = sys.stdout
Lost.watch()

def fail(*_):
    raise KeyError("job 7")

"""
FAIL = {
    "a callback": "ThreadPoolExecutor(1).submit(time.sleep, 0.1).add_done_callback(fail)",
    "a thread": "threading.Thread(target=fail).start()",
}


@pytest.mark.parametrize("where", FAIL)
def test_where_a_thread_of_snakemake_fails_it_ends_in_one_line(where: str) -> None:
    code = f"{BEGIN}\n{FAIL[where]}\ntime.sleep(60)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["event"] == "text"
    assert told["text"] == (
        "a thread of Snakemake failed (KeyError('job 7')); the same command goes on from here"
    )


def test_what_a_job_raises_is_no_failed_thread() -> None:
    code = f"{BEGIN}\nwith ThreadPoolExecutor(1) as pool: pool.submit(fail).exception()"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
