"""Runs the scheduler's background jobs until SIGTERM.

A job does one turn of work and returns how many units it did. It runs when it is due, and again while it has more.

While no job fails, schedulers also request HEARTBEAT_URL once a minute, so that a monitor outside sees that the service
works. The loop runs one job at a time, so a job that hangs stops these requests too.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from pipedai import timeouts
from pipedai.logs import get_logger
from pipedai.sql import takes_writes

log = get_logger(__name__)

# The URL is requested this often, in seconds. A request is made only if no job has failed during this time.
HEARTBEAT_SECONDS = 60.0
_HEARTBEAT_TIMEOUT = 10.0

_heartbeat_lock = threading.Lock()
_failed_at: float | None = None
_sending: threading.Thread | None = None


def note_failure() -> None:
    global _failed_at
    with _heartbeat_lock:
        _failed_at = time.monotonic()


def send_heartbeat() -> int:
    """Requests the URL in a thread of its own, unless a job failed lately or a request is under way. Returns 0."""
    global _sending
    url = settings.HEARTBEAT_URL
    if not url:
        return 0
    with _heartbeat_lock:
        went_well = _failed_at is None or time.monotonic() - _failed_at >= HEARTBEAT_SECONDS
        is_busy = _sending is not None and _sending.is_alive()
    if not went_well:
        log.warning("heartbeat.withheld")
    elif not is_busy:
        _sending = threading.Thread(
            target=_request_heartbeat, args=(url,), name="heartbeat", daemon=True
        )
        _sending.start()
    return 0


def await_heartbeat() -> None:
    if _sending is not None:
        _sending.join(_HEARTBEAT_TIMEOUT)


def _request_heartbeat(url: str) -> None:
    """Requests the URL. It may lie in a private network, as the operator chose it. The log names its host only."""
    host = urlsplit(url).hostname
    try:
        with httpx.Client(timeout=_HEARTBEAT_TIMEOUT, trust_env=False) as client:
            answer = client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        log.warning("heartbeat.failed", host=host, error=type(error).__name__)
        return
    if answer.is_success:
        log.debug("heartbeat.sent", host=host)
    else:
        log.warning("heartbeat.failed", host=host, status_code=answer.status_code)


# A job waits this many seconds after an error, twice as long after a second error in a row, and so on, up to ten times
# as long.
_PAUSE_AFTER_ERROR_SECONDS = 1.0
# While the database is away, the loop tries to connect this often.
_RECONNECT_SECONDS = 0.5
# A job that works in threads runs this often while they are busy, because it takes more work when a thread is free.
_BUSY_SECONDS = 0.05
# After SIGTERM the process ends within this many seconds, even if a statement hangs. PostgreSQL then rolls its
# transaction back.
_LONGEST_GOODBYE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Job:
    """A background job. `work` does one turn and returns how many units it did. The loop calls `work` every
    `every_seconds`, again at once if it returned more than 0, and every `_BUSY_SECONDS` while `is_busy`. When the loop
    ends, a thread calls `finish`, which waits for the work that threads have begun.

    `does` says in a sentence what the job does. `turns` names the rows that workspaces take turns with, as in
    `pipedai.turns`; if no tenant's rows wait for the job, `alone` says why not. docs/jobs.md is made of these.
    """

    name: str
    every_seconds: float
    work: Callable[[], int]
    does: str = ""
    turns: str = ""
    alone: str = ""
    finish: Callable[[], None] | None = None
    is_busy: Callable[[], bool] | None = None

    @property
    def pause_seconds(self) -> float:
        busy = self.is_busy is not None and self.is_busy()
        return min(_BUSY_SECONDS, self.every_seconds) if busy else self.every_seconds


_registered: list[Job] = []


def register_job(job: Job) -> None:
    """Raises ValueError if the job does not say what it does, and how tenants share it or why they don't."""
    if not job.does or bool(job.turns) == bool(job.alone):
        raise ValueError(f"The job {job.name} must have `does`, and either `turns` or `alone`.")
    _registered.append(job)


def registered_jobs() -> tuple[Job, ...]:
    return tuple(_registered)


def table_of_jobs() -> str:
    """Returns the table of docs/jobs.md. Rewrite the page with it when a job changes."""
    lines = [
        "| job | every | what it does | workspaces take turns with |",
        "| --- | --- | --- | --- |",
    ]
    for job in sorted(_registered, key=lambda job: job.name):
        turns = job.turns or f"nothing. {job.alone}"
        lines.append(f"| `{job.name}` | {job.every_seconds:g} s | {job.does} | {turns} |")
    return "\n".join(lines)


def stop_on_signals() -> threading.Event:
    """Returns an event that SIGTERM and SIGINT set. The present batch is finished if it takes four seconds at most."""
    stop = threading.Event()

    def ask_to_stop(*_: object) -> None:
        if not stop.is_set():
            # This handler may interrupt the main thread just when it holds the event's lock, and `set` would then wait
            # for this lock for ever. So another thread sets the event.
            threading.Thread(target=_stop, args=(stop,), daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    return stop


@timeouts.overriding(timeouts.JOB)
def run_jobs(jobs: Sequence[Job], stop: threading.Event) -> Counter[str]:
    """Runs due jobs one at a time until `stop` is set. Returns each job's units. An error in one delays no other. While
    the database is away, all jobs wait for it.
    """
    due = {job.name: time.monotonic() for job in jobs}
    if len(due) < len(jobs):
        raise ValueError("Two jobs have the same name, so one of them would never run.")
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
                    note_failure()
                    _wait_for_database(error, stop)
                    # The job stays due. It failed only because the database was away.
                    continue
                pause = _pause_after(error, job, failures)
            else:
                failures[job.name] = 0
                pause = 0.0 if units else job.pause_seconds
                if units:
                    done[job.name] += units
                    log.info("job.done", job=job.name, units=units, total=done[job.name])
            due[job.name] = time.monotonic() + pause
        stop.wait(max(0.0, min(due.values()) - time.monotonic()))
    if waits := [job.finish for job in jobs if job.finish]:
        with ThreadPoolExecutor(len(waits)) as pool:
            list(pool.map(lambda wait: wait(), waits))
    return done


def _pause_after(error: Exception, job: Job, failures: Counter[str]) -> float:
    """Logs why a job did not end its turn. Returns after how many seconds it has its next one."""
    if timeouts.lacks_lock(error):
        log.info("job.waits_for_lock", job=job.name)
        return job.every_seconds
    failures[job.name] += 1
    note_failure()
    pause = _PAUSE_AFTER_ERROR_SECONDS * min(failures[job.name], 10)
    log.error("job.failed", job=job.name, retry_seconds=pause, exc_info=error)
    return pause


def _is_away(error: Exception) -> bool:
    """Whether a job failed because the database is away, and not because of its own work."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return False
    # The connection may be broken. Closing it makes the next query open a new one, which is cheap.
    connection.close()
    return not _answers()


def _answers() -> bool:
    """Whether the database takes writes. A connection alone proves nothing: poolers and standbys accept it too."""
    try:
        return takes_writes()
    except (DatabaseError, InterfaceError):
        connection.close()  # The next try needs a new connection.
        return False


def _wait_for_database(error: Exception, stop: threading.Event) -> None:
    """Returns when the database answers or `stop` is set. Logs a line at the beginning and at the end."""
    since = time.monotonic()
    log.warning("database.away", error=type(error).__name__)
    while not stop.wait(_RECONNECT_SECONDS):
        if _answers():
            log.info("database.back", after_seconds=round(time.monotonic() - since, 1))
            return


def _stop(stop: threading.Event) -> None:
    stop.set()
    time.sleep(_LONGEST_GOODBYE_SECONDS)
    log.warning("stop.forced", after_seconds=_LONGEST_GOODBYE_SECONDS)
    os._exit(1)
