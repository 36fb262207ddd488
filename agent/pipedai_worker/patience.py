"""Repeats a request until the API has answered it, with back-off, and gives up when told to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipedai_worker.answers import Unanswered
from pipedai_worker.backoff import Backoff
from pipedai_worker.logs import get_logger

log = get_logger(__name__)
Answer = TypeVar("Answer")

# While the API is away, the log mentions it this often and not at every attempt.
REMINDER_SECONDS = 300.0


class GaveUp(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The caller ended the wait before there was an answer. The message is the last attempt's."""


class Outage:
    """Logs that the API is away, repeats it now and then, and logs once that it answers again."""

    def __init__(self) -> None:
        self._failures = 0
        self._reminded_at: float | None = None

    def failed(self, error: Unanswered) -> None:
        """Note that an attempt failed. The first failure is not logged: the API may have closed an idle connection."""
        self._failures += 1
        now = time.monotonic()
        due = self._reminded_at is None or now - self._reminded_at >= REMINDER_SECONDS
        if self._failures > 1 and due:
            self._reminded_at = now
            log.warning("%s; trying again", error)

    def answered(self) -> None:
        """Note that an attempt succeeded."""
        self._failures = 0
        if self._reminded_at is not None:
            self._reminded_at = None
            log.info("the API answers again")


def until_answered(
    call: Callable[[], Answer],
    wait: Callable[[float], bool],
    *,
    again: type[Unanswered] = Unanswered,
) -> Answer:
    """Repeat `call` while it raises `again`; then return what it returns, or raise what else it raises.

    `wait(seconds)` sleeps, and returns True to give up, which raises GaveUp.
    """
    backoff, outage = Backoff(), Outage()
    while True:
        try:
            answer = call()
        except again as error:
            outage.failed(error)
            if wait(backoff.next_delay(error.retry_after)):
                raise GaveUp(str(error)) from None
        else:
            outage.answered()
            return answer
