"""Computes the pause before a failed request is tried again: random, longer each time, and as `Retry-After` asks."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

FIRST_SECONDS = 0.5
# The longest pause between two attempts. When an outage ends, the API gives a run up if its worker sends nothing for
# another minute, so the worker must ask sooner than that (SPEC §22).
LONGEST_SECONDS = 15.0
# The worker waits no longer than this, even if a server asks for more.
LONGEST_RETRY_AFTER_SECONDS = 3600.0


class Backoff:
    """Computes the delays between the attempts of one request. Call `reset()` when an attempt has succeeded."""

    def __init__(self, longest: float = LONGEST_SECONDS) -> None:
        self._longest = longest
        self.attempts = 0

    def reset(self) -> None:
        """Make the next delay as short as the first one."""
        self.attempts = 0

    def next_delay(self, retry_after: float | None = None) -> float:
        """Return the seconds until the next attempt: random, up to twice as long each time, at least `retry_after`."""
        bound = min(self._longest, FIRST_SECONDS * 2.0 ** min(self.attempts, 16))
        self.attempts += 1
        return max(jittered(bound), retry_after or 0.0)


def jittered(seconds: float) -> float:
    """Return a random time from half of `seconds` to `seconds`, so that many workers do not all call at once."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for (RFC 9110: a number or a date), or None."""
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        seconds = float(value[:9])
    else:
        try:
            when = parsedate_to_datetime(value)
        except (TypeError, ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        seconds = (when - datetime.now(timezone.utc)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)
