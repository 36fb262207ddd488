"""Repeats a request until the API has answered it, with back-off, and gives up when told to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipedai_worker.api import Unavailable
from pipedai_worker.backoff import Backoff
from pipedai_worker.logs import get_logger

log = get_logger(__name__)
Answer = TypeVar("Answer")

# An API that stays away is mentioned again after this long, not at every attempt.
REMINDER_SECONDS = 300.0


class GaveUp(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The wait was called off before there was an answer."""


class Outage:
    """Says once that the API is away, reminds now and then, and says once that it is back."""

    def __init__(self) -> None:
        self._reminded_at: float | None = None

    def failed(self, error: Unavailable) -> None:
        """An attempt failed."""
        now = time.monotonic()
        if self._reminded_at is None or now - self._reminded_at >= REMINDER_SECONDS:
            self._reminded_at = now
            log.warning("%s; trying again", error)

    def answered(self) -> None:
        """An attempt succeeded."""
        if self._reminded_at is not None:
            self._reminded_at = None
            log.info("the API answers again")


def until_answered(call: Callable[[], Answer], wait: Callable[[float], bool]) -> Answer:
    """What `call` returns, or raises, once it is anything but Unavailable.

    `wait(seconds)` sleeps and answers whether to give up; then GaveUp is raised.
    """
    backoff, outage = Backoff(), Outage()
    while True:
        try:
            answer = call()
        except Unavailable as error:
            outage.failed(error)
            if wait(backoff.next_delay(error.retry_after)):
                raise GaveUp from None
        else:
            outage.answered()
            return answer
