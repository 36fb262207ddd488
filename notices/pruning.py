"""Removes old incidents that are closed, if the operator has set how long runs are kept."""

from collections.abc import Iterator

from pipedai.retention import Batch, Order, count_or_remove

_COUNT = "SELECT count(*) AS n FROM incident WHERE closed_at < %(before)s"
_REMOVE = """
WITH old AS MATERIALIZED (
    SELECT id FROM incident WHERE closed_at < %(before)s ORDER BY closed_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM incident i USING old WHERE i.id = old.id
"""


def prune_incidents(order: Order) -> Iterator[Batch]:
    """Removes incidents that were closed before `order.before`. The audit log keeps their events."""
    return count_or_remove(order, count=_COUNT, remove=_REMOVE)
