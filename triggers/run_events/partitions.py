"""Makes the daily partitions of run events ahead of time."""

from datetime import datetime

from pipedai.sql import NOW, fetch_all

DAYS_AHEAD = 3

# Rows of a day without a partition of its own are in the default partition. Such a day gets no partition any more,
# since PostgreSQL refuses to move the rows. The advisory lock keeps two schedulers from making the same partition.
_ADD = f"""
SELECT run_event_add_partition(day) AS is_new FROM (
    SELECT ({NOW} AT TIME ZONE 'UTC')::date + n AS day FROM generate_series(0, %(days)s) n) days
WHERE pg_try_advisory_xact_lock(hashtext('run_event_add_partition'))
    AND NOT EXISTS (
        SELECT 1 FROM run_event_batch_default
        WHERE stored_at >= day::timestamp AT TIME ZONE 'UTC' AND stored_at < (day + 1)::timestamp AT TIME ZONE 'UTC')
"""


def add_partitions(*, now: datetime | None = None) -> int:
    """Makes the partitions that are missing for this day and the three that follow, and returns how many it made."""
    return sum(row["is_new"] for row in fetch_all(_ADD, {"days": DAYS_AHEAD, "now": now}))
