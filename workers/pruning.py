"""Deletes old worker events, which no event stream sends any more, and expired pairings that nobody approved."""

from collections.abc import Iterator
from functools import partial

from pipedai.retention import Batch, Order, until_short
from pipedai.sql import execute, fetch_all

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
    params = {"before": order.before, "limit": order.limit}
    names = {"table": table, "old": old, "moment": moment}
    if order.dry_run:
        count = fetch_all(_COUNT.format(**names), params)[0]["n"]
        yield Batch(count, count)
    else:
        yield from until_short(partial(execute, _REMOVE.format(**names), params), order.limit)
