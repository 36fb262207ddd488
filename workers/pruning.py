"""Deletes old worker events, which no event stream sends any more, and expired pairings that nobody approved."""

from collections.abc import Iterator

from pipedai.retention import Batch, Order, count_or_remove

_EVENTS = ("worker_event", "at < %(before)s", "at")
_PAIRINGS = (
    "enrollment",
    "kind = 'device' AND approved_at IS NULL AND expires_at < %(before)s",
    "expires_at",
)
_COUNT = "SELECT count(*) AS n FROM {table} WHERE {old}"
_REMOVE = """
WITH old AS MATERIALIZED (
    SELECT id FROM {table} WHERE {old} ORDER BY {moment} LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM {table} t USING old WHERE t.id = old.id
"""


def prune_events(order: Order) -> Iterator[Batch]:
    """Deletes worker events older than `order.before`. The actions that these events report stay in the audit log."""
    return _prune(order, *_EVENTS)


def prune_pairings(order: Order) -> Iterator[Batch]:
    """Deletes pairings that expired before `order.before` without approval. Denials stay in the audit log."""
    return _prune(order, *_PAIRINGS)


def _prune(order: Order, table: str, old: str, moment: str) -> Iterator[Batch]:
    names = {"table": table, "old": old, "moment": moment}
    return count_or_remove(order, count=_COUNT.format(**names), remove=_REMOVE.format(**names))
