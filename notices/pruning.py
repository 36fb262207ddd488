"""Removes old incidents that are closed, if the operator has set how long runs are kept."""

from collections.abc import Iterator

from pipedai.retention import Batch, Order, until_short
from pipedai.sql import execute, fetch_all

_COUNT = "SELECT count(*) AS n FROM incident WHERE closed_at < %(before)s"
_REMOVE = """
WITH old AS MATERIALIZED (
    SELECT id FROM incident WHERE closed_at < %(before)s ORDER BY closed_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM incident i USING old WHERE i.id = old.id
"""


def prune_incidents(order: Order) -> Iterator[Batch]:
    """Removes incidents that were closed before `order.before`. The audit log keeps their events."""
    params = {"before": order.before, "limit": order.limit}
    if order.dry_run:
        count = fetch_all(_COUNT, params)[0]["n"]
        yield Batch(count, count)
    else:
        yield from until_short(lambda: execute(_REMOVE, params), order.limit)
