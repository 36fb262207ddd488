"""Drops old months of the audit log, as whole partitions: what an operator's `prune --audit` alone does (SPEC §9)."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from django.db import connection
from psycopg import sql

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event, emit
from pipedai.retention import Batch, Order, remove
from pipedai.sql import fetch_all

# The month under way and the three before it stay, whatever is asked for.
AT_LEAST_DAYS = 92
_TRIES = 20

# A month ends where its partition's rows must be less than; the default partition has no such end, and stays.
_PARTITIONS = """
SELECT name, ends_at FROM (
    SELECT c.oid::regclass::text AS name,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \\(''([^'']+)''\\)')::timestamptz AS ends_at
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'audit_entry'::regclass) months
WHERE ends_at <= %(before)s ORDER BY ends_at
"""


def drop_partitions(order: Order) -> Iterator[Batch]:
    """Drops the months that were over before, the oldest first; one at each step, with its count of entries.

    Dropping one takes the whole table for an instant: while somebody writes to it, it is tried again for some
    seconds. Raises InUse if that does not help.
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
    """How many rows it has, counted before it is locked."""
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name)))
        (count,) = cursor.fetchone()
    return int(count)
