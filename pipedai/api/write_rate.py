"""How many writes a caller may do (SPEC §19), counted in the memory of each process.

Each caller has a bucket of tokens: a write takes one, and they come back evenly. It keeps one caller from taking all
of a process, and costs a write no statement; what needs one count for all processes is in `throttling.py`.
"""

import math
import threading
from collections import OrderedDict
from uuid import UUID

from django.conf import settings

from pipedai.api.throttling import Rate, too_many_requests

WRITES = Rate("writes", limit=3_000, seconds=60)
BURST = 600
# Callers of whom anything is remembered; 10,000 who write within the same seconds are more than a process can serve.
_MOST_CALLERS = 10_000


class Buckets:
    """A bucket for each caller, with at most `burst` tokens. One that is full again is forgotten."""

    def __init__(self, rate: Rate, burst: int, *, most: int) -> None:
        self._per_second = rate.limit / rate.seconds
        self._burst = burst
        self._most = most
        # caller → (tokens, when that was so), the one longest unseen first.
        self._buckets: OrderedDict[UUID, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._buckets)

    def take(self, caller: UUID, *, now: float) -> float:
        """Takes a token of the caller's: 0. If there is none, for how many seconds there will be none.

        `now` is a clock that is never put back.
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
    """Counts a write. Raises TooManyRequests beyond the rate."""
    if settings.THROTTLES_ENABLED and (wait := _buckets.take(caller, now=now)):
        raise too_many_requests(WRITES, math.ceil(wait))
