"""Tells the API of a run: by heartbeats while it is executed, which renew its lease, and by the report of its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pipedai_worker.api import Api, Backoff, Refused, TokenRefused, Unanswered, until_answered
from pipedai_worker.disk.journal import Journal
from pipedai_worker.executors.base import Executor
from pipedai_worker.logs import get_logger
from pipedai_worker.running.outcome import WAITING, bare
from pipedai_worker.running.stopping import StopReason, StopRequest, run_in_background

log = get_logger(__name__)

# Two heartbeats in a row may fail, and the third still comes before the lease ends.
BEATS_PER_LEASE = 3
# The pause between heartbeats stays within these bounds, because only an answer tells that a run was canceled.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 20.0
# A thread that waits for a heartbeat's answer checks this often whether the run has been stopped meanwhile.
LOOK_SECONDS = 0.2

Counts = dict[str, int]


class NotTold(Exception):  # noqa: N818 - a state of knowledge
    """The run ended or was stopped before the API had answered the heartbeat."""


class Heartbeat:
    """A context manager that sends heartbeats, with what `counts` returns and, once it is set, with `session_id`."""

    def __init__(
        self,
        api: Api,
        run_id: str,
        stop: StopRequest,
        counts: Callable[[], Counts | None] = lambda: None,
    ) -> None:
        self._api = api
        self._run_id = run_id
        self._stop = stop
        self._counts = counts
        self.session_id: str | None = None
        self._interval = LONGEST_SECONDS
        self._condition = threading.Condition()
        self._ended = False
        # How often `tell()` was called, and how often it had been when the last answered heartbeat was sent.
        self._asked = self._answered = 0

    def __enter__(self) -> Heartbeat:
        run_in_background(f"heartbeat {self._run_id}", self._beat)
        return self

    def __exit__(self, *_: object) -> None:
        # The heartbeat's thread is not joined: it may be waiting for a slow answer, which no longer matters.
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def tell(self) -> None:
        """Wait until a heartbeat with the present counts, or later ones, has been answered. Raises NotTold."""
        with self._condition:
            self._asked += 1
            mine = self._asked
            self._condition.notify_all()
            while self._answered < mine:
                if self._ended or self._stop.reason is not None:
                    raise NotTold
                self._condition.wait(LOOK_SECONDS)
            if self._stop.reason is not None:
                raise NotTold

    def _beat(self) -> None:
        backoff = Backoff()
        delay = 0.0
        failed = False
        while self._wait(delay, in_any_case=failed):
            with self._condition:
                asked = self._asked
            try:
                answer = self._api.heartbeat(self._run_id, self._counts(), self.session_id)
            except TokenRefused:
                self._stop.request(StopReason.TOKEN_REFUSED)
                return
            except Refused:
                self._stop.request(StopReason.LOST)
                return
            except Exception as error:
                # The thread goes on. If it ended, the run would lose its lease, and `tell()` would wait for ever.
                failed = True
                if not isinstance(error, Unanswered):
                    log.exception("run %s: the heartbeat failed", self._run_id)
                # After an outage the API waits three times as long as this before it gives the run up.
                delay = backoff.next_delay(getattr(error, "retry_after", None))
                delay = min(delay, self._interval / 2)
            else:
                backoff.reset()
                failed = False
                delay = self._interval = self._next_interval(answer)
                if answer.get("cancelRequested"):
                    self._stop.request(StopReason.CANCELED)
                with self._condition:
                    self._answered = asked
                    self._condition.notify_all()

    def _wait(self, seconds: float, *, in_any_case: bool) -> bool:
        """Sleep, but only until `tell()` needs a heartbeat, unless `in_any_case`. Return False at the run's end."""
        until = time.monotonic() + seconds
        with self._condition:
            while not self._ended:
                left = until - time.monotonic()
                if left <= 0 or (self._asked > self._answered and not in_any_case):
                    return True
                self._condition.wait(left)
            return False

    def _next_interval(self, answer: dict[str, Any]) -> float:
        left = self._api.seconds_until(answer.get("leaseExpiresAt"))
        if left is None:
            return self._interval
        return min(max(left / BEATS_PER_LEASE, SHORTEST_SECONDS), LONGEST_SECONDS)


@dataclass(frozen=True)
class Surroundings:
    api: Api
    journal: Journal
    executor: Executor
    # Names of environment variables that the program gets beside the allow-listed ones.
    pass_env: tuple[str, ...]
    # The directory for live run events; None if nobody asked for them.
    events: Path | None
    # Sleeps for so many seconds; returns True once the worker has to exit.
    leaving: Callable[[float], bool]
    # Called with a run's id when the run is on disk, or can't be written there.
    claimed: Callable[[str], None]
    # Called with a run's id before the API is told that the run waits for a person. The worker takes no run meanwhile.
    parking: Callable[[str], None]


def report(around: Surroundings, run_id: str, body: dict[str, Any]) -> str | None:
    """Send the outcome of a run, and remove it from disk after a 2xx or a 4xx that is final.

    Return the status that the run then has, or None if the API refuses the outcome. If the API can't store the outcome
    (400, 413), only its status and fault are sent. The answer says how long the run's session can be resumed.

    Raises GaveUp when the worker has to exit, and TokenRefused if the API refuses the token. In both cases the outcome
    stays on disk, and the worker's next start sends it.
    """
    journal, status = around.journal, None
    try:
        answer = until_answered(lambda: around.api.complete(run_id, body), around.leaving)
    except Refused as refused:
        if refused.is_unfit and body != bare(body):
            # Without any report the API would take the run for lost.
            log.warning("run %s: the API can't take the whole outcome: %s", run_id, refused)
            return report(around, run_id, bare(body))
        log.warning("run %s: %s not accepted: %s", run_id, body.get("status"), refused)
        if refused.status == HTTPStatus.NOT_FOUND:
            journal.sessions.learn_end(run_id, None, around.executor)
    else:
        status = answer.get("status")
        log.info("run %s %s", run_id, body.get("status"))
        seconds, waits = around.api.seconds_until(answer.get("resumeUntil")), status == WAITING
        # The session of a run that waits stays as long as it can, if the API does not tell how long.
        if "resumeUntil" in answer and not (waits and seconds is None):
            journal.sessions.learn_end(run_id, seconds, around.executor, waits=waits)
    journal.drop_outcome(run_id)
    return status
