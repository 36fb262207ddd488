"""Starts `manage.py runscheduler` as a process of its own."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from testing.processes import warm_start
from testing.processes.web_process import url_of


@contextlib.contextmanager
def scheduling(
    database: str, *, log: Path, **environment: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a scheduler on the database of this name for the time of the block, and then kills it if it still lives."""
    with log.open("wb") as output:
        process = warm_start.start(
            ["manage.py", "runscheduler"],
            environment={**os.environ, "DATABASE_URL": url_of(database), **environment},
            output=output.fileno(),
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
