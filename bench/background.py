"""Starts scheduler processes beside what a benchmark measures."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.stack import Database
from bin.ending import die_with_parent
from pipedai import env


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
