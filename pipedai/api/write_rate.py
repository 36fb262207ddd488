"""Limits how many writes a caller may do (SPEC §19), counted in the memory of each process.

Each caller has a bucket of tokens. A write takes one token, and tokens come back at a steady rate. So no caller can
occupy a whole process, and counting costs no SQL statement. Limits that need one count for all processes are in
`throttling.py`.
"""

import math
import threading
from collections import OrderedDict
from uuid import UUID

from django.conf import settings

from pipedai.api.throttling import Rate, too_many_requests

WRITES = Rate("writes", limit=3_000, seconds=60)
BURST = 600
# A process remembers at most this many callers. It is too slow to serve more callers within the few seconds that a
# bucket takes to fill.
_MOST_CALLERS = 10_000


class Buckets:
    """A bucket of at most `burst` tokens for each caller. A caller whose bucket is full again is forgotten."""

    def __init__(self, rate: Rate, burst: int, *, most: int) -> None:
        self._per_second = rate.limit / rate.seconds
        self._burst = burst
        self._most = most
        # For each caller, the tokens left and the time when they were counted. The caller who wrote longest ago comes
        # first.
        self._buckets: OrderedDict[UUID, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Returns how many callers are remembered."""
        return len(self._buckets)

    def take(self, caller: UUID, *, now: float) -> float:
        """Takes one of the caller's tokens and returns 0. If there is none, returns the seconds until the next token.

        `now` is in seconds on a clock that never goes back.
        """
        with self._lock:
            self._forget(now)
            tokens, then = self._buckets.pop(caller, (self._burst, now))
            tokens = min(self._burst, tokens + (now - then) * self._per_second)
            taken = tokens >= 1
            self._buckets[caller] = (tokens - 1 if taken else tokens, now)
        return 0 if taken else (1 - tokens) / self._per_second

    def _forget(self, now: float) -> None:
        full_again = now - self._burst / self._per_second
        while self._buckets:
            caller, (_, then) = next(iter(self._buckets.items()))
            if then > full_again and len(self._buckets) < self._most:
                return
            del self._buckets[caller]


_buckets = Buckets(WRITES, BURST, most=_MOST_CALLERS)


def check_write(caller: UUID, *, now: float) -> None:
    """Counts a write. Raises TooManyRequests if the caller has no token left."""
    if settings.THROTTLES_ENABLED and (wait := _buckets.take(caller, now=now)):
        raise too_many_requests(WRITES, math.ceil(wait))
