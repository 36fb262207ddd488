"""Throttles limit how often a caller may do something (SPEC §3). API.md lists the rates.

The counters are in an UNLOGGED table, which all processes share and update atomically. It has one small row, called a
bucket, for each rate and caller. The row is deleted some time after the rate's window ended. An HMAC names the bucket,
so the table holds no address and no account.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.conf import settings
from django.utils.crypto import salted_hmac
from rest_framework import status
from rest_framework.request import Request

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError
from pipedai.api.principal import address_of, principal_of
from pipedai.client_address import network_of
from pipedai.server.ticket import is_asked_again
from pipedai.sql import execute, fetch_one

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


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` hits, which are counted requests, in each window of `seconds`.

    If `in_a_row`, a window ends only after `seconds` without a hit.
    """

    name: str
    limit: int
    seconds: int
    in_a_row: bool = False


@dataclass(frozen=True, slots=True)
class Throttle:
    """A rate and the callers that it limits. `key` names the caller, or returns None if the rate does not apply."""

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
    """Counts one hit of `key`. Raises TooManyRequests if the hits exceed the rate.

    A request that must hash a password may be run twice (see pipedai.server.password_lane). Only its first run is
    counted.
    """
    if is_asked_again():
        return
    hits, seconds_left = count_hit(rate, key)
    if hits > rate.limit:
        raise too_many_requests(rate, seconds_left)


def too_many_requests(rate: Rate, seconds_left: int) -> TooManyRequests:
    """Returns the error to raise when a rate is exceeded and its window lasts for `seconds_left` more seconds."""
    return TooManyRequests(
        f"Too many requests: try again in {seconds_left} s.",
        headers={
            "Retry-After": str(seconds_left),
            "RateLimit-Policy": f'"{rate.name}";q={rate.limit};w={rate.seconds}',
            "RateLimit": f'"{rate.name}";r=0;t={seconds_left}',
        },
    )


def count_hit(rate: Rate, key: str) -> tuple[int, int]:
    """Counts a hit of `key`.

    Returns the number of hits in its window, with this one, and the window's remaining seconds.
    """
    params = {"bucket": _bucket(rate, key), "seconds": rate.seconds, "limit": rate.limit}
    row = fetch_one(_COUNT_ROW if rate.in_a_row else _COUNT, params)
    assert row is not None
    return row["hits"], row["seconds_left"]


def take_back_hit(rate: Rate, key: str) -> None:
    """Forgets one hit of `key` that turned out not to count."""
    execute(_TAKE_BACK, {"bucket": _bucket(rate, key)})


def prune_throttles(*, limit: int = 10_000) -> int:
    """Deletes at most `limit` windows that are over, and returns how many it deleted."""
    return execute(_PRUNE, {"limit": limit})


def _bucket(rate: Rate, key: str) -> bytes:
    return salted_hmac(f"pipedai.throttle.{rate.name}", key, algorithm="sha256").digest()


def by_address(request: Request) -> str:
    """Returns the client's address, or its /64 network for IPv6, because one subscriber usually has a whole /64."""
    return network_of(address_of(request) or "")


def by_caller(request: Request) -> str:
    """Returns the key under which a throttle counts the authenticated principal."""
    return str(principal_of(request).id)
