"""Starts `manage.py runscheduler` as a process of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pipedai.env import BASE_DIR
from testing.processes.web_process import url_of


@contextlib.contextmanager
def scheduling(
    database: str, *, log: Path, **environment: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a scheduler on the database of this name for the time of the block, and then kills it if it still lives."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runscheduler"],
            cwd=BASE_DIR,
            env={**os.environ, "DATABASE_URL": url_of(database), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
