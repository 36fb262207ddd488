"""Deletes sessions of the API and of Django admin that expired long ago."""

from collections.abc import Iterator
from functools import partial

from pipedai.retention import Batch, Order, until_short
from pipedai.sql import execute, fetch_all

_TABLES = ("session", "staff_session")
_COUNT = "SELECT count(*) AS n FROM {table} WHERE expires_at < %(before)s"
_REMOVE = """
WITH old AS MATERIALIZED (
    SELECT id FROM {table} WHERE expires_at < %(before)s
    ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM {table} s USING old WHERE s.id = old.id
"""


def prune_sessions(order: Order) -> Iterator[Batch]:
    """Deletes the rows of sessions that expired before `order.before`. It writes no audit row, since an expired session
    permits nothing any more.
    """
    params = {"before": order.before, "limit": order.limit}
    for table in _TABLES:
        if order.dry_run:
            count = fetch_all(_COUNT.format(table=table), params)[0]["n"]
            yield Batch(count, count)
        else:
            yield from until_short(
                partial(execute, _REMOVE.format(table=table), params), order.limit
            )
