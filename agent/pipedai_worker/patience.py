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

# An API that stays away is mentioned again after this long, not at every attempt.
REMINDER_SECONDS = 300.0


class GaveUp(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The wait was called off before there was an answer; the message is the last attempt's."""


class Outage:
    """Says once that the API is away, reminds now and then, and says once that it is back."""

    def __init__(self) -> None:
        self._failures = 0
        self._reminded_at: float | None = None

    def failed(self, error: Unanswered) -> None:
        """An attempt failed. The first one is no outage yet: a connection may just have aged."""
        self._failures += 1
        now = time.monotonic()
        due = self._reminded_at is None or now - self._reminded_at >= REMINDER_SECONDS
        if self._failures > 1 and due:
            self._reminded_at = now
            log.warning("%s; trying again", error)

    def answered(self) -> None:
        """An attempt succeeded."""
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
    """What `call` returns, or raises, once it raises `again` no more.

    `wait(seconds)` sleeps and answers whether to give up; then GaveUp is raised.
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
