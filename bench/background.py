"""Starts scheduler processes beside what a benchmark measures."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.failure import BenchFailed
from bench.stack import Database
from bin.ending import die_with_parent
from pipedai import env

_START_SECONDS = 60.0
_LOOK_SECONDS = 0.05


@contextmanager
def scheduler_processes(on: Database, count: int) -> Iterator[list[int]]:
    """Run `count` processes of `manage.py runscheduler` on that database, and stop them at the end. Yields their
    pids.
    """
    with (on.directory / "schedulers.log").open("wb") as output:
        processes = [
            subprocess.Popen(
                [sys.executable, "manage.py", "runscheduler"],
                cwd=env.BASE_DIR,
                env=on.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so a Ctrl-C does not reach it
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
            for _ in range(count)
        ]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def wait_for_schedulers(on: Database, count: int) -> None:
    """Wait until so many scheduler processes are at work. Raises BenchFailed."""
    deadline = time.monotonic() + _START_SECONDS
    while on.one("SELECT count(*) FROM scheduler_heartbeat")["count"] < count:
        if time.monotonic() > deadline:
            raise BenchFailed("The schedulers do not start.")
        time.sleep(_LOOK_SECONDS)
