"""How long to wait before trying again: exponential, with jitter, never below `Retry-After`."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 60.0
# A server that asks for more than this is asked again all the same.
LONGEST_RETRY_AFTER_SECONDS = 3600.0


class Backoff:
    """The delays of one series of attempts; `reset()` after a success."""

    def __init__(self, longest: float = LONGEST_SECONDS) -> None:
        self._longest = longest
        self.attempts = 0

    def reset(self) -> None:
        """The next delay is a short one again."""
        self.attempts = 0

    def next_delay(self, retry_after: float | None = None) -> float:
        """Seconds until the next attempt: part of a doubling bound, at least `retry_after`."""
        bound = min(self._longest, FIRST_SECONDS * 2.0 ** min(self.attempts, 16))
        self.attempts += 1
        return max(jittered(bound), retry_after or 0.0)


def jittered(seconds: float) -> float:
    """Between half of `seconds` and all of it, so that a fleet does not come back in step."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for (RFC 9110: a number or a date), if it does."""
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        seconds = float(value[:9])
    else:
        try:
            when = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        seconds = (when - datetime.now(timezone.utc)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)
