"""Removes old notices, and deleted channels that have no notices left (SPEC §10)."""

from collections.abc import Iterator

from pipedai.retention import Batch, Order, until_short
from pipedai.sql import execute, fetch_all

_OLD = """
SELECT id FROM notice WHERE created_at < %(before)s AND status <> 'pending' ORDER BY created_at LIMIT %(limit)s
"""
_COUNT = f"SELECT count(*) AS n FROM ({_OLD}) old"  # noqa: S608
_REMOVE_ATTEMPTS = "DELETE FROM notice_attempt WHERE notice_id = ANY(%(ids)s)"
_REMOVE = "DELETE FROM notice WHERE id = ANY(%(ids)s)"
_REMOVE_CHANNELS = """
WITH old AS MATERIALIZED (
    SELECT id FROM channel c WHERE deleted_at < %(before)s
        AND NOT EXISTS (SELECT FROM notice n WHERE n.channel_id = c.id)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM channel c USING old WHERE c.id = old.id
"""


def prune_notices(order: Order) -> Iterator[Batch]:
    """Removes notices that were queued before `order.before` and are no longer pending, with their attempts. Also
    removes channels that were deleted before that time. The audit log keeps the events of the channels.
    """
    params = {"before": order.before, "limit": order.limit}
    if order.dry_run:
        count = fetch_all(_COUNT, {**params, "limit": None})[0]["n"]
        yield Batch(count, count)
        return

    def step() -> int:
        ids = [row["id"] for row in fetch_all(f"{_OLD} FOR UPDATE SKIP LOCKED", params)]
        if ids:
            execute(_REMOVE_ATTEMPTS, {"ids": ids})
            execute(_REMOVE, {"ids": ids})
        return len(ids)

    yield from until_short(step, order.limit)
    yield from until_short(lambda: execute(_REMOVE_CHANNELS, params), order.limit)
