"""Drops old months of the audit log as whole partitions. Only an operator's `prune --audit` does this (SPEC §9)."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from django.db import connection
from psycopg import sql

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event, emit
from pipedai.retention import Batch, Order, remove
from pipedai.sql import fetch_all

# Partitions are kept for at least this many days, whatever the operator asks for: those of this month and the three
# before it.
AT_LEAST_DAYS = 92
_TRIES = 20

# Reads the partitions and their ends from PostgreSQL's catalogue: the upper bound of a partition is the end of its
# month. The default partition has no bound and is never dropped.
_PARTITIONS = """
SELECT name, ends_at FROM (
    SELECT c.oid::regclass::text AS name,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \\(''([^'']+)''\\)')::timestamptz AS ends_at
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'audit_entry'::regclass) months
WHERE ends_at <= %(before)s ORDER BY ends_at
"""


def drop_partitions(order: Order) -> Iterator[Batch]:
    """Drops the partitions of months that ended before `order.before`, the oldest first. It yields the number of rows
    of each dropped partition.

    Dropping a partition locks the whole table for an instant. While other transactions use the table, it tries again
    for some seconds, and then raises InUse.
    """
    for month in fetch_all(_PARTITIONS, {"before": order.before}):
        entries = _entries(month["name"])
        if not order.dry_run:
            remove(partial(_drop, month["name"], month["ends_at"], entries), tries=_TRIES)
        yield Batch(entries, entries)


def _drop(name: str, ends_at: datetime, entries: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    metadata = {
        "month": name.removeprefix("audit_entry_"),
        "endedAt": iso_time(ends_at),
        "entries": entries,
    }
    emit(Event("runs.pruned", SYSTEM, None, "audit-log", None, metadata))
    return entries


def _entries(name: str) -> int:
    """Counts the rows of a partition. It is called before the partition is locked, so that nobody waits for the
    counting.
    """
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name)))
        (count,) = cursor.fetchone()
    return int(count)
