"""Drops old days of run events as whole partitions, and what was counted of these days (SPEC §18)."""

from collections.abc import Iterator
from functools import partial

from django.db import connection
from psycopg import sql

from pipedai.retention import Batch, InUse, Order, remove, until_short
from pipedai.sql import execute, fetch_all, fetch_one

AT_LEAST_DAYS = 2

# Reads the partitions and their ends from PostgreSQL's catalogue. The default partition has no bound.
_PARTITIONS = """
SELECT name FROM (
    SELECT c.oid::regclass::text AS name,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \\(''([^'']+)''\\)')::timestamptz AS ends_at
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'run_event_batch'::regclass) days
WHERE ends_at <= %(before)s ORDER BY ends_at
"""
# Batches in the default partition: their day had no partition when they were stored.
_STRAYS = """
DELETE FROM run_event_batch_default WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM run_event_batch_default WHERE stored_at < %(before)s LIMIT %(limit)s))
"""
_COUNTED = """
DELETE FROM run_event_day WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM run_event_day
    WHERE (day + 1)::timestamp AT TIME ZONE 'UTC' <= %(before)s LIMIT %(limit)s))
"""


def drop_partitions(order: Order) -> Iterator[Batch]:
    """Drops the partitions of days before `order.before`, and yields how many batches each had. A partition in use
    stays until the next time. It writes no audit row, because events are no part of the ledger.
    """
    for day in fetch_all(_PARTITIONS, {"before": order.before}):
        batches = _batches(day["name"])
        if not order.dry_run:
            try:
                remove(partial(_drop, day["name"], batches))
            except InUse:
                return
        yield Batch(max(batches, 1), batches)
    if not order.dry_run:
        params = {"before": order.before, "limit": order.limit}
        for statement in (_STRAYS, _COUNTED):
            yield from until_short(partial(execute, statement, params), order.limit)


def _drop(name: str, batches: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
    return batches


def _batches(name: str) -> int:
    """Returns about how many batches a partition has, as PostgreSQL last estimated it, because counting takes long."""
    row = fetch_one(
        "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%(name)s)", {"name": name}
    )
    return max(int(row["reltuples"]), 0) if row else 0
