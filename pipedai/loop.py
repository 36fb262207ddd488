"""Runs background jobs until SIGTERM: what is due, again while there is more, then a sleep (SPEC §7).

A job is a small function that does one unit or one batch of work and says how much it did. The apps
register theirs when they are ready; the scheduler process is this loop and nothing else.
"""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import DatabaseError, close_old_connections, connection

from pipedai.logs import get_logger

log = get_logger(__name__)

# After an error a job waits this long, and at most ten times as long after errors in a row.
_PAUSE_AFTER_ERROR_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """`work` does one batch and returns how many units that were; it runs every `every_seconds`,
    and again while it returns more than 0."""

    name: str
    every_seconds: float
    work: Callable[[], int]


_registered: list[Job] = []


def register_job(job: Job) -> None:
    """Adds a job to those that the scheduler runs. Call it from `AppConfig.ready()`."""
    _registered.append(job)


def registered_jobs() -> tuple[Job, ...]:
    """The jobs of all apps."""
    return tuple(_registered)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set: the unit of work in hand is finished, the next is not begun."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def run_jobs(jobs: Sequence[Job], stop: threading.Event) -> None:
    """Runs the jobs, each when it is due, until `stop` is set. An error in one holds up none of the others."""
    due = {job.name: time.monotonic() for job in jobs}
    failures = dict.fromkeys(due, 0)
    while not stop.is_set():
        for job in jobs:
            if stop.is_set() or due[job.name] > time.monotonic():
                continue
            failures[job.name] = 0 if _run_once(job, stop) else failures[job.name] + 1
            pause = (
                job.every_seconds
                if not failures[job.name]
                else _PAUSE_AFTER_ERROR_SECONDS * min(failures[job.name], 10)
            )
            due[job.name] = time.monotonic() + pause
        stop.wait(max(0.0, min(due.values()) - time.monotonic()))
    connection.close()


def _run_once(job: Job, stop: threading.Event) -> bool:
    """Runs a job until it has nothing to do; whether it went well."""
    close_old_connections()
    try:
        while not stop.is_set() and (done := job.work()):
            log.info("job.done", job=job.name, units=done)
    except DatabaseError as error:
        log.warning("job.database_error", job=job.name, error=type(error).__name__)
        connection.close()
        return False
    except Exception:
        log.exception("job.failed", job=job.name)
        return False
    return True
