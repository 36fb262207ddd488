"""Runs background jobs until SIGTERM: what is due, again while there is more, then a sleep (SPEC §7).

A job is a small function that does one unit or one batch of work and says how much it did. The apps
register theirs when they are ready; the scheduler process is this loop and nothing else.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from pipedai import timeouts
from pipedai.logs import get_logger

log = get_logger(__name__)

# After an error a job waits this long, and at most ten times as long after errors in a row.
_PAUSE_AFTER_ERROR_SECONDS = 1.0
# While the database is away, it is tried this often.
_RECONNECT_SECONDS = 0.5
# A statement that hangs must not keep the process from ending: its transaction is rolled back.
_LONGEST_GOODBYE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Job:
    """`work` does one batch and returns how many units that were; it runs every `every_seconds`,
    and again at once when it returned more than 0. `finish` waits, when the loop ends, for what
    the job left under way."""

    name: str
    every_seconds: float
    work: Callable[[], int]
    finish: Callable[[], None] | None = None


_registered: list[Job] = []


def register_job(job: Job) -> None:
    """Adds a job to those that the scheduler runs. Call it from `AppConfig.ready()`."""
    _registered.append(job)


def registered_jobs() -> tuple[Job, ...]:
    """The jobs of all apps."""
    return tuple(_registered)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set: the unit of work in hand is finished, the next is not begun.

    If that takes more than four seconds, the process ends all the same.
    """
    stop = threading.Event()

    def ask_to_stop(*_: object) -> None:
        if not stop.is_set():
            stop.set()
            threading.Thread(target=_end_anyway, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    return stop


@timeouts.overriding(timeouts.SCHEDULER)
def run_jobs(jobs: Sequence[Job], stop: threading.Event) -> Counter[str]:
    """Runs the jobs in turn, each when it is due, until `stop` is set; how many units each has done.

    An error in one holds up none of the others, and one that has much to do lets the others have
    their turns between its batches. While the database is away, all wait for it.
    """
    due = {job.name: time.monotonic() for job in jobs}
    failures = Counter[str]()
    done = Counter[str]()
    while not stop.is_set():
        for job in jobs:
            if stop.is_set() or due[job.name] > time.monotonic():
                continue
            close_old_connections()
            try:
                units = job.work()
            except Exception as error:
                if _is_away(error):
                    _wait_for_database(error, stop)
                    continue  # it is still due
                failures[job.name] += 1
                pause = _PAUSE_AFTER_ERROR_SECONDS * min(failures[job.name], 10)
                log.exception("job.failed", job=job.name, retry_seconds=pause)
            else:
                failures[job.name] = 0
                pause = 0.0 if units else job.every_seconds
                if units:
                    done[job.name] += units
                    log.info("job.done", job=job.name, units=units, total=done[job.name])
            due[job.name] = time.monotonic() + pause
        stop.wait(max(0.0, min(due.values()) - time.monotonic()))
    for job in jobs:
        if job.finish:
            job.finish()
    return done


def _is_away(error: Exception) -> bool:
    """Whether a job failed because there is no database to talk to, and not at its own work."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return False
    connection.close()  # it may be broken, and a new one is cheap
    return not _answers()


def _answers() -> bool:
    try:
        connection.ensure_connection()
    except (DatabaseError, InterfaceError):
        return False
    return True


def _wait_for_database(error: Exception, stop: threading.Event) -> None:
    """Returns once it answers, or `stop` is set. Says when it went and when it came back, and nothing between."""
    since = time.monotonic()
    log.warning("database.away", error=type(error).__name__)
    while not stop.wait(_RECONNECT_SECONDS):
        if _answers():
            log.info("database.back", after_seconds=round(time.monotonic() - since, 1))
            return


def _end_anyway() -> None:
    time.sleep(_LONGEST_GOODBYE_SECONDS)
    log.warning("stop.forced", after_seconds=_LONGEST_GOODBYE_SECONDS)
    os._exit(1)
