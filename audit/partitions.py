"""Makes the monthly partitions of the audit log, and drops old ones for `prune --audit`."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from functools import partial

from django.db import connection
from psycopg import sql

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event, emit
from pipedai.retention import Batch, Order, remove
from pipedai.sql import NOW, fetch_all

MONTHS_AHEAD = 3
# Partitions are kept for at least this many days, whatever the operator asks for: those of this month and the three
# before it.
AT_LEAST_DAYS = 92
_TRIES = 20

# Rows of a month without a partition of its own are in the default partition. Such a month gets no partition any more,
# since PostgreSQL refuses to move the rows. The advisory lock keeps two schedulers from making the same partition.
_ADD = """
SELECT audit_add_partition(month) FROM unnest(%(months)s::date[]) month
WHERE pg_try_advisory_xact_lock(hashtext('audit_add_partition'))
    AND NOT EXISTS (
        SELECT 1 FROM audit_entry_default
        WHERE created_at >= month::timestamp AT TIME ZONE 'UTC'
            AND created_at < (month + interval '1 month') AT TIME ZONE 'UTC')
"""
_AHEAD = f"""
SELECT (date_trunc('month', {NOW} AT TIME ZONE 'UTC') + n * interval '1 month')::date AS month
FROM generate_series(0, %(months)s) n
"""  # noqa: S608

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


def add_partitions(*, now: datetime | None = None) -> int:
    """Makes the partitions that are missing for this month and the three that follow, and returns how many it made."""
    return _add(row["month"] for row in fetch_all(_AHEAD, {"months": MONTHS_AHEAD, "now": now}))


def add_partitions_of(moments: Iterable[datetime]) -> None:
    """Makes the partitions for entries of the past, such as those of the week that `seed_demo` makes up."""
    months = {moment.astimezone(UTC).date().replace(day=1) for moment in moments}
    if months:
        _add(months)


def drop_partitions(order: Order) -> Iterator[Batch]:
    """Drops partitions that ended before `order.before`, the oldest first, and yields their numbers of rows. That locks
    the whole table for an instant. Raises InUse if other transactions use it for some seconds.
    """
    for month in fetch_all(_PARTITIONS, {"before": order.before}):
        entries = _entries(month["name"])
        if not order.dry_run:
            remove(partial(_drop, month["name"], month["ends_at"], entries), tries=_TRIES)
        yield Batch(entries, entries)


def _add(months: Iterable[date]) -> int:
    rows = fetch_all(_ADD, {"months": sorted(months)})
    return sum(row["audit_add_partition"] for row in rows)


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
    """Called before the partition is locked, so that nobody waits for the counting."""
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name)))
        (count,) = cursor.fetchone()
    return int(count)
