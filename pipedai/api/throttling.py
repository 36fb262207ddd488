"""Throttles limit how often a caller may do something. API.md lists the rates.

Writes are counted in each process's memory, everything else in an UNLOGGED table with a row, a bucket, for each rate
and caller. An HMAC names the bucket, so that the table holds no address and no account.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.utils.crypto import salted_hmac
from rest_framework import status
from rest_framework.request import Request

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError
from pipedai.api.principal import address_of, principal_of
from pipedai.server.memory_budget import RequestLimit
from pipedai.server.request_scope import network_of
from pipedai.server.ticket import is_asked_again
from pipedai.sql import execute, fetch_row

_COUNT = """
INSERT INTO throttle AS t (bucket, hits, window_start, expires_at)
SELECT %(bucket)s, 1, w.start, w.start + %(seconds)s * interval '1 second'
FROM (
    SELECT to_timestamp(floor(extract(epoch FROM statement_timestamp()) / %(seconds)s) * %(seconds)s) AS start) w
ON CONFLICT (bucket) DO UPDATE
SET hits = CASE WHEN t.window_start = excluded.window_start THEN t.hits + 1 ELSE 1 END,
    window_start = excluded.window_start, expires_at = excluded.expires_at
RETURNING hits, greatest(1, ceil(extract(epoch FROM expires_at - statement_timestamp())))::int AS seconds_left
"""

# Counts a hit for a rate with `in_a_row`. A window ends only when nothing was counted for its whole length, so no
# period of that length, wherever it begins, holds more hits than the limit.
_COUNT_ROW = """
INSERT INTO throttle AS t (bucket, hits, window_start, expires_at)
VALUES (%(bucket)s, 1, statement_timestamp(), statement_timestamp() + %(seconds)s * interval '1 second')
ON CONFLICT (bucket) DO UPDATE
SET hits = CASE WHEN t.expires_at > statement_timestamp() THEN t.hits + 1 ELSE 1 END,
    window_start = excluded.window_start,
    expires_at = CASE
        WHEN t.expires_at > statement_timestamp() AND t.hits >= %(limit)s THEN t.expires_at ELSE excluded.expires_at END
RETURNING hits, greatest(1, ceil(extract(epoch FROM expires_at - statement_timestamp())))::int AS seconds_left
"""

_TAKE_BACK = "UPDATE throttle SET hits = hits - 1 WHERE bucket = %(bucket)s AND hits > 0"

# The subquery is MATERIALIZED, because PostgreSQL may otherwise run it again for each row and delete more rows than
# LIMIT says.
_PRUNE = """
WITH over AS MATERIALIZED (
    SELECT bucket FROM throttle WHERE expires_at < statement_timestamp() LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM throttle t USING over WHERE t.bucket = over.bucket
"""


class TooManyRequests(ApiError):  # noqa: N818 - named as the status it answers
    """The error for a caller that exceeds a rate: 429, with `Retry-After` and the IETF `RateLimit` headers."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, code=ErrorCode.THROTTLED, headers=headers)


def admit(
    limit: RequestLimit, subject: Hashable, request: Request, sentence: str, *, retry_after: int = 1
) -> None:
    """Counts a request as one of those that the subject has open. Raises TooManyRequests if that would be too many."""
    if not limit.admits(subject, request):
        raise TooManyRequests(sentence, headers={"Retry-After": str(retry_after)})


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` hits in each window of `seconds`. If `in_a_row`, a window ends after a pause of `seconds`."""

    name: str
    limit: int
    seconds: int
    in_a_row: bool = False


@dataclass(frozen=True, slots=True)
class Throttle:
    rate: Rate
    key: Callable[[Request], str | None]

    def check(self, request: Request) -> None:
        """Counts this request as a hit of its caller. Raises TooManyRequests if the caller's hits exceed the rate."""
        if not settings.THROTTLES_ENABLED:
            return
        key = self.key(request)
        if key is not None:
            check_rate(self.rate, key)


def check_rate(rate: Rate, key: str) -> None:
    """Counts one hit of `key`. Raises TooManyRequests. If the server asks the view again for one request, only the
    first time counts.
    """
    if is_asked_again():
        return
    hits, seconds_left = count_hit(rate, key)
    if hits > rate.limit:
        raise too_many_requests(rate, seconds_left)


def too_many_requests(rate: Rate, seconds_left: int, sentence: str = "") -> TooManyRequests:
    return TooManyRequests(
        sentence or f"Too many requests: try again in {seconds_left} s.",
        headers={
            "Retry-After": str(seconds_left),
            "RateLimit-Policy": f'"{rate.name}";q={rate.limit};w={rate.seconds}',
            "RateLimit": f'"{rate.name}";r=0;t={seconds_left}',
        },
    )


def count_hit(rate: Rate, key: str) -> tuple[int, int]:
    """Counts a hit. Returns how many hits the window has, with this one, and how many seconds of it remain."""
    params = {"bucket": _bucket(rate, key), "seconds": rate.seconds, "limit": rate.limit}
    row = fetch_row(_COUNT_ROW if rate.in_a_row else _COUNT, params)
    return row["hits"], row["seconds_left"]


def take_back_hit(rate: Rate, key: str) -> None:
    execute(_TAKE_BACK, {"bucket": _bucket(rate, key)})


def prune_throttles(*, limit: int = 10_000) -> int:
    return execute(_PRUNE, {"limit": limit})


def _bucket(rate: Rate, key: str) -> bytes:
    return salted_hmac(f"pipedai.throttle.{rate.name}", key, algorithm="sha256").digest()


def by_address(request: Request) -> str:
    """Returns the client's address, or its /64 network for IPv6, because one subscriber usually has a whole /64."""
    return network_of(address_of(request) or "")


def by_caller(request: Request) -> str:
    return str(principal_of(request).id)


# How many writes a caller may do (API.md, Rates), counted in the memory of each process.
WRITES = Rate("writes", limit=3_000, seconds=60)
BURST = 600
# A process remembers at most this many callers. It is too slow to serve more callers within the few seconds that a
# bucket takes to fill.
_MOST_CALLERS = 10_000


class Buckets:
    """A bucket of at most `burst` tokens for each caller, which come back at a steady rate."""

    def __init__(self, rate: Rate, burst: int, *, most: int) -> None:
        self._per_second = rate.limit / rate.seconds
        self._burst = burst
        self._most = most
        # For each caller, the tokens left and the time when they were counted. The caller who wrote longest ago comes
        # first.
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: Hashable, *, now: float) -> float:
        """Takes a token and returns 0, or returns the seconds until the next one. `now` never goes back."""
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
    if is_asked_again():
        return
    if settings.THROTTLES_ENABLED and (wait := _buckets.take(caller, now=now)):
        raise too_many_requests(WRITES, math.ceil(wait))
