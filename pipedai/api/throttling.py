"""Throttles: how often a caller may do a thing (SPEC §3). The rates are in API.md.

The counters lie in an UNLOGGED table: atomic, shared by all processes, one small row for each
bucket, and pruned when their window is over. A bucket is an HMAC, so the table holds no address and
no account.
"""

from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.utils.crypto import salted_hmac
from rest_framework import status
from rest_framework.request import Request

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError
from pipedai.api.principal import address_of, principal_of
from pipedai.client_address import network_of
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

# The same, but that a window is over when nothing was counted for so long: whatever the moment, none of that length
# holds more than the limit.
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

# Materialized: as a subquery it may be run again for each row, and then the limit is none.
_PRUNE = """
WITH over AS MATERIALIZED (
    SELECT bucket FROM throttle WHERE expires_at < statement_timestamp() LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM throttle t USING over WHERE t.bucket = over.bucket
"""


class TooManyRequests(ApiError):  # noqa: N818 - named as the status it answers
    """429, with `Retry-After` and the IETF `RateLimit` headers."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    code = ErrorCode.THROTTLED


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` times in each window of `seconds`; with `in_a_row` a window ends only after so long a pause."""

    name: str
    limit: int
    seconds: int
    in_a_row: bool = False


@dataclass(frozen=True, slots=True)
class Throttle:
    """A rate, and whose it is: `key` names the caller, or is None for one to whom the rate does not apply."""

    rate: Rate
    key: Callable[[Request], str | None]

    def check(self, request: Request) -> None:
        """Counts this request. Raises TooManyRequests beyond the rate."""
        if not settings.THROTTLES_ENABLED:
            return
        key = self.key(request)
        if key is not None:
            check_rate(self.rate, key)


def check_rate(rate: Rate, key: str) -> None:
    """Counts one hit of `key`. Raises TooManyRequests beyond the rate."""
    hits, seconds_left = count_hit(rate, key)
    if hits > rate.limit:
        raise TooManyRequests(
            f"Too many requests: try again in {seconds_left} s.",
            headers={
                "Retry-After": str(seconds_left),
                "RateLimit-Policy": f'"{rate.name}";q={rate.limit};w={rate.seconds}',
                "RateLimit": f'"{rate.name}";r=0;t={seconds_left}',
            },
        )


def count_hit(rate: Rate, key: str) -> tuple[int, int]:
    """How many hits of `key` this window holds, this one included, and for how many seconds more it lasts."""
    params = {"bucket": _bucket(rate, key), "seconds": rate.seconds, "limit": rate.limit}
    row = fetch_one(_COUNT_ROW if rate.in_a_row else _COUNT, params)
    assert row is not None
    return row["hits"], row["seconds_left"]


def take_back_hit(rate: Rate, key: str) -> None:
    """Forgets one hit of `key` that turned out not to count."""
    execute(_TAKE_BACK, {"bucket": _bucket(rate, key)})


def prune_throttles(*, limit: int = 10_000) -> int:
    """Forgets windows that are over; how many."""
    return execute(_PRUNE, {"limit": limit})


def _bucket(rate: Rate, key: str) -> bytes:
    return salted_hmac(f"pipedai.throttle.{rate.name}", key, algorithm="sha256").digest()


def by_address(request: Request) -> str:
    """The client's address; IPv6 by its /64, since that is what one subscriber has."""
    return network_of(address_of(request) or "")


def by_caller(request: Request) -> str:
    """The authenticated principal."""
    return str(principal_of(request).id)
