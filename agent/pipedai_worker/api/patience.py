"""Repeats a request until the API has answered it, after random and growing pauses, unless the caller gives up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipedai_worker.api.answers import Unanswered
from pipedai_worker.logs import get_logger

log = get_logger(__name__)
Answer = TypeVar("Answer")

# While the API does not answer, the log says so once in this time, and not at every attempt.
REMINDER_SECONDS = 300.0


class GaveUp(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The caller gave up before the API answered. The exception has the message of the last failed attempt."""


class Outage:
    """Logs that the API does not answer, logs it again now and then, and logs once when the API answers again."""

    def __init__(self) -> None:
        self._failures = 0
        self._reminded_at: float | None = None

    def failed(self, error: Unanswered) -> None:
        """Log that an attempt failed. The first failure in a row is not logged: the API may close idle connections."""
        self._failures += 1
        now = time.monotonic()
        due = self._reminded_at is None or now - self._reminded_at >= REMINDER_SECONDS
        if self._failures > 1 and due:
            self._reminded_at = now
            log.warning("%s; trying again", error)

    def answered(self) -> None:
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
    """Call `call` until it no longer raises `again`, and return its result. `wait(seconds)` sleeps between attempts. If
    it returns True the caller gives up, which raises GaveUp.
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


FIRST_SECONDS = 0.5
# The longest pause between two attempts. When an outage ends, the API gives a run up if its worker sends nothing for
# another minute, so the worker must ask sooner than that.
LONGEST_SECONDS = 15.0


class Backoff:
    """Computes the delays between the attempts of one request. Call `reset()` when an attempt has succeeded."""

    def __init__(self) -> None:
        self.attempts = 0

    def reset(self) -> None:
        self.attempts = 0

    def next_delay(self, retry_after: float | None = None) -> float:
        """Return the seconds until the next attempt: random, up to twice as long each time, at least `retry_after`."""
        bound = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.attempts, 16))
        self.attempts += 1
        return max(jittered(bound), retry_after or 0.0)


def jittered(seconds: float) -> float:
    """Return a random time from half of `seconds` to `seconds`, so that many workers do not all call at once."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
