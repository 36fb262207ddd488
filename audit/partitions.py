"""Makes the monthly partitions of the audit log: those of the coming months, and those of the past for which `seed_demo
--scale` invents entries.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime

from pipedai.sql import fetch_all

MONTHS_AHEAD = 3

# Rows of a month without a partition of its own are in the default partition. Such a month gets no partition any more,
# since PostgreSQL refuses to move the rows. The advisory lock keeps two schedulers from making the same partition.
_ADD = """
SELECT audit_add_partition(month) FROM unnest(%(months)s::date[]) month
WHERE pg_try_advisory_xact_lock(hashtext('audit_add_partition'))
    AND NOT EXISTS (
        SELECT 1 FROM audit_entry_default
        WHERE created_at >= month AT TIME ZONE 'UTC' AND created_at < (month + interval '1 month') AT TIME ZONE 'UTC')
"""
_AHEAD = """
SELECT (date_trunc('month', statement_timestamp() AT TIME ZONE 'UTC') + n * interval '1 month')::date AS month
FROM generate_series(0, %(months)s) n
"""


def add_partitions() -> int:
    """Makes the partitions that are missing for this month and the three that follow, and returns how many it made."""
    return _add(row["month"] for row in fetch_all(_AHEAD, {"months": MONTHS_AHEAD}))


def add_partitions_of(moments: Iterable[datetime]) -> None:
    """Makes the partitions of the months in which these moments lie. `seed_demo --scale` needs them for entries of an
    invented past.
    """
    months = {moment.astimezone(UTC).date().replace(day=1) for moment in moments}
    if months:
        _add(months)


def _add(months: Iterable[date]) -> int:
    rows = fetch_all(_ADD, {"months": sorted(months)})
    return sum(row["audit_add_partition"] for row in rows)
